// One topic: which groups read it, how far each is, and which no longer do.

import { ago, date, duration, name, number, rate } from "/static/format.js";
import { Badge, Faults, NameLink, Seconds, Table, Unknown, html, start } from "/static/parts.js";

const asked = new URLSearchParams(location.search);
const topic = asked.get("topic");

const documentsOf = (clusters) => {
  const wanted = asked.get("cluster") ?? "";
  const cluster = clusters.find((each) => each.name === wanted) ?? (clusters.length === 1 ? clusters[0] : null);
  if (!cluster) return [];
  const parameters = new URLSearchParams(cluster.name ? { cluster: cluster.name } : {});
  parameters.append("topic", topic);
  return [{ key: cluster.name, url: `/page/topic?${parameters}`, poll: cluster.poll }];
};

const COLUMNS = [
  { id: "partition", title: "Partition", isNumber: true, isHeading: true, cell: (row, tabIndex) => html`<span data-row tabIndex=${tabIndex}>${row.partition}</span>` },
  { id: "leader", title: "Leader", isNumber: true, cell: (row) => (row.leader == null || row.leader < 0 ? html`<span class="bad">none</span>` : row.leader) },
  { id: "isr", title: "In sync", cell: (row) => html`<span class=${row.in_sync.length < row.replicas.length ? "bad" : ""}>${row.in_sync.length} of ${row.replicas.length}</span>` },
  { id: "committed", title: "Log start", isNumber: true, cell: (row) => number(row.log_start_offset) },
  { id: "end", title: "Log end", isNumber: true, cell: (row) => number(row.log_end_offset) },
  { id: "kept", title: "Records kept", isNumber: true, cell: (row) => (row.log_end_offset == null || row.log_start_offset == null ? html`<${Unknown} />` : number(row.log_end_offset - row.log_start_offset)) },
  { id: "cause", title: "Note", cell: (row) => {
    const held = row.held_records ? `an open transaction holds ${number(row.held_records)} records back since ${date(row.held_since)}` : "";
    const silent = row.heard === "silent" ? "its leader did not answer" : "";
    const note = [row.error ?? silent, held].filter(Boolean).join("; ");
    return html`<span class="cause warning" title=${note}>${note}</span>`;
  } },
];

const retention = (data) => {
  if (data.retention_ms == null) return "not known";
  const parts = [
    data.cleanup_policies?.includes("compact") ? "compacted" : "",
    data.retention_ms < 0 ? "kept for ever" : `kept for ${duration(data.retention_ms / 1000)}`,
    data.retention_bytes > 0 ? `at most ${number(data.retention_bytes)} bytes a partition` : "",
  ];
  return parts.filter(Boolean).join(", ");
};

function Topic({ live, document: { data, error } }) {
  const reading = data.group_list.filter((group) => group.is_consumed);
  const left = data.group_list.filter((group) => !group.is_consumed);
  const groups = (list, label) => html`<div class="scroll" tabIndex="0" role="region" aria-label=${label}><table>
    <thead><tr>${["Status", "Group", "State", "Members", "Lag", "Behind", "In/s", "Out/s", "Caught up in", "Last commit"].map((title, i) => html`<th key=${title} scope="col" class=${i > 2 ? "n" : ""}>${title}</th>`)}</tr></thead>
    <tbody>${list.map((row) => html`<tr key=${row.group}>
      <td><${Badge} status=${row.status} /></td>
      <th scope="row"><${NameLink} kind="group" cluster=${data.name} id=${row.group} /></th>
      <td>${row.state ?? "unknown"}</td>
      <td class="n">${number(row.members)}</td>
      <td class="n">${row.lag == null ? html`<${Unknown} />` : number(row.lag)}</td>
      <td class="n"><${Seconds} value=${row.max_lag_seconds} /></td>
      <td class="n">${rate(row.produced_per_second)}</td>
      <td class="n">${rate(row.consumed_per_second)}</td>
      <td class="n">${row.catching_up === false ? html`<span class="word">never</span>` : html`<${Seconds} value=${row.catch_up_seconds} />`}</td>
      <td class="n">${row.committed_at == null ? html`<${Unknown} />` : html`<time dateTime=${new Date(row.committed_at * 1000).toISOString()} title=${date(row.committed_at)}>${ago(live.now() - row.committed_at)}</time>`}</td>
    </tr>`)}</tbody></table></div>`;
  return html`
    <h1>${name(data.topic)}</h1>
    <${Faults} live=${live} headers=${[data]} errors=${[error, data.detail_error].filter(Boolean)} />
    <dl class="facts">
      <div><dt>Partitions</dt><dd>${number(data.partition_list.length)}</dd></div>
      <div><dt>Read by</dt><dd>${number(reading.length)} groups</dd></div>
      <div><dt>Largest lag</dt><dd>${number(data.max_lag)}</dd></div>
      <div><dt>Furthest behind</dt><dd><${Seconds} value=${data.max_lag_seconds} /></dd></div>
      <div><dt>Records</dt><dd>${retention(data)}</dd></div>
    </dl>
    <h2>Groups that read it, furthest behind first</h2>
    ${reading.length ? groups(reading, "Groups that read it") : html`<p class="dim">No group reads it.</p>`}
    ${left.length > 0 && html`<h2>Groups that no longer read it</h2>${groups(left, "Groups that no longer read it")}`}
    <h2>Partitions</h2>
    <${Table} label="Partitions" columns=${COLUMNS} rows=${data.partition_list} keyOf=${(row) => row.partition} empty="It has no partitions." />`;
}

start(documentsOf, (live) => {
  const [wanted] = documentsOf(live.clusters);
  const found = wanted && live.documents.get(wanted.key);
  if (!found) return null;
  if (!found.data) return html`<h1>${name(topic)}</h1><${Faults} live=${live} headers=${[]} errors=${found.error ? [found.error] : []} />`;
  return html`<${Topic} live=${live} document=${found} />`;
});
