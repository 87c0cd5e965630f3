// Controls of forms, each with its label, a hint, and what is wrong with it.
import { html, useId } from "./lib.js";

/** `children` is a function of the attributes that tie a control to its label, hint and error. */
export function Field({ label, hint, wrong, right, children }) {
  const id = useId();
  const tied = {
    id,
    "aria-describedby": wrong ? `${id}w` : hint ? `${id}h` : undefined,
    "aria-invalid": wrong ? "true" : undefined,
  };
  return html`<div class="field">
    <label for=${id}><span>${label}</span>${right && html`<span>${right}</span>`}</label>
    ${children(tied)}
    ${wrong ? html`<p class="wrong" id="${id}w">${wrong}</p>` : hint && html`<p class="hint" id="${id}h">${hint}</p>`}
  </div>`;
}

/** A text; `unit` stands behind it, other attributes are the input's. `onInput` gets the text without blanks around. */
export function TextField({ label, hint, wrong, unit, onInput, ...more }) {
  const input = (tied) => html`<input type="text" autocomplete="off" spellcheck=${false} ...${tied} ...${more}
    onInput=${(event) => onInput(event.target.value.trim())} />`;
  const control = unit ? (tied) => html`<div class="unit">${input(tied)}<span>${unit}</span></div>` : input;
  return html`<${Field} label=${label} hint=${hint} wrong=${wrong}>${control}</${Field}>`;
}

/** One of `choices`, [value, text] each. */
export function SelectField({ label, hint, wrong, value, choices, onChange }) {
  const control = (tied) => html`<select ...${tied} value=${value} onChange=${(event) => onChange(event.target.value)}>
    <${Choices} choices=${choices} value=${value} />
  </select>`;
  return html`<${Field} label=${label} hint=${hint} wrong=${wrong}>${control}</${Field}>`;
}

export function DateField({ label, ...more }) {
  return html`<${Field} label=${label}>${(tied) => html`<input type="date" ...${tied} ...${more} />`}</${Field}>`;
}

export const CheckField = ({ text, checked, onChange }) => html`
  <label class="check"><input type="checkbox" checked=${checked} onChange=${onChange} />${text}</label>`;

export const Choices = ({ choices, value }) =>
  choices.map(([one, text]) => html`<option key=${one} value=${one} selected=${one === value}>${text}</option>`);

/** One of a few that are all shown. `choices` of [value, text]. */
export function Segments({ label, value, choices, onChange }) {
  const name = useId();
  const segment = ([one, text]) => html`<label key=${one}>
    <input type="radio" name=${name} checked=${one === value} onChange=${() => onChange(one)} />${text}
  </label>`;
  return html`<div class="field" role="radiogroup" aria-label=${label}>
    <span class="label" aria-hidden="true"><span>${label}</span></span>
    <div class="segments">${choices.map(segment)}</div>
  </div>`;
}
