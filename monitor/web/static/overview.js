// All groups: which needs somebody, by how much it is behind, and why.

import { csv, download, name, number, percent, plural, rate } from "/static/format.js";
import {
  Badge, Faults, Lag, NameLink, Seconds, Sparkline, Table, html, readState, sorted, start, useEffect, useRef, useState, writeState,
} from "/static/parts.js";

const DEFAULTS = { q: "", status: [], state: "", over: "", topic: "", cluster: "", empty: "", sort: "need", dir: "down" };
const STATUSES = ["ERR", "WARN", "OK", "new", "not judged"];
const UNITS = { s: 1, m: 60, h: 3600 };

let state = readState(DEFAULTS);

const selected = (clusters) => clusters.filter((each) => !state.cluster || each.name === state.cluster);
const documentsOf = (clusters) =>
  selected(clusters).map((each) => ({
    key: each.name,
    url: `/page/groups?${new URLSearchParams(each.name ? { cluster: each.name } : {})}`,
    poll: each.poll,
  }));

const statusOf = (row) => row.status ?? "not judged";
const low = Number.NEGATIVE_INFINITY;
const need = (row) => row.need.map((part) => part ?? low);
function byNeed(a, b) {
  const [one, other] = [need(a), need(b)];
  for (let i = 0; i < one.length; i++) if (one[i] !== other[i]) return other[i] > one[i] ? 1 : -1;
  return a.group < b.group ? -1 : 1;
}

const COLUMNS = [
  { id: "status", title: "Status", value: (row) => row.need[1], cell: (row) => html`<${Badge} status=${row.status} />` },
  {
    id: "group", title: "Group", isHeading: true, value: (row) => row.group,
    cell: (row, tabIndex) => html`<a data-row href=${row.href} tabIndex=${tabIndex} title=${name(row.group)}>${name(row.group)}</a>
      ${row.stale && html`<span class="note" title=${row.error}> stale</span>`}`,
  },
  { id: "seconds", title: "Behind", isNumber: true, help: "how long the oldest unread message has waited", value: (row) => row.seconds,
    cell: (row) => html`<${Seconds} value=${row.seconds} why=${row.lag_is === "known" ? "not known" : row.lag_is} />` },
  { id: "lag", title: "Lag", isNumber: true, help: "messages", value: (row) => row.lag, cell: (row) => html`<${Lag} lag=${row.lag} is=${row.lag_is} />` },
  { id: "trend", title: "Trend", help: "lag over the last polls", cell: (row) => html`<${Sparkline} points=${row.trend} until=${row.until} />` },
  { id: "in", title: "In/s", isNumber: true, help: "messages produced a second", value: (row) => row.in, cell: (row) => rate(row.in) },
  { id: "out", title: "Out/s", isNumber: true, help: "messages consumed a second", value: (row) => row.out, cell: (row) => rate(row.out) },
  { id: "catchup", title: "Caught up in", isNumber: true, help: "at these rates", value: (row) => (row.never ? Infinity : row.catch_up),
    cell: (row) => (row.never ? html`<span class="word">never</span>` : html`<${Seconds} value=${row.catch_up} />`) },
  { id: "members", title: "Members", isNumber: true, value: (row) => row.members, cell: (row) => number(row.members) },
  { id: "imbalance", title: "Uneven", isNumber: true, help: "the largest partition or member over the mean, less one", value: (row) => row.imbalance,
    cell: (row) => percent(row.imbalance) },
  { id: "retention", title: "Deleted in", isNumber: true, help: "how long the oldest unread message is surely kept", value: (row) => row.retention,
    cell: (row) => html`<${Seconds} value=${row.retention} why="kept, or nothing unread" />${row.lost ? html` <span class="bad">${number(row.lost)} lost</span>` : ""}` },
  { id: "cause", title: "Why", value: (row) => row.why || null, cell: (row) => html`<span class=${`cause ${row.severity ?? ""}`} title=${row.error ?? row.sentence}>${row.why}</span>` },
];
const COLUMNS_OF_SEVERAL = [
  ...COLUMNS.slice(0, 2),
  { id: "cluster", title: "Cluster", value: (row) => row.clusterName, cell: (row) => name(row.clusterName) },
  ...COLUMNS.slice(2),
];
const CSV = {
  cluster: (row) => row.clusterName, group: (row) => row.group, status: (row) => row.status, state: (row) => row.state, type: (row) => row.type,
  lag: (row) => row.lag, lag_is: (row) => row.lag_is, seconds_behind: (row) => row.seconds, in_per_second: (row) => row.in,
  out_per_second: (row) => row.out, catch_up_seconds: (row) => (row.never ? "never" : row.catch_up), members: (row) => row.members,
  imbalance: (row) => row.imbalance, retention_seconds: (row) => row.retention, lost: (row) => row.lost, cause: (row) => row.cause, finding: (row) => row.sentence,
};

