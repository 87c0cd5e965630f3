// The result of a sweep: the best sets, a heat map that opens them, the guards, and all sets as a table.
import { html, useState } from "../lib.js";
import { job as jobPath, useGet } from "../api.js";
import { count, largest, money, percent, ratio, value } from "../format.js";
import { figure, label, mainFigures, rankedFigures, shown, smallerIsBetter } from "../metrics.js";
import { go, replace, to } from "../route.js";
import { HeatMap } from "../charts/heatmap.js";
import { Busy, Card, Failure, Key, Pages, Select, SortHead, toned, Wide } from "../ui.js";
import { Guards } from "./guards.js";
import { JobSetup } from "./job_setup.js";

const LIMIT = 20;

const openSet = (id) => go(to(["job", id])); // a set's result is a job's, requested alone or not

export function Sweep({ job, route }) {
  const { result, spec } = job;
  return html`
    <${Headline} result=${result} spec=${spec} />
    <${Map} job=${job} route=${route} />
    <${Guards} guards=${result.guards} />
    <${Sets} job=${job} route=${route} />
    <${JobSetup} job=${job} />`;
}

const varied = (spec, result) =>
  Object.keys(spec.grid)
    .map((name) => `${name}=${value(result.params[name])}`)
    .join(", ");

function Headline({ result, spec }) {
  const best = result.best?.[0];
  const guards = result.guards ?? {};
  const points = Object.values(spec.grid).reduce((n, values) => n * values.length, 1);
  const pbo = guards.overfitting?.probability;
  return html`<section class="keys" aria-label="headline">
    <${Key} label="Sets" value=${count(result.sets)} below="of ${count(points)} combinations" />
    ${
      best &&
      html`<${Key} label="Best Sharpe ratio" value=${shown("sharpe_ratio", best.sharpe_ratio)}
        below=${varied(spec, best)} />
      <${Key} label="Its profit" value=${money(best.total_pnl)} tone=${best.total_pnl}
        below="${percent(best.metrics?.return)} of ${money(best.capital)}" />
      <${Key} label="Its max drawdown" value=${shown("max_drawdown", best.max_drawdown, spec.sizing)}
        below="${percent(best.metrics?.max_drawdown_share)} of the peak, daily" />
      <${Key} label="Its trades" value=${count(best.trades)}
        below=${best.trades ? `${percent(best.metrics?.win_rate)} won` : "none closed"} />`
    }
    <${Key} label="By luck alone" value=${ratio(guards.luck_sharpe)} below="Sharpe of the best of so many" />
    <${Key} label="Overfitting" value=${percent(pbo)} tone=${pbo > 50_000_000 ? -1 : 0} below="probability, by CSCV" />
    <${Key} label="Deflated Sharpe" value=${percent(guards.deflated_sharpe)} below="that it is not luck" />
  </section>`;
}

function Map({ job, route }) {
  const axes = Object.keys(job.spec.grid);
  const metric = route.query.metric ?? "sharpe_ratio",
    over = route.query.over ?? "best";
  const x = axes.includes(route.query.x) ? route.query.x : axes[0];
  const y =
    axes.length < 2
      ? undefined
      : axes.includes(route.query.y) && route.query.y !== x
        ? route.query.y
        : axes.find((a) => a !== x);
  const rest = axes.filter((a) => a !== x && a !== y);
  const { data, error } = useGet(jobPath(job.job_id, "heatmap"), {
    x,
    y,
    metric,
    over: rest.length ? over : undefined,
  });
  const put = (changed) => replace(to(route.path, { ...route.query, ...changed }));
  const names = axes.map((a) => [a, a]);
  const above = html`<div class="choices">
    <${Select} label="figure" value=${metric} choices=${rankedFigures().map((m) => [m, label(m)])}
      onChange=${(m) => put({ metric: m })} />
    ${
      axes.length > 1 &&
      html`<${Select} label="across" value=${x} choices=${names} onChange=${(a) => put({ x: a, y: a === y ? x : y })} />
      <${Select} label="up" value=${y} choices=${names} onChange=${(a) => put({ y: a, x: a === x ? y : x })} />`
    }
    ${
      rest.length > 0 &&
      html`<${Select} label=${`over ${rest.join(", ")}`} value=${over} choices=${[
        ["best", "the best"],
        ["mean", "the mean"],
      ]} onChange=${(o) => put({ over: o })} />`
    }
  </div>`;
  return html`<${Card} title=${y ? "Heat map" : `Every ${x}`} above=${above}>
    <${Failure} error=${error} />
    ${!data && !error && html`<div style="height:300px"><${Busy} /></div>`}
    ${data && html`<${HeatMap} data=${data} metric=${data.metric} sizing=${job.spec.sizing} onOpen=${openSet} />`}
  </${Card}>`;
}

function Sets({ job, route }) {
  const sort = route.query.sort ?? "sharpe_ratio";
  const order = route.query.order ?? "best";
  const arrow = (order === "best") === smallerIsBetter(sort) ? "asc" : "desc";
  const [cursors, setCursors] = useState([""]);
  const { data, error } = useGet(jobPath(job.job_id, "results"), { sort, order, limit: LIMIT, cursor: cursors.at(-1) });
  const axes = Object.keys(job.spec.grid),
    sizing = job.spec.sizing;
  const [profit, ...others] = mainFigures();
  const main = job.spec.path === "both" ? [profit, "best_path_pnl", ...others] : [profit, ...others];
  const columns = main.includes(sort) ? main : [sort, ...main];
  const by = (name) => {
    setCursors([""]);
    replace(
      to(route.path, { ...route.query, sort: name, order: name === sort && order === "best" ? "worst" : undefined }),
    );
  };
  const rows = data?.items ?? [];
  const tops = Object.fromEntries(
    columns.map((c) => [c, largest(rows.map((r) => figure(r, c)))]),
  );
  const first = (cursors.length - 1) * LIMIT;
  const shownRows = `${count(first + 1)} to ${count(first + rows.length)}`;
  const head = (name) => html`
    <${SortHead} key=${name} name=${name} text=${label(name)} sort=${sort} order=${arrow} onSort=${by} />`;
  return html`<${Card} title="Sets">
    <${Failure} error=${error} />
    ${
      rows.length > 0 &&
      html`<${Wide} name="sets"><table>
        <thead><tr>
          ${axes.map((name) => html`<th scope="col" key=${name}>${name}</th>`)}
          ${columns.map(head)}
        </tr></thead>
        <tbody>${rows.map(
          (row) => html`<${Set} key=${row.job_id} row=${row} axes=${axes} columns=${columns}
            sizing=${sizing} tops=${tops} />`,
        )}</tbody></table></${Wide}>
      <${Pages} shown=${shownRows} total=${count(data.total)} cursors=${cursors} next=${data.next}
        onPage=${setCursors} />`
    }
  </${Card}>`;
}

function Set({ row, axes, columns, sizing, tops }) {
  const [first, ...rest] = axes;
  const name = axes.map((axis) => `${axis} ${value(row.params[axis])}`).join(", ");
  const text = (column) => shown(column, figure(row, column), sizing, tops[column]);
  const cell = (column) => (column === "total_pnl" ? toned(text(column), row.total_pnl) : text(column));
  return html`<tr class="goes" onClick=${() => openSet(row.job_id)}>
    <th scope="row"><button type="button" class="link"
      aria-label="open the run of ${name}">${value(row.params[first])}</button></th>
    ${rest.map((axis) => html`<td key=${axis}>${value(row.params[axis])}</td>`)}
    ${columns.map((column) => html`<td class="n" key=${column}>${cell(column)}</td>`)}
  </tr>`;
}
