// Lag over time, with what happened marked: rebalances, members that came or went, a worse status, and
// while which alerts' conditions held.

import { clock, duration, number } from "/static/format.js";
import { html, useEffect, useRef } from "/static/parts.js";

const WORSE = { OK: 0, WARN: 1, STALL: 1, REWIND: 1, STOP: 2, ERR: 2 };

// From there to the next point nothing is known: the group was gone or silent, or nobody looked.
const isGap = (point) => [point.lag, point.lag_seconds, point.members, point.status].every((each) => each == null);

// What happened between one point and the next of which something is known.
export function events(past) {
  const found = [];
  let before = past[0];
  for (let i = 1; i < past.length; i++) {
    const now = past[i];
    if (isGap(now)) {
      const next = past[i + 1];
      found.push({ at: now.at, kind: "gap", text: next ? `not known until ${clock(next.at)}` : "not known since" });
      continue;
    }
    if (now.rebalances != null && before.rebalances != null) {
      if (now.rebalances > before.rebalances) found.push({ at: now.at, kind: "rebalance", text: "rebalance" });
      // counted since the monitor's start
      if (now.rebalances < before.rebalances) found.push({ at: now.at, kind: "restart", text: "the monitor was restarted" });
    }
    if (now.members != null && before.members != null && now.members !== before.members)
      found.push({ at: now.at, kind: "members", text: `members ${before.members} → ${now.members}` });
    if ((WORSE[now.status] ?? 0) > (WORSE[before.status] ?? 0)) found.push({ at: now.at, kind: "status", text: `status ${now.status}` });
    before = now;
  }
  return found;
}

// Times, lags and seconds behind, as polls every so many seconds saw them. Of polls that found nothing new
// there is no point: until the last of them before the next point, the first unread message was there
// and aged. Whether it was between that poll and the next one nobody saw, and a line joins the two. None is
// drawn where nothing is known for longer.
export function series(past, until, every) {
  const [times, lags, seconds] = [[], [], []];
  const add = (at, point) => {
    if (times.length && at <= times[times.length - 1]) return;
    times.push(at);
    lags.push(point.lag);
    seconds.push(point.behind_since == null ? point.lag_seconds : Math.max(0, at - point.behind_since));
  };
  past.forEach((point, i) => {
    if (i) add(point.at - (isGap(point) ? 0.001 : every || 0.001), past[i - 1]);
    add(point.at, point);
  });
  if (past.length) add(until, past[past.length - 1]);
  return [times, lags, seconds];
}

// A canvas wants the colour itself, and not what to choose it by.
function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

// Shape and word tell the severity without the colour.
const SEVERITY = { critical: ["✖", "--err"], warning: ["▲", "--warn"] };
const ALERT_HEIGHT = 14;

// A bar for each alert at the foot of the chart, one above the other, with its name in it.
function drawAlerts(plot, alerts) {
  const { ctx, bbox } = plot;
  const height = ALERT_HEIGHT * devicePixelRatio;
  const end = bbox.left + bbox.width;
  const lanes = [...new Set(alerts.map((alert) => alert.name))];
  ctx.save();
  ctx.textBaseline = "middle";
  ctx.textAlign = "left";
  ctx.setLineDash([]);
  for (const alert of alerts) {
    const [shape, tone] = SEVERITY[alert.severity];
    const from = Math.max(bbox.left, plot.valToPos(alert.since, "x", true));
    const to = alert.until == null ? end : Math.min(end, plot.valToPos(alert.until, "x", true));
    if (to <= bbox.left || from >= end) continue;
    const y = bbox.top + bbox.height - (lanes.indexOf(alert.name) + 1) * height;
    // neither the grid nor a curve runs through its name
    ctx.fillStyle = colour("--back");
    ctx.fillRect(from, y, to - from, height - 2);
    ctx.fillStyle = ctx.strokeStyle = colour(tone);
    ctx.globalAlpha = 0.15;
    ctx.fillRect(from, y, to - from, height - 2);
    ctx.globalAlpha = 1;
    ctx.strokeRect(from, y, to - from, height - 2);
    const text = `${shape} ${alert.name}`;
    const room = ctx.measureText(text).width + 8;
    // where there is no room to its right, before it
    ctx.fillText(text, from + room > end ? Math.max(bbox.left, end - room) + 4 : from + 4, y + height / 2 - 1);
  }
  ctx.restore();
}

