// What several pages are made of.

import { Component, h, render, html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "/static/vendor/htm-preact.js";
import { Live } from "/static/live.js";
import { address, ago, clock, date, duration, name, number, UNKNOWN } from "/static/format.js";

export { h, html, render, useEffect, useLayoutEffect, useMemo, useRef, useState };

const STATUS = {
  OK: ["ok", "✓"],
  WARN: ["warn", "▲"],
  STALL: ["warn", "▲"],
  REWIND: ["warn", "▲"],
  STOP: ["err", "✖"],
  ERR: ["err", "✖"],
};

// Colour, shape and word: each tells the status alone.
export function Badge({ status }) {
  const [tone, shape] = STATUS[status] ?? ["none", "○"];
  return html`<span class="badge ${tone}"><span aria-hidden="true">${shape} </span>${status ?? "not judged"}</span>`;
}

export const NameLink = ({ kind, cluster, id, tabIndex, label }) =>
  html`<a href=${address(kind, cluster, id)} tabIndex=${tabIndex} title=${name(id)}>${label ?? name(id)}</a>`;

export const Unknown = ({ why = "not known" }) => html`<span class="dim" title=${why}>${UNKNOWN}<span class="sr"> ${why}</span></span>`;

// A figure, or why there is none.
export function Lag({ lag, is }) {
  if (lag == null) return html`<span class="word">${is ?? "unknown"}</span>`;
  if (is === "part") return html`<span title="at least: of some partitions it is not known">≥ ${number(lag)}</span>`;
  return number(lag);
}

export const Seconds = ({ value, why }) => (value == null ? html`<${Unknown} why=${why} />` : duration(value));

const WIDTH = 96;
const HEIGHT = 24;

export function trendWord(points) {
  const known = points.filter(([, lag]) => lag != null);
  if (known.length < 2) return known.length ? "steady" : null;
  const first = known[0][1];
  const last = known[known.length - 1][1];
  const size = Math.max(...known.map(([, lag]) => lag));
  if (Math.abs(last - first) <= size * 0.05) return "steady";
  return last > first ? "growing" : "shrinking";
}

const ARROWS = { growing: "↗", shrinking: "↘", steady: "→" };

// A curve of steps: each lag holds until the next, and there is none while it is not known.
export function steps(points, x, y, end) {
  let path = "";
  let isDown = false;
  for (const [at, lag] of points) {
    if (isDown) path += `H${x(at)}`;
    if (lag != null) path += isDown ? `V${y(lag)}` : `M${x(at)},${y(lag)}`;
    isDown = lag != null;
  }
  return isDown ? `${path}H${end}` : path;
}

// The lag of the last polls.
export function Sparkline({ points, until }) {
  const word = trendWord(points);
  if (!word) return html`<${Unknown} />`;
  const known = points.filter(([, lag]) => lag != null);
  const start = known[0][0];
  const span = Math.max(1, until - start);
  const top = Math.max(1, ...known.map(([, lag]) => lag));
  const x = (at) => (((at - start) / span) * WIDTH).toFixed(1);
  const y = (lag) => (HEIGHT - 2 - (lag / top) * (HEIGHT - 4)).toFixed(1);
  const path = steps(points, x, y, WIDTH);
  const told = `${word}: from ${number(known[0][1])} to ${number(known[known.length - 1][1])} in ${duration(span)}`;
  return html`<span class="trend"
    ><svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label=${told}><path d=${path} /></svg
    ><span class="arrow" aria-hidden="true">${ARROWS[word]}</span></span
  >`;
}

// The age of what is shown, and whether the monitor answers: always in sight.
export function Seen({ live, headers }) {
  const seen = headers.map((header) => header?.seen_at).filter((at) => at != null);
  const oldest = seen.length ? Math.min(...seen) : null;
  const age = oldest == null ? null : Math.max(0, live.now() - oldest);
  const state = live.lostSince ? "reconnecting" : live.isHeard ? "live" : "connecting";
  return html`<span class="seen">
    <span class="dot ${state}" aria-hidden="true"></span>
    <span role="status">${state === "reconnecting" ? "no connection" : state}</span>
    ${oldest != null && html`, seen <time dateTime=${new Date(oldest * 1000).toISOString()} title=${date(oldest)}>${ago(age)}</time>`}
  </span>`;
}

// What is wrong with the monitor itself, or with what it saw.
export function Faults({ live, headers, errors = [] }) {
  const lost = live.lostSince;
  const several = headers.length > 1;
  const lines = headers.filter(Boolean).flatMap((header) => {
    const told = live.clusters.find((cluster) => cluster.name === header.name && live.isHeard) ?? header;
    const start = several ? `${name(header.cluster)}: ` : "";
    const incomplete = header.incomplete && !header.faults.length ? [`what is shown is not all: ${header.incomplete}`] : [];
    return [...(told.reason ? [`not ready: ${told.reason}`] : []), ...header.faults, ...incomplete].map((line) => start + line);
  });
  return html`<div role="alert">
    ${lost && html`<p class="bad">The monitor has not answered since ${clock(lost)}. What is shown was seen before.</p>`}
    ${[...errors, ...new Set(lines)].map((line) => html`<p class="bad" key=${line}>${line}</p>`)}
  </div>`;
}

export const Advice = ({ advice }) => html`<p class="advice ${advice.severity}">
  <strong>${advice.severity}: ${advice.finding}</strong> ${advice.action}
</p>`;

export function CopyableCommand({ why, command }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(command);
      setCopied(true);
    } catch {
      setCopied(false); // without TLS browsers give no clipboard: the text can be selected
    }
  };
  return html`<div class="command">
    ${why && html`<p>${why}</p>`}
    <pre tabIndex="0" aria-label="command">${command}</pre>
    ${window.isSecureContext && html`<button type="button" onClick=${copy}>${copied ? "copied" : "copy"}</button>`}
  </div>`;
}

