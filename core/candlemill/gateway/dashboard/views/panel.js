// The result of a panel: many symbols with one account, so the whole has the curve and the symbols have their shares.
import { html } from "../lib.js";
import { count, largest, money, percent, share } from "../format.js";
import { Card, toned, Wide } from "../ui.js";
import { JobSetup } from "./job_setup.js";
import { Months } from "./months.js";
import { Profile, Shares } from "./profile.js";
import { Charts, Figures, Headline, found } from "./run.js";
import { Trades } from "./trades.js";

export const isPanel = (spec) => spec.symbol.includes(",");

export function Panel({ job, route }) {
  const { result } = job;
  return html`
    <${Headline} result=${result} />
    <${Charts} job=${job} route=${route} symbol=${null} />
    <${Symbols} result=${result} />
    <${Shares} rows=${Object.entries(result.symbols).map(([name, row]) => [name, row.profit])} />
    <${Months} id=${job.job_id} />
    <${Profile} id=${job.job_id} result=${result} />
    <${Figures} result=${result} />
    <${Trades} id=${job.job_id} route=${route} many />
    <${JobSetup} job=${job} more=${found(result)} />`;
}

function Symbols({ result }) {
  const rows = Object.entries(result.symbols).sort(([, a], [, b]) => b.profit - a.profit);
  const top = (name) => largest(rows.map(([, row]) => row[name]));
  return html`<${Card} title="Symbols" note="All share one account; what is still held counts at its last close.">
    <${Wide} name="symbols"><table>
      <thead><tr><th scope="col">symbol</th><th scope="col" class="n">profit</th><th scope="col" class="n">of the capital</th>
        <th scope="col" class="n">trades</th><th scope="col" class="n">won</th><th scope="col" class="n">fees</th>
        <th scope="col" class="n">held</th></tr></thead>
      <tbody>${rows.map(
        ([name, row]) => html`<tr key=${name}>
        <th scope="row">${name}</th>
        <td class="n">${toned(money(row.profit, top("profit")), row.profit)}</td>
        <td class="n">${percent(share(row.profit, result.capital))}</td>
        <td class="n">${count(row.trades)}</td>
        <td class="n">${row.trades ? percent(share(row.wins, row.trades)) : "–"}</td>
        <td class="n">${money(row.fees, top("fees"))}</td>
        <td class="n">${percent(share(row.exposure_bars, result.bars))}</td>
      </tr>`,
      )}</tbody></table></${Wide}>
  </${Card}>`;
}