function options(width, marks, alerts) {
  const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line") }, ticks: { stroke: colour("--line") } };
  return {
    width,
    height: 260,
    scales: { x: { time: true }, lag: { range: (_, low, high) => [0, Math.max(1, high ?? 1)] }, s: { range: (_, low, high) => [0, Math.max(1, high ?? 1)] } },
    series: [
      {},
      { label: "lag", scale: "lag", stroke: colour("--ok"), width: 2, points: { show: false }, value: (_, value) => number(value) },
      { label: "behind", scale: "s", stroke: colour("--warn"), width: 2, dash: [6, 4], points: { show: false }, value: (_, value) => duration(value) },
    ],
    axes: [
      axis,
      { ...axis, scale: "lag", size: 70, values: (_, ticks) => ticks.map((tick) => number(tick)) },
      { ...axis, scale: "s", side: 1, size: 60, grid: { show: false }, values: (_, ticks) => ticks.map((tick) => duration(tick)) },
    ],
    hooks: {
      draw: [
        (plot) => drawAlerts(plot, alerts.current),
        (plot) => {
          const { ctx, bbox } = plot;
          ctx.save();
          ctx.strokeStyle = ctx.fillStyle = colour("--dim");
          ctx.setLineDash([2, 3]);
          marks.current.forEach((mark, i) => {
            const x = plot.valToPos(mark.at, "x", true);
            if (x < bbox.left || x > bbox.left + bbox.width) return;
            ctx.beginPath();
            ctx.moveTo(x, bbox.top);
            ctx.lineTo(x, bbox.top + bbox.height);
            ctx.stroke();
            ctx.fillText({ rebalance: "R", restart: "M", members: "±", status: "!", gap: "?" }[mark.kind], x + 3, bbox.top + 10 + 12 * (i % 3));
          });
          ctx.restore();
        },
      ],
    },
  };
}

export function Chart({ past, alerts, until, every, label }) {
  const box = useRef(null);
  const plot = useRef(null);
  const marks = useRef([]);
  const found = events(past);
  marks.current = found;
  const held = useRef([]);
  held.current = alerts;
  const data = series(past, until, every);
  useEffect(() => {
    const make = () => {
      plot.current?.destroy();
      plot.current = new window.uPlot(options(box.current.clientWidth, marks, held), data, box.current);
    };
    make();
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const resize = () => plot.current.setSize({ width: box.current.clientWidth, height: 260 });
    dark.addEventListener("change", make);
    addEventListener("resize", resize);
    return () => {
      dark.removeEventListener("change", make);
      removeEventListener("resize", resize);
      plot.current.destroy();
    };
  }, []);
  useEffect(() => plot.current.setData(data));
  return html`<figure>
    <div ref=${box} class="chart" role="img" aria-label=${label}></div>
    <figcaption class="dim">
      Lag in messages (line) and seconds behind (dashed). ${found.length || alerts.length ? "Marked:" : "Nothing happened to the group in this time."}
      ${alerts.length > 0 && html`<ul class="events" aria-label="Alerts">${alerts.map((each) => html`<li key=${`${each.name} ${each.since}`}>
        <span class=${each.severity}>${SEVERITY[each.severity][0]} ${each.severity}: ${each.name}</span> ${clock(each.since)} to ${each.until == null ? "now" : clock(each.until)}, ${each.what}</li>`)}</ul>`}
      ${found.length > 0 && html`<ul class="events" aria-label="What happened">${found.slice(-12).map((each) => html`<li key=${`${each.at} ${each.text}`}>${clock(each.at)} ${each.text}</li>`)}</ul>`}
    </figcaption>
  </figure>`;
}