// A table in which a row can be of any number: only those in sight are in the document.
const NARROW = window.matchMedia("(max-width: 48rem)");
const MARGIN_ROWS = 6;

// Drawn anew only where something of it changed: a search or a scroll leaves most rows as they are.
class Row extends Component {
  shouldComponentUpdate(next) {
    return ["row", "index", "tabIndex", "columns", "height"].some((each) => next[each] !== this.props[each]);
  }

  render({ row, index, tabIndex, columns, height }) {
    return html`<tr role="row" aria-rowindex=${index + 2} style=${{ height: `${height}px` }} class=${row.stale ? "stale" : ""}>
      ${columns.map(
        (column) => html`<td
          key=${column.id}
          role=${column.isHeading ? "rowheader" : "cell"}
          class=${`${column.id} ${column.isNumber ? "n" : ""}`}
          data-title=${column.title}
        >${column.cell(row, tabIndex)}</td>`,
      )}
    </tr>`;
  }
}

export function Table({ label, columns, rows, keyOf, narrowRem = 4.5, sort, onSort, empty = "Nothing to show." }) {
  const body = useRef(null);
  const [, redraw] = useState(0);
  const window_ = useRef({ first: 0, count: 40, height: 40 });
  const active = useRef(0);
  const wanted = useRef(null); // the row that is to get the focus once it is drawn

  const measure = () => {
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const height = (NARROW.matches ? narrowRem : 2.25) * rem;
    const top = body.current ? body.current.getBoundingClientRect().top : 0;
    const first = Math.max(0, Math.min(rows.length, Math.floor(-top / height)) - MARGIN_ROWS);
    const count = Math.ceil(innerHeight / height) + 2 * MARGIN_ROWS;
    const now = window_.current;
    const moved = Math.abs(first - now.first) >= MARGIN_ROWS / 2 || (first === 0 && now.first !== 0);
    if (moved || height !== now.height || count !== now.count) {
      window_.current = { first, count, height };
      return true;
    }
    return false;
  };
  const measured = useRef(measure);
  measured.current = measure;
  useEffect(() => {
    const look = () => measured.current() && redraw((n) => n + 1);
    addEventListener("scroll", look, { passive: true });
    addEventListener("resize", look);
    look();
    return () => {
      removeEventListener("scroll", look);
      removeEventListener("resize", look);
    };
  }, []);
  useLayoutEffect(() => {
    if (measured.current()) redraw((n) => n + 1);
    if (wanted.current == null) return;
    const link = body.current.querySelector(`tr[aria-rowindex="${wanted.current + 2}"] [data-row]`);
    if (!link) return;
    wanted.current = null;
    link.focus({ preventScroll: true });
    link.closest("tr").scrollIntoView({ block: "nearest" });
  });

  const { count, height } = window_.current;
  const first = Math.min(window_.current.first, Math.max(0, rows.length - 1));
  const shown = rows.slice(first, first + count);
  active.current = Math.min(Math.max(active.current, 0), Math.max(0, rows.length - 1));
  const tabbable = active.current >= first && active.current < first + shown.length ? active.current : first;

  const focusRow = (index) => {
    const target = Math.max(0, Math.min(rows.length - 1, index));
    active.current = target;
    wanted.current = target;
    if (target < window_.current.first || target >= window_.current.first + window_.current.count) {
      const top = body.current.getBoundingClientRect().top + scrollY;
      scrollTo({ top: top + target * height - innerHeight / 2, behavior: "instant" });
      measured.current();
    }
    redraw((n) => n + 1);
  };
  const onKeyDown = (event) => {
    const row = event.target.closest("tr[aria-rowindex]");
    if (!row || event.ctrlKey || event.altKey || event.metaKey) return;
    const index = Number(row.getAttribute("aria-rowindex")) - 2;
    const page = Math.max(1, Math.floor(innerHeight / height) - 2);
    const target = { ArrowDown: index + 1, ArrowUp: index - 1, Home: 0, End: rows.length - 1, PageDown: index + page, PageUp: index - page }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    focusRow(target);
  };
  const onFocus = (event) => {
    const row = event.target.closest("tr[aria-rowindex]");
    if (row) active.current = Number(row.getAttribute("aria-rowindex")) - 2;
  };

  const after = rows.length - first - shown.length;
  return html`<table class="rows" role="table" aria-label=${label} aria-rowcount=${rows.length + 1}>
    <thead role="rowgroup">
      <tr role="row" aria-rowindex="1">
        ${columns.map(
          (column) => html`<th
            key=${column.id}
            role="columnheader"
            scope="col"
            class=${`${column.id} ${column.isNumber ? "n" : ""}`}
            aria-sort=${sort && sort.by === column.id ? (sort.down ? "descending" : "ascending") : undefined}
          >
            ${
              column.value && onSort
                ? html`<button type="button" title=${column.help} onClick=${() => onSort(column.id)}>
                    ${column.title}<span aria-hidden="true">${sort && sort.by === column.id ? (sort.down ? " ▾" : " ▴") : ""}</span>
                  </button>`
                : html`<span title=${column.help}>${column.title}</span>`
            }
          </th>`,
        )}
      </tr>
    </thead>
    <tbody role="rowgroup" ref=${body} onKeyDown=${onKeyDown} onFocusIn=${onFocus}>
      <tr role="presentation" class="space" style=${{ height: `${first * height}px` }}></tr>
      ${shown.map(
        (row, i) => html`<${Row}
          key=${`row ${keyOf(row)}`}
          row=${row}
          index=${first + i}
          tabIndex=${first + i === tabbable ? 0 : -1}
          columns=${columns}
          height=${height}
        />`,
      )}
      <tr role="presentation" class="space" style=${{ height: `${after * height}px` }}></tr>
    </tbody>
  </table>
  ${rows.length === 0 && html`<p class="dim">${empty}</p>`}`;
}

