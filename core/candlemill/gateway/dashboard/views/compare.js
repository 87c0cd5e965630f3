// Several jobs beside each other: equity as a share of each one's capital, figures, and what differs between them.
import { html, useEffect, useMemo, useState } from "../lib.js";
import { get, job as jobPath, useGet } from "../api.js";
import { NONE, range, value } from "../format.js";
import { figure, isNeutral, label, shown, smallerIsBetter, unitOf } from "../metrics.js";
import { optionText } from "../options.js";
import { replace, to } from "../route.js";
import { Curves, curveColors } from "../charts/curves.js";
import { useColors } from "../theme.js";
import { Busy, Card, Facts, Head, KIND_NAMES, Wide } from "../ui.js";
import { symbolsOf, titleOf } from "./job_setup.js";

const LIMIT = 8,
  POINTS = 500;
const FIGURES = [
  "total_pnl",
  "return",
  "cagr",
  "sharpe_ratio",
  "sortino_ratio",
  "calmar_ratio",
  "max_drawdown",
  "max_drawdown_share",
  "volatility",
  "trades",
  "win_rate",
  "profit_factor",
  "average_trade",
  "fees",
  "exposure",
  "buy_and_hold",
];

/** Each job with its equity; those that fail say why. */
function useJobs(ids) {
  const [found, setFound] = useState({});
  const wanted = ids.join(",");
  useEffect(() => {
    const abort = new AbortController();
    for (const id of ids) {
      Promise.all([
        get(jobPath(id), {}, abort.signal),
        get(jobPath(id, "equity"), { points: POINTS }, abort.signal),
      ]).then(
        ([job, equity]) => setFound((old) => ({ ...old, [id]: { job, equity } })),
        (error) => error.name !== "AbortError" && setFound((old) => ({ ...old, [id]: { error } })),
      );
    }
    return () => abort.abort();
  }, [wanted]);
  return ids.map((id) => ({ id, ...found[id] }));
}

export function Compare({ route }) {
  const ids = [...new Set((route.path[1] ?? "").split(",").filter(Boolean))].slice(0, LIMIT);
  const jobs = useJobs(ids);
  const there = jobs.filter((j) => j.job?.result && j.equity);
  const put = (next) => replace(to(next.length ? ["compare", next.join(",")] : ["compare"]));
  const waiting = jobs.some((j) => !j.job && !j.error);
  return html`
    <${Head} title="Compare" below="Equity as a share of each job's capital; parameters that differ are marked." />
    <div class="cards">
      ${jobs
        .filter((j) => j.error)
        .map(
          (j) => html`<p class="problem" key=${j.id} role="alert">${j.id.slice(0, 12)}: ${j.error.message}
        ${" "}<button type="button" class="small"
          onClick=${() => put(ids.filter((id) => id !== j.id))}>leave it out</button></p>`,
        )}
      <${Chooser} ids=${ids} put=${put} />
      ${waiting && html`<${Busy} />`}
      ${
        there.length > 0 &&
        html`<${Card} title="Equity"><${Curves} jobs=${there} /></${Card}>
        <${Figures} jobs=${there} put=${put} ids=${ids} />`
      }
    </div>`;
}

/** Adds one of the newest finished jobs. */
function Chooser({ ids, put }) {
  const { data } = useGet("backtests", { state: "done", limit: 100 });
  const rows = (data?.items ?? []).filter((row) => row.kind !== "sweep" && !ids.includes(row.job_id));
  if (!data) return null;
  const text = (row) =>
    `${titleOf({ spec: row, settings: row.settings })} · ${range(row.start, row.end)} · ${row.job_id.slice(0, 8)}`;
  const empty = html`<p class="muted" style="margin:0 0 8px">
    Choose two or more finished jobs, here or in <a href="#/jobs">the list</a>.</p>`;
  return html`<${Card} kind="choose">
    ${!ids.length && empty}
    <div class="choices"><label style="flex:1;min-width:0">add <select style="flex:1;min-width:0" value=""
      disabled=${ids.length >= LIMIT || !rows.length}
      onChange=${(event) => {
        if (event.target.value) put([...ids, event.target.value]);
        event.target.value = "";
      }}>
      <option value="">${rows.length ? "a finished job …" : "there is no other finished job"}</option>
      ${rows.map((row) => html`<option key=${row.job_id} value=${row.job_id}>${text(row)}</option>`)}
    </select></label></div>
  </${Card}>`;
}

