// Which strategy, and its parameters: each one value, or an axis of a grid.
import { html, useEffect, useState } from "../lib.js";
import { CheckField, Choices, Field, Segments, SelectField, TextField } from "../fields.js";
import { count, plural } from "../format.js";
import { label, loadMetrics } from "../metrics.js";
import { firstGrid, gridValues } from "../request.js";
import { Card } from "../ui.js";

export function Strategy({ fields, set, wrong, strategies, strategy, parameters }) {
  const choose = (name) => {
    const others = Object.keys(fields).filter((key) => /^[pg]\./.test(key));
    set({ ...Object.fromEntries(others.map((key) => [key, ""])), strategy: name });
  };
  const names = [...new Set([...strategies.map((s) => s.name), fields.strategy])];
  const wrongOf = (name) => wrong(`params.${name}`, `grid.${name}`, name);
  return html`<${Card} title="Strategy">
    <${SelectField} label="Name" hint=${strategy && html`<${Words} text=${strategy.summary} />`}
      wrong=${wrong("strategy")} value=${fields.strategy} choices=${names.map((name) => [name, name])}
      onChange=${choose} />
    <div class="fields parameters">
      ${parameters.map(
        ([name, schema]) => html`
          <${Parameter} key=${name} name=${name} schema=${schema} fields=${fields} set=${set}
            wrong=${wrongOf(name)} />`,
      )}
    </div>
  </${Card}>`;
}

/** `names` in back quotes are code. */
const Words = ({ text }) => text.split("`").map((part, k) => (k % 2 ? html`<code key=${k}>${part}</code>` : part));

function bounds({ minimum, maximum }) {
  if (minimum === undefined && maximum === undefined) return "";
  return `${minimum === undefined ? "" : count(minimum)} to ${maximum === undefined ? "" : count(maximum)}`.trim();
}

function gridHint(text) {
  const found = gridValues(text);
  if (!found) return "from:to:step, or values with commas";
  return `${plural(found.count, "value")}: ${found.ends[0]} to ${found.ends[1]}`;
}

function Parameter({ name, schema, fields, set, wrong }) {
  const axis = fields[`g.${name}`] !== undefined;
  const vary = () => set(axis ? { [`g.${name}`]: "" } : { [`g.${name}`]: firstGrid(schema), [`p.${name}`]: "" });
  const hint = axis ? gridHint(fields[`g.${name}`]) : schema.description;
  const key = axis ? `g.${name}` : `p.${name}`;
  const put = (event) => set({ [key]: event.target.value.trim() || (axis ? " " : "") });
  const known = schema.enum ?? (schema.type === "boolean" ? [false, true] : null);
  const usual = String(schema.default ?? "");
  const choose = (tied) => html`<select ...${tied} onChange=${put}>
    <${Choices} choices=${known.map((v) => [String(v), String(v)])} value=${fields[key] ?? usual} />
  </select>`;
  const type = (tied) => html`<input ...${tied} type="text" inputmode=${axis ? "text" : "decimal"} autocomplete="off"
    value=${(fields[key] ?? "").trim()} placeholder=${axis ? "5:50:5" : usual} onInput=${put} />`;
  const control = (tied) => html`<div class="parameter">
    ${known && !axis ? choose(tied) : type(tied)}
    <button type="button" aria-pressed=${axis} aria-label="vary ${name}" onClick=${vary}>vary</button>
  </div>`;
  return html`
    <${Field} label=${name} right=${axis ? "" : bounds(schema)} hint=${hint} wrong=${wrong}>${control}</${Field}>`;
}

const SCORES = ["sharpe_ratio", "sortino_ratio", "total_pnl"];
const TRAININGS = [
  ["", "moves along"],
  ["1", "from the start"],
];

export function Walk({ fields, set, wrong }) {
  const on = fields.walk === "1";
  const [, setNamed] = useState(false);
  useEffect(() => {
    loadMetrics().then(() => setNamed(true), () => {}); // until then scores have their keys as names
  }, []);
  const wrongOf = (name) => wrong(`walk_forward.${name}`, name);
  return html`<${Card} title="Walk-forward">
    <${CheckField} text="choose the best set on past data, trade it on what follows, again and again" checked=${on}
      onChange=${() => set({ walk: on ? "" : "1" })} />
    ${
      on &&
      html`<div class="fields" style="margin-top:8px">
      <${TextField} label="Choose on" hint="90d, 6mo" wrong=${wrongOf("train")} placeholder="6mo"
        value=${fields.train ?? ""} onInput=${(train) => set({ train })} />
      <${TextField} label="Trade on the next" hint="30d, 1mo" wrong=${wrongOf("test")} placeholder="1mo"
        value=${fields.test ?? ""} onInput=${(test) => set({ test })} />
      <${SelectField} label="Best by" wrong=${wrongOf("score")} value=${fields.score ?? "sharpe_ratio"}
        choices=${SCORES.map((name) => [name, label(name)])} onChange=${(score) => set({ score })} />
      <${Segments} label="Each training" value=${fields.anchored ?? ""} choices=${TRAININGS}
        onChange=${(anchored) => set({ anchored })} />
    </div>`
    }
  </${Card}>`;
}
