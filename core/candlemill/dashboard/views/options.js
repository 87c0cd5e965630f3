// Costs, exits, the account, and how a job is cut: the same options as the command line's.
import { html } from "../lib.js";
import { Card, Field, Segments } from "../ui.js";

/** 1,000 ppm is 0.1 %. */
function percentHint(text, otherwise) {
  const ppm = Number(text === undefined || text === "" ? otherwise : text);
  return Number.isFinite(ppm) && ppm !== 0 ? `${+(ppm / 10_000).toFixed(4)}%` : "none";
}

function Rate({ name, label, fallback = "0", hint, fields, set, wrong }) {
  return html`<${Field} label=${label} hint=${hint ?? percentHint(fields[name], fallback)} wrong=${wrong(name)}>${(tied) => html`
    <div class="unit"><input ...${tied} type="text" inputmode="numeric" autocomplete="off" value=${fields[name] ?? ""} placeholder=${fallback}
      onInput=${(event) => set({ [name]: event.target.value.trim() })} /><span>ppm</span></div>`}</${Field}>`;
}

function Text({ name, label, fallback, hint, mode = "decimal", fields, set, wrong }) {
  return html`<${Field} label=${label} hint=${hint} wrong=${wrong(name)}>${(tied) => html`
    <input ...${tied} type="text" inputmode=${mode} autocomplete="off" value=${fields[name] ?? ""} placeholder=${fallback}
      onInput=${(event) => set({ [name]: event.target.value.trim() })} />`}</${Field}>`;
}

export function Costs(shared) {
  const fee = shared.fields.fee || "1000";
  const maker = shared.fields.maker_fee ? undefined : "of take-profit exits; as the fee";
  return html`<${Card} title="Costs and exits">
    <div class="fields">
      <${Rate} ...${shared} name="fee" label="Fee of each fill" fallback="1000" />
      <${Rate} ...${shared} name="maker_fee" label="Maker fee" fallback=${fee} hint=${maker} />
      <${Rate} ...${shared} name="slippage" label="Slippage" />
      <${Rate} ...${shared} name="stop_loss" label="Stop loss" />
      <${Rate} ...${shared} name="take_profit" label="Take profit" />
      <${Rate} ...${shared} name="trailing_stop" label="Trailing stop" />
    </div>
  </${Card}>`;
}

const SIZINGS = [["fixed", "fixed"], ["notional", "notional"], ["compound", "compound"]];
const TOLD = {
  fixed: "The same quantity in each trade; nothing compounds.",
  notional: "The same money in each trade.",
  compound: "All of the equity in each trade.",
};
const TIMEFRAMES = ["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "12h", "1d", "1w"];

export function Account(shared) {
  const { fields, set, wrong } = shared;
  const sizing = fields.sizing ?? "fixed";
  const size = (to) => set({ sizing: to === "fixed" ? "" : to, ...(to === "fixed" ? {} : { quantity: "" }),
    ...(to === "notional" ? {} : { notional: "" }) });
  const frames = TIMEFRAMES.includes(fields.timeframe ?? "1m") ? TIMEFRAMES : [...TIMEFRAMES, fields.timeframe];
  return html`<${Card} title="Account and fills">
    <div class="choices" style="gap:14px 22px;align-items:flex-start">
      <div><${Segments} label="Sizing" value=${sizing} options=${SIZINGS} onChange=${size} />
        <p class="note" style="margin-top:3px">${TOLD[sizing]}</p></div>
      <${Segments} label="Filled at" value=${fields.fill ?? "next_open"} options=${[["next_open", "the next open"], ["close", "the close"]]}
        onChange=${(v) => set({ fill: v === "next_open" ? "" : v })} />
    </div>
    <div class="fields" style="margin-top:12px">
      ${sizing === "fixed" && html`<${Text} ...${shared} name="quantity" label="Quantity" fallback="1" hint="units of base in each trade" />`}
      ${sizing === "notional" && html`<${Text} ...${shared} name="notional" label="Money in each trade" fallback="the capital" />`}
      <${Text} ...${shared} name="capital" label="Capital" fallback=${sizing === "fixed" ? "what the quantity costs" : "10000"} />
      <${Field} label="Decided on bars of" hint="fills and stops stay on minutes" wrong=${wrong("timeframe")}>${(tied) => html`
        <select ...${tied} onChange=${(e) => set({ timeframe: e.target.value === "1m" ? "" : e.target.value })}>
          ${frames.map((t) => html`<option key=${t} value=${t} selected=${t === (fields.timeframe ?? "1m")}>${t}</option>`)}
        </select>`}</${Field}>
      ${sizing !== "compound" && html`<${Rate} ...${shared} name="volume_share" label="Most of a bar's volume"
        hint=${fields.volume_share ? undefined : "no limit"} />`}
    </div>
    <label class="check" style="margin-top:6px"><input type="checkbox" checked=${fields.funding === "1"}
      onChange=${() => set({ funding: fields.funding === "1" ? "" : "1" })} />apply the symbol's stored funding rates</label>
    ${wrong("funding") && html`<p class="problem">${wrong("funding")}</p>`}
  </${Card}>`;
}

export function How(shared) {
  const { fields, set } = shared;
  const open = Boolean(fields.slices || fields.max_gap || fields.fresh);
  return html`<section class="card"><details open=${open}><summary><h2>How it is run</h2></summary>
    <div>
      <div class="fields">
        <${Text} ...${shared} name="slices" label="Slices" fallback="auto" mode="numeric" hint="never changes what comes out" />
        <${Text} ...${shared} name="max_gap" label="Most missing minutes" fallback="any" mode="numeric" hint="refuses a range that misses more" />
      </div>
      <label class="check" style="margin-top:6px"><input type="checkbox" checked=${fields.fresh === "1"}
        onChange=${() => set({ fresh: fields.fresh === "1" ? "" : "1" })} />compute even what is stored</label>
    </div>
  </details></section>`;
}
