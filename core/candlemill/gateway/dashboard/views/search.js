// A search by trials instead of every combination of the axes.
import { html, useEffect, useState } from "../lib.js";
import { CheckField, SelectField, TextField } from "../fields.js";
import { label, loadMetrics, rankedFigures } from "../metrics.js";
import { usualOfSearch } from "../request.js";
import { Card } from "../ui.js";

const SAMPLERS = [
  ["tpe", "tree of Parzen estimators"],
  ["random", "random"],
  ["cmaes", "CMA-ES"],
  ["grid", "a grid, shuffled"],
];
const PRUNERS = [
  ["none", "never"],
  ["median", "below the median"],
  ["halving", "successive halving"],
];

export function Search({ fields, set, wrong }) {
  const on = fields.search === "1";
  const [scores, setScores] = useState([]);
  useEffect(() => {
    loadMetrics().then(() => setScores(rankedFigures()), () => {});
  }, []);
  const at = (name) => fields[name] ?? "";
  const put = (name) => (text) => set({ [name]: text === usualOfSearch(name) ? "" : text });
  const chosen = (name) => at(name) || usualOfSearch(name);
  return html`<${Card} title="Search">
    <${CheckField} text="try some combinations only, each chosen by the results of those before" checked=${on}
      onChange=${() => set({ search: on ? "" : "1", walk: "" })} />
    ${
      on &&
      html`<div class="fields" style="margin-top:8px">
      <${TextField} label="Trials" inputmode="numeric" wrong=${wrong("trials")} placeholder=${usualOfSearch("trials")}
        value=${at("trials")} onInput=${put("trials")} />
      <${SelectField} label="Chosen by" value=${chosen("sampler")} choices=${SAMPLERS} onChange=${put("sampler")} />
      <${SelectField} label="Best by" value=${chosen("best_by")}
        choices=${(scores.length ? scores : [chosen("best_by")]).map((name) => [name, label(name)])}
        onChange=${put("best_by")} />
      <${SelectField} label="Ended early" hint="on a quarter and half of the range" value=${chosen("pruner")}
        choices=${PRUNERS} onChange=${put("pruner")} />
      <${TextField} label="Seed" inputmode="numeric" wrong=${wrong("seed")} placeholder=${usualOfSearch("seed")}
        value=${at("seed")} onInput=${put("seed")} />
      <${TextField} label="Also vary" hint="options, with ; between them" placeholder="stop_loss=1%:5%:1%; timeframe=5m,15m"
        value=${at("also")} onInput=${put("also")} />
    </div>`
    }
  </${Card}>`;
}
