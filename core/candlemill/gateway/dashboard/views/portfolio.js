// The result of a portfolio: the whole, and its symbols, each a job of its own.
import { html } from "../lib.js";
import { count, largest, money, percent, value } from "../format.js";
import { shown } from "../metrics.js";
import { go, to } from "../route.js";
import { Card, toned, Wide } from "../ui.js";
import { JobSetup } from "./job_setup.js";
import { Months } from "./months.js";
import { Profile, Shares } from "./profile.js";
import { Charts, Figures, Headline, found } from "./run.js";

export function Portfolio({ job, route }) {
  const { result } = job;
  return html`
    <${Headline} result=${result} />
    <${Charts} job=${job} route=${route} symbol=${null} />
    <${Parts} result=${result} />
    <${Shares} rows=${result.parts.map((p) => [p.symbol, p.total_pnl])} />
    <${Months} id=${job.job_id} />
    <${Profile} id=${job.job_id} result=${result} />
    <${Figures} result=${result} />
    <${JobSetup} job=${job} more=${found(result)} />`;
}

function Parts({ result }) {
  const { parts, weights = {} } = result,
    sizing = result.spec?.sizing ?? parts[0]?.spec?.sizing;
  const top = (name) => largest(parts.map((p) => p[name]));
  return html`<${Card} title="Symbols"
    note="The drawdown of the whole is that between the ends of days; nothing is moved between symbols.">
    <${Wide} name="symbols"><table>
      <thead><tr><th scope="col">symbol</th><th scope="col" class="n">profit</th>
        <th scope="col" class="n">return</th><th scope="col" class="n">Sharpe ratio</th>
        <th scope="col" class="n">max drawdown</th><th scope="col" class="n">trades</th>
        <th scope="col" class="n">fees</th><th scope="col" class="n">weight</th>
        <th scope="col" class="n">capital</th></tr></thead>
      <tbody>${parts.map(
        (p) => html`<tr key=${p.symbol} class="goes" onClick=${() => go(to(["job", p.job_id]))}>
        <th scope="row"><a href=${to(["job", p.job_id])}>${p.symbol}</a></th>
        <td class="n">${toned(money(p.total_pnl, top("total_pnl")), p.total_pnl)}</td>
        <td class="n">${percent(p.metrics?.return)}</td><td class="n">${shown("sharpe_ratio", p.sharpe_ratio, sizing, top("sharpe_ratio"))}</td>
        <td class="n">${shown("max_drawdown", p.max_drawdown, sizing, top("max_drawdown"))}</td>
        <td class="n">${count(p.trades)}</td><td class="n">${money(p.fees, top("fees"))}</td>
        <td class="n">${weights[p.symbol] === undefined ? "1" : value(Number(weights[p.symbol]) / 1e8)}</td>
        <td class="n">${money(p.capital, top("capital"))}</td>
      </tr>`,
      )}</tbody></table></${Wide}>
  </${Card}>`;
}