function overTest(text) {
  const found = /^(\d{1,15})([smh])?$/.exec(text.trim());
  if (!found) return null;
  const amount = Number(found[1]);
  return found[2] ? (row) => row.seconds != null && row.seconds > amount * UNITS[found[2]] : (row) => row.lag != null && row.lag > amount;
}

function matches() {
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const over = state.over ? overTest(state.over) : null;
  return (row) =>
    words.every((word) => row.text.includes(word)) &&
    (!state.status.length || state.status.includes(statusOf(row))) &&
    (!state.state || (row.state ?? "unknown") === state.state) &&
    (!state.topic || row.topics.includes(state.topic)) &&
    (state.empty !== "hide" || row.members !== 0) &&
    (!over || over(row));
}

// Rows of a document, made once: what is looked for while somebody types is in them.
const made = new WeakMap();
function rowsOf(data, several) {
  let rows = made.get(data);
  if (!rows) {
    rows = data.groups.map((group) => {
      const address = new URLSearchParams(data.name ? { cluster: data.name } : {});
      address.append("group", group.group);
      return {
        ...group,
        clusterName: data.cluster,
        key: `${data.name} ${group.group}`,
        href: `/group?${address}`,
        until: data.seen_at,
        why: group.error ?? group.cause ?? "",
        text: `${group.group} ${several ? data.cluster : ""} ${group.topics.join(" ")} ${group.cause ?? ""}`.toLowerCase(),
      };
    });
    made.set(data, rows);
  }
  return rows;
}

