// What speaks against a result: warnings, and each guard with what it means in a line.
import { html } from "../lib.js";
import { NONE, count, largest, money, percent, rate, ratio, value } from "../format.js";
import { shown } from "../metrics.js";
import { Card } from "../ui.js";

/** Of a sweep: name, value, and one line that says what it is. */
function ofSweep(g) {
  const pbo = g.overfitting?.probability;
  return [
    [
      "Overfitting (PBO)",
      percent(pbo),
      "How often the best set of one half of the days is among the worse half in the other. Noise gives 50%, skill 0%.",
    ],
    [
      "Deflated Sharpe",
      percent(g.deflated_sharpe),
      `The probability that the best set beats the luck of ${count(g.independent_trials)} independent tries.`,
    ],
    [
      "Sharpe that luck gives",
      ratio(g.luck_sharpe),
      `What the best of so many tries shows with no skill at all; the best set here has ${shown("sharpe_ratio", g.sharpe_ratio)}.`,
    ],
    [
      "Probabilistic Sharpe",
      percent(g.probabilistic_sharpe),
      "The probability that the best set's true Sharpe ratio is above zero, were it the only one tried.",
    ],
    [
      "Days needed",
      count(g.minimum_track_days),
      "How many such days show with 95% that its true Sharpe ratio is above zero.",
    ],
    [
      "Plateau",
      percent(g.stability?.plateau),
      "How much of the best figure its neighbours in the grid keep: near 0% it is a needle, near 100% a plateau.",
    ],
  ];
}

/** Of one run. */
function ofRun(g) {
  const rows = [
    [
      "Sharpe above zero",
      percent(g.probabilistic_sharpe),
      "The probability that the true Sharpe ratio is above zero, for this many days.",
    ],
    ["Days needed", count(g.minimum_track_days), "How many such days show that with 95%."],
  ];
  if (g.costs)
    rows.push([
      "Break-even fee",
      rate(g.costs.break_even_fee),
      `The fee at which the profit is gone; paid were ${rate(g.costs.fee)}.`,
    ]);
  const drawn = g.bootstrap?.figures?.total_pnl;
  if (drawn)
    rows.push([
      "Profit, 95 of 100",
      [drawn.low, drawn.high].map((x) => money(x, largest([drawn.low, drawn.high]))).join(" to "),
      "What the same days would have made in other orders and numbers (bootstrap).",
    ]);
  if (g.shuffle)
    rows.push([
      "Deeper by luck",
      percent(g.shuffle.deeper),
      "Of the same trades in other orders, how many have a deeper drawdown.",
    ]);
  return rows;
}

export function Guards({ guards, score }) {
  if (!guards) return null;
  const rows = (guards.trials === undefined ? ofRun(guards) : ofSweep(guards)).filter(([, v]) => v !== NONE);
  const best =
    guards.best &&
    Object.entries(guards.best)
      .map(([name, v]) => `${name}=${value(v)}`)
      .join(", ");
  return html`<${Card} title="How much may be luck" kind="guards"
    note=${best && `Of the best set by ${score ?? "Sharpe ratio"}: ${best}.`}>
    <ul class="warnings">${(guards.warnings ?? []).map((text) => html`<li key=${text}>${text}</li>`)}</ul>
    <dl>${rows.map(
      ([name, v, described]) => html`<div key=${name}><dt><span>${name}</span><b>${v}</b></dt><dd>${described}</dd></div>`,
    )}</dl>
  </${Card}>`;
}
