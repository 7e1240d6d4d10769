// One group: its cause, its partitions, who holds them, and what to do.

import { Chart } from "/static/chart.js";
import { csv, date, download, duration, name, number, percent, rate } from "/static/format.js";
import {
  Advice, Badge, CopyableCommand, Faults, Lag, NameLink, Seconds, Sparkline, Table, Unknown, html, readState, sorted, start, useMemo, useState, writeState,
} from "/static/parts.js";

const DEFAULTS = { sort: "lag", dir: "down", find: "" };
// Of one member, and of all: more can't be told apart, and take long to draw.
const MAX_BLOCKS = 200;
const MAX_ALL_BLOCKS = 1000;
const MAX_MEMBERS = 100;
const asked = new URLSearchParams(location.search);
const group = asked.get("group");
let state = readState(DEFAULTS);

const documentsOf = (clusters) => {
  const wanted = asked.get("cluster") ?? "";
  const cluster = clusters.find((each) => each.name === wanted) ?? (clusters.length === 1 ? clusters[0] : null);
  if (!cluster) return [];
  const parameters = new URLSearchParams(cluster.name ? { cluster: cluster.name } : {});
  parameters.append("group", group);
  return [{ key: cluster.name, url: `/page/group?${parameters}`, poll: cluster.poll }];
};

// Partitions as objects; rates are of what moved since the document before.
const made = new WeakMap();
function partitionsOf(data, before) {
  let rows = made.get(data);
  if (rows) return rows;
  const earlier = new Map();
  const passed = before?.rows && before.group === data.group ? data.seen_at - before.seen_at : 0;
  if (passed > 0) for (const row of before.rows) earlier.set(`${row[0]} ${row[1]}`, row);
  const at = Object.fromEntries(data.columns.map((column, i) => [column, i]));
  const speed = (now, then) => (now == null || then == null || now < then ? null : (now - then) / passed);
  rows = data.rows.map((cells) => {
    const owner = cells[at.owner] == null ? null : data.member_list[cells[at.owner]];
    const key = `${cells[at.topic]} ${cells[at.partition]}`;
    const old = earlier.get(key);
    // written out: objects of one shape are made and sorted faster than those filled name by name
    return {
      key,
      topic: cells[at.topic],
      partition: cells[at.partition],
      current_offset: cells[at.current_offset],
      readable_end: cells[at.readable_end],
      log_end_offset: cells[at.log_end_offset],
      lag: cells[at.lag],
      lag_seconds: cells[at.lag_seconds],
      status: cells[at.status],
      heard: cells[at.heard],
      error: cells[at.error],
      past_end: cells[at.past_end],
      topic_is_gone: cells[at.topic_is_gone],
      retention_remaining_seconds: cells[at.retention_remaining_seconds],
      consumer_id: owner?.consumer_id ?? null,
      client_id: owner?.client_id ?? null,
      host: owner?.host ?? null,
      in: old ? speed(cells[at.log_end_offset], old[at.log_end_offset]) : null,
      out: old ? speed(cells[at.current_offset], old[at.current_offset]) : null,
      note: noteOf(cells[at.topic_is_gone], cells[at.past_end], cells[at.error], cells[at.heard]),
      stale: cells[at.heard] === "silent",
      text: null,
    };
  });
  made.set(data, rows);
  return rows;
}

function noteOf(isGone, isPastEnd, error, heard) {
  if (!isGone && !isPastEnd && !error && heard === "answered") return "";
  return [
    isGone ? "the topic is deleted, or may not be described" : "",
    isPastEnd ? "commit past the log end" : "",
    error ?? (heard === "silent" ? "its leader did not answer" : ""),
  ].filter(Boolean).join("; ");
}

// What a search looks through, made at the first.
const textOf = (row) => (row.text ??= `${row.topic} ${row.partition} ${row.client_id ?? ""} ${row.host ?? ""}`.toLowerCase());

const lagIs = (row) =>
  row.current_offset == null ? "not committed" : row.heard !== "answered" ? row.heard : "unknown";

const CSV = [
  "topic", "partition", "current_offset", "readable_end", "log_end_offset", "lag", "lag_seconds", "status", "heard", "error", "past_end",
  "topic_is_gone", "retention_remaining_seconds", "consumer_id", "client_id", "host",
];

