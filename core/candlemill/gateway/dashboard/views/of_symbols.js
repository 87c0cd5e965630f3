// The result of a sweep or a walk-forward of several symbols: a line for each, which leads to its own page.
import { html } from "../lib.js";
import { count, largest, money, percent } from "../format.js";
import { shown } from "../metrics.js";
import { go, to } from "../route.js";
import { Card, toned, Wide } from "../ui.js";
import { JobSetup } from "./job_setup.js";

/** The best set of a sweep, or the run of a walk-forward's choices. */
const runOf = (part) => part.result.best?.[0] ?? part.result.result ?? {};

export function OfSymbols({ job }) {
  const { parts } = job.result;
  const sizing = job.spec.sizing;
  const top = (name) => largest(parts.map((p) => runOf(p)[name]).filter((x) => x !== undefined));
  const note =
    job.kind === "sweeps"
      ? "The best set of each symbol. Each symbol's guards count its own sets: the best of all symbols is one of all of them."
      : "What each symbol's choices made after their training.";
  return html`<${Card} title="Symbols" note=${note}>
    <${Wide} name="symbols"><table>
      <thead><tr><th scope="col">symbol</th><th scope="col" class="n">profit</th>
        <th scope="col">parameters</th><th scope="col" class="n">Sharpe ratio</th>
        <th scope="col" class="n">max drawdown</th><th scope="col" class="n">trades</th>
        <th scope="col" class="n">deflated Sharpe</th></tr></thead>
      <tbody>${parts.map((p) => {
        const run = runOf(p);
        const chosen = Object.keys(job.spec.grid ?? {})
          .filter((name) => run.params?.[name] !== undefined)
          .map((name) => `${name}=${run.params[name]}`);
        return html`<tr key=${p.symbol} class="goes" onClick=${() => go(to(["job", p.job_id]))}>
        <th scope="row"><a href=${to(["job", p.job_id])}>${p.symbol}</a></th>
        <td class="n">${toned(money(run.total_pnl, top("total_pnl")), run.total_pnl)}</td>
        <td>${chosen.join(", ") || count(p.result.folds?.length) + " folds"}</td>
        <td class="n">${shown("sharpe_ratio", run.sharpe_ratio, sizing, top("sharpe_ratio"))}</td>
        <td class="n">${shown("max_drawdown", run.max_drawdown, sizing, top("max_drawdown"))}</td>
        <td class="n">${count(run.trades)}</td>
        <td class="n">${percent(p.result.guards?.deflated_sharpe)}</td>
      </tr>`;
      })}</tbody></table></${Wide}>
  </${Card}>
  <${JobSetup} job=${job} />`;
}
