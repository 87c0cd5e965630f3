// Which strategy, and its parameters: each one value, or an axis of a grid.
import { html } from "../lib.js";
import { count, plural } from "../format.js";
import { firstGrid, gridValues } from "../request.js";
import { Card, Field, Segments } from "../ui.js";

export function Strategy({ fields, set, wrong, strategies, strategy, parameters }) {
  const choose = (event) => {
    const kept = Object.fromEntries(Object.keys(fields).filter((k) => /^[pg]\./.test(k)).map((k) => [k, ""]));
    set({ ...kept, strategy: event.target.value });
  };
  return html`<${Card} title="Strategy">
    <${Field} label="Name" hint=${strategy && html`<${Words} text=${strategy.summary} />`} wrong=${wrong("strategy")}>${(tied) => html`
      <select ...${tied} onChange=${choose} value=${fields.strategy}>
        ${!strategy && html`<option value=${fields.strategy} selected>${fields.strategy}</option>`}
        ${strategies.map((s) => html`<option key=${s.name} value=${s.name} selected=${s.name === fields.strategy}>${s.name}</option>`)}
      </select>`}</${Field}>
    ${parameters.length > 0 && html`<div class="fields" style="grid-template-columns:repeat(auto-fill,minmax(min(100%,250px),1fr));margin-top:14px">
      ${parameters.map(([name, schema]) => html`<${Parameter} key=${name} name=${name} schema=${schema} fields=${fields} set=${set}
        wrong=${wrong(`params.${name}`, `grid.${name}`, name)} />`)}
    </div>`}
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
  return html`<${Field} label=${name} right=${axis ? "" : bounds(schema)} hint=${hint} wrong=${wrong}>${(tied) => html`
    <div class="parameter">
      ${!axis && (schema.type === "boolean" || schema.enum) ? html`<select ...${tied} onChange=${put}>
          ${(schema.enum ?? [false, true]).map((v) => html`<option key=${v} value=${String(v)}
            selected=${String(v) === (fields[key] ?? String(schema.default))}>${String(v)}</option>`)}
        </select>` : html`<input ...${tied} type="text" inputmode=${axis ? "text" : "decimal"} autocomplete="off" value=${(fields[key] ?? "").trim()}
          placeholder=${axis ? "5:50:5" : String(schema.default ?? "")} onInput=${put} />`}
      <button type="button" aria-pressed=${axis} aria-label="vary ${name}" onClick=${vary}>${axis ? "varied" : "vary"}</button>
    </div>`}</${Field}>`;
}

const SCORES = [["sharpe_ratio", "Sharpe ratio"], ["sortino_ratio", "Sortino ratio"], ["total_pnl", "profit"]];

export function Walk({ fields, set, wrong }) {
  const on = fields.walk === "1";
  return html`<${Card} title="Walk-forward">
    <label class="check"><input type="checkbox" checked=${on} onChange=${() => set({ walk: on ? "" : "1" })} />
      choose the best set on past data, trade it on what follows, again and again</label>
    ${on && html`<div class="fields" style="margin-top:8px">
      <${Field} label="Choose on" hint="90d, 6mo" wrong=${wrong("walk_forward.train", "train")}>${(tied) => html`
        <input ...${tied} type="text" value=${fields.train ?? ""} placeholder="6mo" onInput=${(e) => set({ train: e.target.value.trim() })} />`}</${Field}>
      <${Field} label="Trade on the next" hint="30d, 1mo" wrong=${wrong("walk_forward.test", "test")}>${(tied) => html`
        <input ...${tied} type="text" value=${fields.test ?? ""} placeholder="1mo" onInput=${(e) => set({ test: e.target.value.trim() })} />`}</${Field}>
      <${Field} label="Best by" wrong=${wrong("walk_forward.score", "score")}>${(tied) => html`
        <select ...${tied} onChange=${(e) => set({ score: e.target.value })}>
          ${SCORES.map(([v, text]) => html`<option key=${v} value=${v} selected=${v === (fields.score ?? "sharpe_ratio")}>${text}</option>`)}
        </select>`}</${Field}>
      <${Segments} label="Each training" value=${fields.anchored ?? ""} options=${[["", "moves along"], ["1", "from the start"]]}
        onChange=${(v) => set({ anchored: v })} />
    </div>`}
  </${Card}>`;
}