const columnsOf = (cluster) => [
  { id: "topic", title: "Topic", isHeading: true, value: (row) => row.topic,
    cell: (row, tabIndex) => html`<a data-row tabIndex=${tabIndex} title=${name(row.topic)} href=${`/topic?${topicParameters(cluster, row.topic)}`}>${name(row.topic)}</a>` },
  { id: "partition", title: "Partition", isNumber: true, value: (row) => row.partition, cell: (row) => row.partition },
  { id: "pstatus", title: "Status", value: (row) => row.status, cell: (row) => (row.status ? html`<${Badge} status=${row.status} />` : html`<${Unknown} why="not judged" />`) },
  { id: "committed", title: "Committed", isNumber: true, value: (row) => row.current_offset, cell: (row) => number(row.current_offset) },
  { id: "readable", title: "Readable end", isNumber: true, help: "where a read_committed consumer stops", value: (row) => row.readable_end, cell: (row) => number(row.readable_end) },
  { id: "end", title: "Log end", isNumber: true, value: (row) => row.log_end_offset, cell: (row) => number(row.log_end_offset) },
  { id: "lag", title: "Lag", isNumber: true, value: (row) => row.lag, cell: (row) => html`<${Lag} lag=${row.lag} is=${lagIs(row)} />` },
  { id: "seconds", title: "Behind", isNumber: true, value: (row) => row.lag_seconds, cell: (row) => html`<${Seconds} value=${row.lag_seconds} />` },
  { id: "in", title: "In/s", isNumber: true, help: "since the poll before", value: (row) => row.in, cell: (row) => rate(row.in) },
  { id: "out", title: "Out/s", isNumber: true, help: "since the poll before", value: (row) => row.out, cell: (row) => rate(row.out) },
  { id: "owner", title: "Owner", value: (row) => row.client_id, cell: (row) => (row.consumer_id == null ? html`<span class="word">nobody</span>` : html`<span title=${name(row.consumer_id)}>${name(row.client_id ?? row.consumer_id)}</span>`) },
  { id: "host", title: "Host", value: (row) => row.host, cell: (row) => (row.host == null ? "" : name(row.host)) },
  { id: "cause", title: "Note", value: (row) => row.note, cell: (row) => html`<span class="cause warning" title=${row.note}>${row.note}</span>` },
];

function topicParameters(cluster, topic) {
  const parameters = new URLSearchParams(cluster ? { cluster } : {});
  parameters.append("topic", topic);
  return parameters;
}

// Who holds what, and how much of it is unread: a row of blocks for each member.
function Members({ data, rows }) {
  const held = new Map(data.member_list.map((member) => [member.consumer_id, []]));
  const nobody = [];
  for (const row of rows) (held.get(row.consumer_id) ?? nobody).push(row);
  const lagOf = (list) => list.reduce((sum, row) => sum + (row.lag ?? 0), 0);
  const members = data.member_list.map((member) => ({ ...member, rows: held.get(member.consumer_id), lag: lagOf(held.get(member.consumer_id)) }));
  members.sort((a, b) => b.lag - a.lag || (a.client_id < b.client_id ? -1 : 1));
  const list = [...members.slice(0, MAX_MEMBERS), ...(nobody.length ? [{ consumer_id: "", rows: nobody, lag: lagOf(nobody), isNobody: true }] : [])];
  if (!list.length) return html`<p class="dim">${data.members == null ? "Its members are not known now." : "It has no members and no partitions."}</p>`;
  const top = Math.max(1, ...list.map((member) => member.lag));
  const most = rows.reduce((sofar, row) => Math.max(sofar, row.lag ?? 0), 1);
  const topics = new Set(rows.map((row) => row.topic)).size;
  const blocks = Math.min(MAX_BLOCKS, Math.ceil(MAX_ALL_BLOCKS / list.length));
  return html`<div class="scroll" tabIndex="0" role="region" aria-label="Members"><table>
    <thead><tr><th scope="col">Member</th><th scope="col">Host</th><th scope="col" class="n">Partitions</th><th scope="col" class="n">Lag</th><th scope="col">Holds</th></tr></thead>
    <tbody>${list.map((member) => html`<tr key=${member.consumer_id}>
      <th scope="row">${member.isNobody ? html`<span class="word">nobody</span>` : html`<span title=${name(member.consumer_id)}>${name(member.client_id || member.consumer_id)}</span>`}</th>
      <td>${member.host ? name(member.host) : ""}</td>
      <td class="n">${number(member.rows.length)}</td>
      <td class="n">${number(member.lag)}<meter min="0" max=${top} value=${member.lag} aria-label="share of the largest lag of a member"></meter></td>
      <td class="blocks">${[...Map.groupBy(member.rows, (row) => row.topic)].map(([topic, mine]) => {
        return html`<div key=${topic}><span class="dim">${topics > 1 ? `${name(topic)} ` : ""}</span>
          ${mine.slice(0, blocks).map((row) => html`<span key=${row.partition} class=${`block b${row.lag == null ? "x" : Math.ceil(((row.lag ?? 0) / most) * 4)}`}
            title=${`${name(topic)} ${row.partition}: lag ${row.lag == null ? "not known" : number(row.lag)}`}>${row.partition}</span>`)}
          ${mine.length > blocks && html`<span class="dim">and ${number(mine.length - blocks)} more</span>`}</div>`;
      })}${!member.rows.length && html`<span class="word">idle</span>`}</td>
    </tr>`)}</tbody></table></div>
    ${members.length > MAX_MEMBERS && html`<p class="dim">${number(members.length - MAX_MEMBERS)} members with less lag are not shown.</p>`}`;
}

