// Costs, exits, the account, and how a job is cut: the same options as the command line's, from the same table.
import { html } from "../lib.js";
import { CheckField, Segments, SelectField, TextField } from "../fields.js";
import { rate } from "../format.js";
import { accountOf, cleared, optionsOf } from "../options.js";
import { Card } from "../ui.js";

/** A number without a unit is in parts per million: 1000 is 0.1%. */
function rateHint(text) {
  if (!/^-?\d{1,15}$/.test(text ?? "")) return "like 0.1%, 10bp or 1000 ppm";
  return Number(text) ? rate(text) : "none";
}

const TIMEFRAMES = ["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "12h", "1d", "1w"];

/** The texts of a field without a value: its hint and its placeholder. */
function textsOf(option, given) {
  if (option.kind !== "rate") return { hint: option.hint, placeholder: option.usual || (option.default ?? "") };
  const usual = option.usual || rate(option.default ?? 0);
  return { hint: option.hint || rateHint(given || option.default), placeholder: usual };
}

function OptionField({ option, fields, set, wrong }) {
  const { name, kind, label } = option;
  const put = (text) => set(cleared(fields, { [name]: text === option.default ? "" : text }));
  const given = fields[name] ?? "",
    at = given || option.default;
  if (kind === "timeframe") {
    const frames = TIMEFRAMES.includes(at) ? TIMEFRAMES : [...TIMEFRAMES, at];
    return html`<${SelectField} label=${label} hint=${option.hint} wrong=${wrong(name)} value=${at}
      choices=${frames.map((one) => [one, one])} onChange=${put} />`;
  }
  const { hint, placeholder } = textsOf(option, given);
  const mode = kind === "rate" || kind === "text" ? "text" : kind === "count" || kind === "minutes" ? "numeric" : "decimal";
  return html`<${TextField} label=${label} hint=${hint} wrong=${wrong(name)} inputmode=${mode} value=${given}
    placeholder=${placeholder} onInput=${put} />`;
}

function ChoiceField({ option, fields, set, wrong }) {
  const { name, label, choices, notes } = option;
  const account = name === "account"; // which follows from other fields until it is chosen
  const at = account ? accountOf(fields) : fields[name] || option.default;
  const put = (chosen) => set(cleared(fields, { [name]: chosen === option.default && !account ? "" : chosen }));
  return html`<div>
    <${Segments} label=${label} value=${at} choices=${choices.map((one) => [one, one.replaceAll("_", " ")])}
      onChange=${put} />
    ${notes[at] && html`<p class="note" style="margin-top:3px">${notes[at]}</p>`}
    ${wrong(name) && html`<p class="problem">${wrong(name)}</p>`}
  </div>`;
}

const Flag = ({ option: { name, help }, fields, set, wrong }) => html`
  <${CheckField} text=${help} checked=${fields[name] === "1"}
    onChange=${() => set({ [name]: fields[name] === "1" ? "" : "1" })} />
  ${wrong(name) && html`<p class="problem">${wrong(name)}</p>`}`;

/** Choices first, then texts, then what is ticked. */
function Group({ name, shared }) {
  const found = optionsOf(name, shared.fields);
  const each = (Field, options) => options.map((option) => html`<${Field} ...${shared} key=${option.name}
    option=${option} />`);
  const choices = found.filter((option) => option.kind === "choice");
  const flags = found.filter((option) => option.kind === "flag");
  const texts = found.filter((option) => !choices.includes(option) && !flags.includes(option));
  return html`
    ${choices.length > 0 && html`<div class="choices" style="gap:14px 22px;align-items:flex-start">
      ${each(ChoiceField, choices)}</div>`}
    <div class="fields" style=${choices.length ? "margin-top:12px" : ""}>${each(OptionField, texts)}</div>
    ${each(Flag, flags)}`;
}

export const Costs = (shared) =>
  html`<${Card} title="Costs and exits"><${Group} name="costs" shared=${shared} /></${Card}>`;

export const Account = (shared) =>
  html`<${Card} title="Account and fills"><${Group} name="account" shared=${shared} /></${Card}>`;

export function How(shared) {
  const open = optionsOf("run", shared.fields).some(({ name }) => shared.fields[name]);
  return html`<section class="card"><details open=${open}>
    <summary><h2>How it is run</h2></summary>
    <div><${Group} name="run" shared=${shared} /></div>
  </details></section>`;
}