function Overview({ live }) {
  const [, redraw] = useState(0);
  const search = useRef(null);
  const order = useRef([]);
  const change = (changed) => {
    state = { ...state, ...changed };
    order.current = [];
    writeState(state, DEFAULTS);
    live.update();
    redraw((n) => n + 1);
  };
  useEffect(() => {
    const onKey = (event) => {
      const isTyping = event.target.matches("input, select, textarea");
      if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey) {
        event.preventDefault();
        search.current.focus();
      } else if (event.key === "Escape" && event.target === search.current) {
        change({ q: "" });
      }
    };
    const onBack = () => {
      state = readState(DEFAULTS);
      redraw((n) => n + 1);
    };
    addEventListener("keydown", onKey);
    addEventListener("popstate", onBack);
    return () => {
      removeEventListener("keydown", onKey);
      removeEventListener("popstate", onBack);
    };
  }, []);

  const several = live.clusters.length > 1;
  const documents = documentsOf(live.clusters).map((each) => live.documents.get(each.key));
  const data = documents.map((each) => each?.data).filter(Boolean);
  const errors = documents.map((each) => each?.error).filter(Boolean);
  const all = data.flatMap((each) => rowsOf(each, several));
  const counts = Object.fromEntries(STATUSES.map((status) => [status, 0]));
  const states = new Set();
  for (const row of all) {
    counts[statusOf(row)] += 1;
    states.add(row.state ?? "unknown");
  }
  const sort = { by: state.sort, down: state.dir === "down" };
  const columns = several ? COLUMNS_OF_SEVERAL : COLUMNS;
  const found = all.filter(matches());
  let rows = sort.by === "need" ? (data.length > 1 ? found.sort(byNeed) : found) : sorted(found, columns, sort);
  // under somebody who walks through the rows by keyboard the order stays
  const holds = document.activeElement?.closest?.("table.rows tbody") && order.current.length;
  if (holds) {
    const place = new Map(order.current.map((key, i) => [key, i]));
    rows = [...rows].sort((a, b) => (place.get(a.key) ?? Infinity) - (place.get(b.key) ?? Infinity));
  }
  order.current = rows.map((row) => row.key);
  const onSort = (by) => change(by === state.sort ? { dir: state.dir === "down" ? "up" : "down" } : { sort: by, dir: by === "group" || by === "cause" ? "up" : "down" });
  const isOverWrong = state.over !== "" && !overTest(state.over);
  const hidden = data.reduce((sum, each) => sum + (each.hidden ?? 0), 0);
  const isFiltered = ["q", "state", "over", "topic", "empty"].some((key) => state[key]) || state.status.length > 0;
  const save = () => download("groups.csv", csv(Object.keys(CSV), rows.map((row) => Object.values(CSV).map((of) => of(row)))));
  const total = (of) => data.reduce((sum, each) => sum + (each[of] ?? 0), 0);

  return html`
    <h1 class="sr">Consumer groups</h1>
    <${Faults} live=${live} headers=${data} errors=${errors} />
    <form class="filters" role="search" aria-label="Groups" onSubmit=${(event) => event.preventDefault()}>
      <label>Search <input ref=${search} type="search" value=${state.q} placeholder="group, topic or cause ( / )" autocomplete="off" spellcheck="false"
        onInput=${(event) => change({ q: event.target.value })} /></label>
      <fieldset><legend class="sr">Status</legend>
        ${STATUSES.filter((status) => counts[status] || state.status.includes(status)).map((status) => html`<button key=${status} type="button" class="chip"
          aria-pressed=${state.status.includes(status)}
          onClick=${() => change({ status: state.status.includes(status) ? state.status.filter((each) => each !== status) : [...state.status, status] })}>
          ${status} <b>${number(counts[status])}</b></button>`)}
      </fieldset>
      <label>State <select value=${state.state} onChange=${(event) => change({ state: event.target.value })}>
        <option value="">any</option>
        ${[...new Set([...states, ...(state.state ? [state.state] : [])])].sort().map((each) => html`<option key=${each} value=${each}>${each}</option>`)}
      </select></label>
      ${several && html`<label>Cluster <select value=${state.cluster} onChange=${(event) => change({ cluster: event.target.value })}>
        <option value="">all</option>
        ${live.clusters.map((each) => html`<option key=${each.name} value=${each.name}>${name(each.name)}${each.reason ? " (not ready)" : ""}</option>`)}
      </select></label>`}
      <label>Further behind than <input class="short" value=${state.over} placeholder="1000 or 5m" aria-invalid=${isOverWrong}
        aria-describedby=${isOverWrong ? "over-help" : undefined} onInput=${(event) => change({ over: event.target.value })} /></label>
      ${isOverWrong && html`<span id="over-help" class="bad">messages (1000) or time (90s, 5m, 2h)</span>`}
      <label class="check"><input type="checkbox" checked=${state.empty === "hide"} onChange=${(event) => change({ empty: event.target.checked ? "hide" : "" })} /> hide those without members</label>
      <button type="button" onClick=${save}>CSV</button>
      ${state.sort !== "need" && html`<button type="button" onClick=${() => change({ sort: "need", dir: "down" })}>Sort by need</button>`}
      ${isFiltered && html`<button type="button" onClick=${() => change({ q: "", status: [], state: "", over: "", topic: "", empty: "" })}>Clear filters</button>`}
    </form>
    <p class="dim"><span role="status">${number(rows.length)} of ${number(all.length)} groups</span>${state.topic && ` on ${name(state.topic)}`}; ${plural(total("brokers"), "broker")}, ${plural(total("topics"), "topic")}, ${plural(total("partitions"), "partition")}${hidden ? `; ${number(hidden)} hidden by the settings` : ""}</p>
    <${Table} label="Consumer groups" columns=${columns} rows=${rows} keyOf=${(row) => row.key} sort=${sort} onSort=${onSort} narrowRem=${5}
      empty=${all.length ? "No group matches these filters." : "No group yet."} />`;
}

start(documentsOf, (live) => {
  const wanted = documentsOf(live.clusters);
  // nothing is taken away before there is something in its place
  if (!wanted.some((each) => live.documents.has(each.key))) return null;
  return html`<${Overview} live=${live} />`;
});
