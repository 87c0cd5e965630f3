// Costs, exits, the account, and how a job is cut: the same options as the command line's.
import { html } from "../lib.js";
import { CheckField, Segments, SelectField, TextField } from "../fields.js";
import { Card } from "../ui.js";

/** 1,000 ppm is 0.1 %. */
function percentHint(text, otherwise) {
  const ppm = Number(text === undefined || text === "" ? otherwise : text);
  return Number.isFinite(ppm) && ppm !== 0 ? `${+(ppm / 10_000).toFixed(4)}%` : "none";
}

const Rate = ({ name, label, usual = "0", hint, fields, set, wrong }) => html`
  <${TextField} label=${label} hint=${hint ?? percentHint(fields[name], usual)} wrong=${wrong(name)} unit="ppm"
    inputmode="numeric" value=${fields[name] ?? ""} placeholder=${usual} onInput=${(text) => set({ [name]: text })} />`;

const Text = ({ name, label, usual, hint, mode = "decimal", fields, set, wrong }) => html`
  <${TextField} label=${label} hint=${hint} wrong=${wrong(name)} inputmode=${mode} value=${fields[name] ?? ""}
    placeholder=${usual} onInput=${(text) => set({ [name]: text })} />`;

const Flag = ({ name, text, fields, set }) => html`
  <${CheckField} text=${text} checked=${fields[name] === "1"}
    onChange=${() => set({ [name]: fields[name] === "1" ? "" : "1" })} />`;

export function Costs(shared) {
  const fee = shared.fields.fee || "1000";
  const maker = shared.fields.maker_fee ? undefined : "of take-profit exits; as the fee";
  return html`<${Card} title="Costs and exits">
    <div class="fields">
      <${Rate} ...${shared} name="fee" label="Fee of each fill" usual="1000" />
      <${Rate} ...${shared} name="maker_fee" label="Maker fee" usual=${fee} hint=${maker} />
      <${Rate} ...${shared} name="slippage" label="Slippage" />
      <${Rate} ...${shared} name="stop_loss" label="Stop loss" />
      <${Rate} ...${shared} name="take_profit" label="Take profit" />
      <${Rate} ...${shared} name="trailing_stop" label="Trailing stop" />
    </div>
  </${Card}>`;
}

const same = (names) => names.map((name) => [name, name]);
const SIZINGS = same(["fixed", "notional", "compound"]);
const TOLD = {
  fixed: "The same quantity in each trade; nothing compounds.",
  notional: "The same money in each trade.",
  compound: "All of the equity in each trade.",
};
const FILLS = same(["the next open", "the close"]);
const TIMEFRAMES = ["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "12h", "1d", "1w"];

/** What has its usual value is not said. */
const unless = (usual, value) => (value === usual ? "" : value);

export function Account(shared) {
  const { fields, set, wrong } = shared;
  const sizing = fields.sizing ?? "fixed",
    timeframe = fields.timeframe ?? "1m";
  const frames = TIMEFRAMES.includes(timeframe) ? TIMEFRAMES : [...TIMEFRAMES, timeframe];
  const size = (to) =>
    set({
      sizing: unless("fixed", to),
      quantity: to === "fixed" ? fields.quantity : "",
      notional: to === "notional" ? fields.notional : "",
      volume_share: to === "compound" ? "" : fields.volume_share,
    });
  const amounts = {
    fixed: html`<${Text} ...${shared} name="quantity" label="Quantity" usual="1" hint="units of base in each trade" />`,
    notional: html`<${Text} ...${shared} name="notional" label="Money in each trade" usual="the capital" />`,
    compound: null,
  };
  const limit = fields.volume_share ? undefined : "no limit";
  return html`<${Card} title="Account and fills">
    <div class="choices" style="gap:14px 22px;align-items:flex-start">
      <div>
        <${Segments} label="Sizing" value=${sizing} choices=${SIZINGS} onChange=${size} />
        <p class="note" style="margin-top:3px">${TOLD[sizing]}</p>
      </div>
      <${Segments} label="Filled at" value=${fields.fill === "close" ? "the close" : "the next open"} choices=${FILLS}
        onChange=${(chosen) => set({ fill: chosen === "the close" ? "close" : "" })} />
    </div>
    <div class="fields" style="margin-top:12px">
      ${amounts[sizing]}
      <${Text} ...${shared} name="capital" label="Capital"
        usual=${sizing === "fixed" ? "what the quantity costs" : "10000"} />
      <${SelectField} label="Decided on bars of" hint="fills and stops stay on minutes" wrong=${wrong("timeframe")}
        value=${timeframe} choices=${same(frames)} onChange=${(chosen) => set({ timeframe: unless("1m", chosen) })} />
      ${
        sizing !== "compound" &&
        html`<${Rate} ...${shared} name="volume_share" label="Most of a bar's volume" hint=${limit} />`
      }
    </div>
    <${Flag} ...${shared} name="funding" text="apply the symbol's stored funding rates" />
    ${wrong("funding") && html`<p class="problem">${wrong("funding")}</p>`}
  </${Card}>`;
}

export function How(shared) {
  const { slices, max_gap: gap, fresh } = shared.fields;
  return html`<section class="card"><details open=${Boolean(slices || gap || fresh)}>
    <summary><h2>How it is run</h2></summary>
    <div>
      <div class="fields">
        <${Text} ...${shared} name="slices" label="Slices" usual="auto" mode="numeric"
          hint="never changes what comes out" />
        <${Text} ...${shared} name="max_gap" label="Most missing minutes" usual="any" mode="numeric"
          hint="refuses a range that misses more" />
      </div>
      <${Flag} ...${shared} name="fresh" text="compute even what is stored" />
    </div>
  </details></section>`;
}