const { compare } = new Intl.Collator();

// Rows by a column; what is not known is last, whichever way.
export function sorted(rows, columns, sort) {
  const column = columns.find((each) => each.id === sort?.by);
  if (!column) return rows;
  const direction = sort.down ? -1 : 1;
  return [...rows].sort((a, b) => {
    const [one, other] = [column.value(a), column.value(b)];
    if (one == null || other == null) return (one == null) - (other == null);
    return (typeof one === "string" ? compare(one, other) : one - other) * direction;
  });
}

// The state of a page that is in its address.
export function readState(defaults) {
  const parameters = new URLSearchParams(location.search);
  return Object.fromEntries(
    Object.entries(defaults).map(([key, value]) => [key, Array.isArray(value) ? parameters.getAll(key) : (parameters.get(key) ?? value)]),
  );
}

export function writeState(state, defaults) {
  const parameters = new URLSearchParams(location.search);
  for (const [key, value] of Object.entries(state)) {
    parameters.delete(key);
    if (Array.isArray(value)) value.forEach((each) => parameters.append(key, each));
    else if (value !== defaults[key]) parameters.set(key, value);
  }
  const search = String(parameters);
  history.replaceState(null, "", search ? `?${search}` : location.pathname);
}

// Draw a page: what the server wrote stays until there is something in its place.
export function start(documentsOf, draw) {
  const main = document.getElementById("main");
  const seen = document.getElementById("live");
  let isOurs = false;
  const showAge = (live) => {
    if (!isOurs) return;
    const headers = documentsOf(live.clusters).map((each) => live.documents.get(each.key)?.data);
    render(html`<${Seen} live=${live} headers=${headers.filter(Boolean)} />`, seen);
  };
  const show = (live) => {
    const drawn = draw(live);
    if (!drawn) return;
    if (!isOurs) {
      main.textContent = seen.textContent = "";
      isOurs = true;
    }
    render(drawn, main);
    showAge(live);
  };
  new Live(documentsOf, show, showAge);
}
