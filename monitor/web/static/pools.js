// Connection pools: who has how much of the databases' limits, and what one replica more would do.

import { duration, name, number } from "/static/format.js";
import { Faults, html, start } from "/static/parts.js";

// looked at on a schedule of its own: whenever a cluster is polled is often enough
const documentsOf = (clusters) =>
  clusters.length ? [{ key: "pools", url: "/page/pools", poll: clusters.map((each) => each.poll).join() }] : [];

const scroll = (label, titles, rows) => html`<h2>${label}</h2><div class="scroll" tabIndex="0" role="region" aria-label=${label}><table>
  <thead><tr>${titles.map(([title, isNumber]) => html`<th key=${title} scope="col" class=${isNumber ? "n" : ""}>${title}</th>`)}</tr></thead>
  <tbody>${rows.map((cells, i) => html`<tr key=${i}>${cells.map((cell, j) => (j ? html`<td key=${j} class=${titles[j][1] ? "n" : ""}>${cell}</td>` : html`<th key=${j} scope="row">${cell}</th>`))}</tr>`)}</tbody>
</table></div>`;

const waiting = (count) => (count ? html`<span class="bad">${number(count)}</span>` : number(count));

function Pools({ live, document: { data, error } }) {
  const report = data.report;
  const errors = [...(error ? [error] : []), ...(report ? report.errors : ["Nothing is known now: the databases and services were not looked at, or the last look is too old."])];
  return html`<h1>Connection pools</h1>
    <${Faults} live=${live} headers=${[]} errors=${errors} />
    ${report && html`
      ${scroll("Services", [["Service"], ["Replicas", 1], ["Pool max", 1], ["Total", 1], ["Open", 1], ["In use", 1], ["Waiting", 1], ["Timeouts", 1], ["Through"], ["One replica more"]],
        report.services.map((row) => [name(row.service), number(row.replicas), number(row.pool_max), number(row.total), number(row.open), number(row.in_use), waiting(row.waiting), number(row.timeouts), row.via ?? "–", row.one_more]))}
      ${scroll("Budgets", [["Limit"], ["Connections", 1], ["Open", 1], ["Promised", 1], ["Left", 1]],
        report.budgets.map((row) => [row.where, number(row.limit), number(row.open), `${row.is_complete ? "" : "≥ "}${number(row.committed)}`, row.left < 0 ? html`<span class="bad">${number(row.left)}</span>` : number(row.left)]))}
      ${report.queues.length > 0 && scroll("PgBouncer", [["Database"], ["User"], ["Size", 1], ["Servers", 1], ["Active", 1], ["Clients", 1], ["Waiting", 1], ["Longest wait", 1]],
        report.queues.map((row) => [row.database, row.user, number(row.size), number(row.servers), number(row.server_active), number(row.clients), waiting(row.waiting), duration(row.maxwait_seconds)]))}
      ${report.advice.map((text) => html`<p key=${text} class="advice warning">${text}</p>`)}`}`;
}

start(documentsOf, (live) => {
  const found = live.documents.get("pools");
  if (!found?.data) return found?.error ? html`<h1>Connection pools</h1><${Faults} live=${live} headers=${[]} errors=${[found.error]} />` : null;
  return html`<${Pools} live=${live} document=${found} />`;
});