function Cause({ told }) {
  const figure = (each) => html`<li key=${each.what}>${each.what}: <b>${each.unit === "s" ? duration(each.value) : number(each.value)}</b>${each.unit === "s" ? "" : ` ${each.unit}`}</li>`;
  return html`<section class="why" aria-label="Why">
    <h2>${told.word}</h2>
    <p>${told.sentence}${told.since != null && ` Since ${date(told.since)}.`}${told.over_at != null && ` At the rates of now it is over at ${date(told.over_at)}.`}</p>
    ${told.figures.length > 0 && html`<ul>${told.figures.map(figure)}</ul>`}
    ${told.alternatives.length > 0 && html`<h3>It may as well be</h3><ul>${told.alternatives.map((each) => html`<li key=${each.cause}><b>${each.word}</b>: ${each.sentence} To decide: ${each.would_decide}</li>`)}</ul>`}
    ${told.next_steps.length > 0 && html`<h3>What to do</h3><ol>${told.next_steps.map((step) => html`<li key=${step.action}>${step.action}${step.command && html`<${CopyableCommand} command=${step.command} />`}</li>`)}</ol>`}
    ${told.also.length > 0 && html`<h3>Also</h3><ul>${told.also.map((each) => html`<li key=${each.cause}><b>${each.word}</b>: ${each.sentence}</li>`)}</ul>`}
    ${(told.checked.length > 0 || told.not_checked.length > 0) && html`<details><summary>Checked: ${told.checked.length} normal, ${told.not_checked.length} could not be checked</summary>
      <ul>${told.checked.map((each) => html`<li key=${each.what}>${each.what}: ${each.finding}</li>`)}
      ${told.not_checked.map((each) => html`<li key=${each.what}><b>${each.what}: not checked.</b> ${each.would_tell}</li>`)}</ul></details>`}
  </section>`;
}

const Topics = ({ data, cluster }) => html`<div class="scroll" tabIndex="0" role="region" aria-label="Topics"><table>
  <thead><tr>${["Topic", "Lag", "Behind", "In/s", "Out/s", "Lag grows by", "Caught up in", "Uneven", "Lost"].map((title, i) => html`<th scope="col" key=${title} class=${i ? "n" : ""}>${title}</th>`)}</tr></thead>
  <tbody>${data.topics.map((topic) => html`<tr key=${topic.topic}>
    <th scope="row"><${NameLink} kind="topic" cluster=${cluster} id=${topic.topic} />${!topic.is_consumed && html` <span class="word">not read any more</span>`}</th>
    <td class="n">${number(topic.lag)}</td>
    <td class="n"><${Seconds} value=${topic.max_lag_seconds} /></td>
    <td class="n">${rate(topic.produced_per_second)}</td>
    <td class="n">${rate(topic.consumed_per_second)}</td>
    <td class="n">${topic.lag_growth_per_second == null ? html`<${Unknown} />` : `${rate(topic.lag_growth_per_second)}/s`}</td>
    <td class="n">${topic.catching_up === false ? html`<span class="word">never</span>` : html`<${Seconds} value=${topic.catch_up_seconds} />`}</td>
    <td class="n">${Object.entries(topic.imbalance).map(([kind, excess]) => `${kind} ${percent(excess)}`).join(", ") || html`<${Unknown} />`}</td>
    <td class="n">${topic.lost ? html`<span class="bad">${number(topic.lost)}</span>` : number(topic.lost)}</td>
  </tr>`)}</tbody></table></div>`;