/** Everything that was requested, by name. */
function requestedOf({ kind: of, spec, request }) {
  const rows = { kind: KIND_NAMES[of], symbol: symbolsOf({ spec, request }), strategy: spec.strategy };
  for (const [name, v] of Object.entries(spec.params ?? {})) rows[name] = value(v);
  rows.range = range(spec.start, spec.end);
  const apart = ["symbol", "strategy", "params", "grid", "schedule", "start", "end", "volume_scale"];
  for (const [name, v] of Object.entries(spec))
    if (!apart.includes(name)) rows[name.replaceAll("_", " ")] = v === null ? NONE : optionText(name, v);
  return rows;
}

function Figures({ jobs, put, ids }) {
  const palette = curveColors(useColors());
  const requested = jobs.map((j) => requestedOf(j.job));
  const names = [...new Set(requested.flatMap(Object.keys))];
  const differs = (name) => new Set(requested.map((rows) => rows[name])).size > 1;
  const results = jobs.map((j) => j.job.result.result ?? j.job.result);
  const figures = FIGURES.filter((name) => results.some((r) => figure(r, name) !== null));
  const best = useMemo(
    () => Object.fromEntries(figures.map((name) => [name, bestOf(name, results)])),
    [ids.join(), results.length],
  );
  const some = names.filter(differs),
    same = names.filter((name) => !differs(name));
  return html`<${Card} title="Side by side"
    note="Bold is the best of a row. Marked rows are what differs between the jobs.">
    <${Wide} name="figures"><table class="side">
      <thead><tr><th scope="col"><span class="hidden">figure</span></th>${jobs.map(
        (j, k) => html`<th scope="col" class="n" key=${j.id}>
        <a href=${to(["job", j.id])}><span class="dot" style="background:${palette[k]}"></span>${j.id.slice(0, 8)}</a>
        ${" "}<button type="button" class="link" aria-label="leave out ${j.id.slice(0, 8)}"
          onClick=${() => put(ids.filter((id) => id !== j.id))}>×</button></th>`,
      )}</tr></thead>
      <tbody>
        ${some.map(
          (name) => html`<tr key=${name} class="differs"><th scope="row">${name}</th>
          ${requested.map((rows, k) => html`<td class="n" key=${k}>${rows[name] ?? NONE}</td>`)}</tr>`,
        )}
        ${figures.map(
          (name) => html`<tr key=${name}><th scope="row">${label(name)}</th>
          ${results.map((r, k) => {
            const text = shown(name, figure(r, name), r.spec?.sizing);
            return html`<td class="n" key=${k}>${best[name] === k ? html`<b>${text}</b>` : text}</td>`;
          })}</tr>`,
        )}
      </tbody></table></${Wide}>
    <details style="margin-top:10px"><summary class="muted">what is the same in all of them</summary>
      <${Facts} rows=${same.map((name) => [name, requested[0][name]])} /></details>
  </${Card}>`;
}

function bestOf(name, results) {
  const kinds = new Set(results.map((r) => unitOf(name, r.spec?.sizing))); // money and shares do not compare
  if (isNeutral(name) || results.length < 2 || kinds.size > 1) return -1;
  const values = results.map((r) => figure(r, name));
  const order = values
    .map((v, k) => [v, k])
    .filter(([v]) => v !== null)
    .sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0));
  if (!order.length || order[0][0] === order.at(-1)[0]) return -1;
  return (smallerIsBetter(name) ? order[0] : order.at(-1))[1];
}
