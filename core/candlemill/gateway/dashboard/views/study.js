// The result of a study: its best trial beside how much of it may be luck, what came when, what mattered, all trials.
import { html } from "../lib.js";
import { count, largest, percent, ratio, value } from "../format.js";
import { label, shown, smallerIsBetter } from "../metrics.js";
import { go, to } from "../route.js";
import { History, Importance, Parallel } from "../charts/study.js";
import { Card, Key, Wide } from "../ui.js";
import { Guards } from "./guards.js";
import { JobSetup } from "./job_setup.js";

const SHOWN = 50;

export function Study({ job }) {
  const { result, spec } = job;
  const scores = result.request.score.split(",");
  const names = Object.keys(result.request.space);
  const done = result.trials.filter((t) => t.state === "done");
  const sign = smallerIsBetter(scores[0]) ? 1 : -1;
  const order = (a, b) => (a.score === b.score ? a.number - b.number : a.score < b.score ? -sign : sign);
  const rows = [...done].sort((a, b) => (sign > 0 ? order(a, b) : -order(b, a))).slice(0, SHOWN);
  const context = { names, scores, sizing: spec.sizing, front: new Set(result.front ?? []) };
  const open = (id) => go(to(["job", id]));
  return html`
    <${Headline} result=${result} context=${context} />
    ${
      result.guards
        ? html`<${Guards} guards=${result.guards} score=${label(scores[0])} />`
        : html`<${Card} title="Luck"><p>Fewer than two trials have a score: nothing tells how much is luck.</p></${Card}>`
    }
    <div class="halves">
      <${Card} title="Trials in order" note="The line is the best so far; hollow marks were ended early.">
        <${History} trials=${result.trials} score=${scores[0]} sizing=${spec.sizing} onOpen=${open} /></${Card}>
      <${Card} title="What mattered" note="The share of the scores' variance that each explains by itself.">
        ${
          Object.keys(result.importance).length
            ? html`<${Importance} shares=${result.importance} />`
            : html`<p class="empty">Too few trials have a score.</p>`
        }</${Card}>
    </div>
    ${
      done.length > 1 &&
      html`<${Card} title="Values and scores" note="A line for each trial, the best ones strong.">
        <${Parallel} trials=${done} space=${result.request.space} score=${scores[0]} low=${sign > 0} /></${Card}>`
    }
    <${Trials} rows=${rows} total=${done.length} context=${context} />
    <${JobSetup} job=${job} />`;
}

function Headline({ result, context: { names, scores, sizing } }) {
  const best = result.best === null ? null : result.trials[result.best];
  const guards = result.guards ?? {};
  const pbo = guards.overfitting?.probability;
  const ended = (state) => result.trials.filter((t) => t.state === state).length;
  return html`<section class="keys" aria-label="headline">
    <${Key} label="Trials" value=${count(result.trials.length)}
      below="${count(ended("pruned"))} ended early, ${count(ended("refused"))} refused" />
    ${
      best &&
      html`<${Key} label=${`Best ${label(scores[0])}`} value=${shown(scores[0], best.score, sizing)}
      below=${names.map((n) => `${n}=${value(best.point[n])}`).join(", ")} />`
    }
    ${scores.length > 1 && html`<${Key} label="On the front" value=${count(result.front.length)}
      below="beaten by none in all figures" />`}
    <${Key} label="By luck alone" value=${ratio(guards.luck_sharpe)} below="Sharpe of the best of so many" />
    <${Key} label="Overfitting" value=${percent(pbo)} tone=${pbo > 50_000_000 ? -1 : 0} below="probability, by CSCV" />
    <${Key} label="Deflated Sharpe" value=${percent(guards.deflated_sharpe)} below="that it is not luck" />
  </section>`;
}

function Trials({ rows, total, context: { names, scores, sizing, front } }) {
  const of = (t) => [t.score, ...t.more];
  const tops = scores.map((_, k) => largest(rows.map((t) => of(t)[k])));
  const note = rows.length < total ? `The ${count(rows.length)} best of ${count(total)}.` : "";
  return html`<${Card} title="Best trials" note="Each trial is a job of its own. ${note}">
    <${Wide} name="trials"><table>
      <thead><tr><th scope="col" class="n">trial</th>${names.map((n) => html`<th scope="col" class="n" key=${n}>${n}</th>`)}
        ${scores.map((name) => html`<th scope="col" class="n" key=${name}>${label(name)}</th>`)}
        ${front.size > 0 && html`<th scope="col">front</th>`}</tr></thead>
      <tbody>${rows.map(
        (t) => html`<tr key=${t.number} class="goes" onClick=${() => go(to(["job", t.job_id]))}>
        <th scope="row" class="n"><a href=${to(["job", t.job_id])}>${count(t.number)}</a></th>
        ${names.map((n) => html`<td class="n" key=${n}>${value(t.point[n])}</td>`)}
        ${scores.map((name, k) => html`<td class="n" key=${name}>${shown(name, of(t)[k], sizing, tops[k])}</td>`)}
        ${front.size > 0 && html`<td>${front.has(t.number) ? "yes" : ""}</td>`}</tr>`,
      )}</tbody></table></${Wide}>
  </${Card}>`;
}