// All that a search or another order of the partitions leaves as it is.
function Above({ data, rows }) {
  const past = data.past?.length ? data.past : data.trend.map(([at, lag]) => ({ at, lag, lag_seconds: null, behind_since: null, members: null, status: null, rebalances: null }));
  const text = `lag ${data.total_lag == null ? "not known" : number(data.total_lag)}, ${data.max_lag_seconds == null ? "seconds behind not known" : `${duration(data.max_lag_seconds)} behind`}`;
  const isWell = !data.explanation || data.explanation.cause === "healthy";
  return html`
    ${data.stale && html`<p class="bad">Its coordinator has not answered since ${date(data.group_seen_at)}: the figures are from then.</p>`}
    ${data.error && html`<p class="bad">${data.error}</p>`}
    <dl class="facts">
      <div><dt>Lag</dt><dd><${Lag} lag=${data.total_lag} is=${data.lag_is} /></dd></div>
      ${data.unread !== data.total_lag && html`<div><dt>Readable of it</dt><dd>${number(data.unread)}</dd></div>`}
      <div><dt>Behind</dt><dd><${Seconds} value=${data.max_lag_seconds} /></dd></div>
      <div><dt>Trend</dt><dd><${Sparkline} points=${data.trend} until=${data.seen_at} /></dd></div>
      <div><dt>State</dt><dd>${data.state ?? "unknown"}, ${data.type}</dd></div>
      <div><dt>Members</dt><dd>${number(data.members)}${data.idle_members ? ` (${data.idle_members} idle)` : ""}</dd></div>
      <div><dt>Rebalances</dt><dd title="since the monitor's start">${number(data.rebalances)}</dd></div>
      <div><dt>Assignor</dt><dd>${data.assignor ? name(data.assignor) : html`<${Unknown} />`}</dd></div>
      <div><dt>Coordinator</dt><dd>${data.coordinator == null ? html`<${Unknown} />` : `broker ${data.coordinator}`}</dd></div>
    </dl>
    ${!isWell && html`<${Cause} told=${data.explanation} />`}
    ${data.advice.map((advice) => html`<${Advice} key=${advice.cause + advice.topic} advice=${advice} />`)}
    <h2>Lag over the last hour</h2>
    ${past.length ? html`<${Chart} past=${past} alerts=${data.alerts} until=${data.seen_at} every=${data.poll_seconds} label=${`Lag over time; now ${text}`} />` : html`<p class="dim">Nothing is known of the past yet.</p>`}
    <h2>Topics</h2>
    <${Topics} data=${data} cluster=${data.name} />
    <h2>Who holds what</h2>
    <${Members} data=${data} rows=${rows} />`;
}

function Group({ live, document: { data, before, error } }) {
  const [, redraw] = useState(0);
  const change = (changed) => {
    state = { ...state, ...changed };
    writeState(state, DEFAULTS);
    redraw((n) => n + 1);
  };
  const all = partitionsOf(data, before);
  const columns = useMemo(() => columnsOf(data.name), [data.name]);
  const words = state.find.toLowerCase().split(/\s+/).filter(Boolean);
  const sort = { by: state.sort, down: state.dir === "down" };
  // to sort 20,000 takes longer than to look through them, which is done at each letter of a search
  const ordered = useMemo(() => sorted(all, columns, sort), [all, columns, sort.by, sort.down]);
  const rows = words.length ? ordered.filter((row) => words.every((word) => textOf(row).includes(word))) : ordered;
  const onSort = (by) => change(by === state.sort ? { dir: state.dir === "down" ? "up" : "down" } : { sort: by, dir: "down" });
  const save = () => download("partitions.csv", csv([...CSV, "in_per_second", "out_per_second"], rows.map((row) => [...CSV.map((column) => row[column]), row.in, row.out])));
  const above = useMemo(() => html`<${Above} data=${data} rows=${all} />`, [data]);
  return html`
    <h1><${Badge} status=${data.status} /> ${name(data.group)}</h1>
    <${Faults} live=${live} headers=${[data]} errors=${error ? [error] : []} />
    ${above}
    <h2 id="partitions">Partitions</h2>
    <form class="filters" role="search" aria-label="Partitions" onSubmit=${(event) => event.preventDefault()}>
      <label>Search <input type="search" value=${state.find} placeholder="topic, number, owner or host" autocomplete="off" onInput=${(event) => change({ find: event.target.value })} /></label>
      <button type="button" onClick=${save}>CSV</button>
      <span role="status" class="dim">${number(rows.length)} of ${number(all.length)} partitions</span>
    </form>
    <${Table} label="Partitions" columns=${columns} rows=${rows} keyOf=${(row) => row.key} sort=${sort} onSort=${onSort} narrowRem=${6.5} empty="No partition." />
    ${data.commands.length > 0 && html`<h2>Commands</h2>${data.commands.map((each) => html`<${CopyableCommand} key=${each.command} ...${each} />`)}`}`;
}

start(documentsOf, (live) => {
  const [wanted] = documentsOf(live.clusters);
  const found = wanted && live.documents.get(wanted.key);
  if (!found) return null;
  if (!found.data) return html`<h1>${name(group)}</h1><${Faults} live=${live} headers=${[]} errors=${found.error ? [found.error] : []} />`;
  return html`<${Group} live=${live} document=${found} />`;
});
