// The result of a walk-forward: the run of all choices, out of sample throughout, and its folds.
import { html } from "../lib.js";
import { day, largest, percent, value } from "../format.js";
import { label, shown } from "../metrics.js";
import { replace, to } from "../route.js";
import { Card, toned, Wide } from "../ui.js";
import { Guards } from "./guards.js";
import { JobSetup } from "./job_setup.js";
import { Months } from "./months.js";
import { Charts, Figures, Headline, found } from "./run.js";
import { Profile } from "./profile.js";
import { Trades } from "./trades.js";

export function Walk({ job, route }) {
  const { folds, score, guards, sweep_id: sweep } = job.result;
  const result = job.result.result ?? job.result;
  return html`
    <${Headline} result=${result} />
    <${Charts} job=${job} route=${route} symbol=${result.symbol} folds=${folds} />
    <${Folds} folds=${folds} score=${score} route=${route} sweep=${sweep} />
    <${Guards} guards=${guards} score=${label(score)} />
    <${Months} id=${job.job_id} />
    <${Profile} id=${job.job_id} result=${result} />
    <${Figures} result=${result} />
    <${Trades} id=${job.job_id} route=${route} />
    <${JobSetup} job=${job} more=${found(result)} />`;
}

function Folds({ folds, score, route, sweep }) {
  const names = [...new Set(folds.flatMap((fold) => Object.keys(fold.params)))];
  const look = (fold) => replace(to(route.path, { ...route.query, from: fold.test_start, to: fold.test_end }));
  const above = sweep && html`<a class="button small" href=${to(["job", sweep])}>the sweep it chose from</a>`;
  const text = label(score);
  const judged = (fold, name) => shown(score, fold[name], undefined, largest(folds.map((f) => f[name])));
  return html`<${Card} title="Folds" above=${above}
    note="Each fold trades the set that was best by ${text} before it. A row shows its test in the charts.">
    <${Wide} name="folds"><table>
      <thead><tr><th scope="col">traded in</th>${names.map((name) => html`<th scope="col" key=${name}>${name}</th>`)}
        <th scope="col" class="n">${text} in sample</th><th scope="col" class="n">out of sample</th>
        <th scope="col" class="n">efficiency</th><th scope="col">chosen in</th></tr></thead>
      <tbody>${folds.map(
        (f) => html`<tr key=${f.test_start} class="goes" onClick=${() => look(f)}>
        <th scope="row"><button type="button" class="link">${day(f.test_start)} – ${day(f.test_end - 1)}</button></th>
        ${names.map((name) => html`<td key=${name}>${value(f.params[name])}</td>`)}
        <td class="n">${judged(f, "in_sample")}</td><td
          class="n">${toned(judged(f, "out_of_sample"), f.out_of_sample)}</td>
        <td class="n">${percent(f.efficiency)}</td><td>${day(f.train_start)} – ${day(f.train_end - 1)}</td>
      </tr>`,
      )}</tbody></table></${Wide}>
  </${Card}>`;
}
