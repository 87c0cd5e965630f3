// Small parts that views share.
import { html, useEffect, useState } from "./lib.js";
import { Choices } from "./fields.js";
import { sign } from "./format.js";

export const toned = (text, value) => {
  const kind = ["down", "", "up"][sign(value) + 1];
  return kind ? html`<span class=${kind}>${text}</span>` : text;
};

/** A name that may end its line after each underscore. */
export const broken = (name) => name.split(/(?<=_)/).flatMap((part, k) => (k ? [html`<wbr />`, part] : [part]));

/** One figure of a headline; `tone` is > 0 good, < 0 bad. */
export const Key = ({ label, value, below, tone = 0 }) => html`
  <div class=${String(value).length > 10 ? "key long" : "key"}>
    <h2>${label}</h2><b>${toned(value, tone)}</b><small>${below}</small>
  </div>`;

export const Card = ({ title, above, note, children, id, kind = "" }) => html`
  <section class="card ${kind}" id=${id} aria-label=${typeof title === "string" ? title : undefined}>
    ${above ? html`<div class="cardhead"><h2>${title}</h2>${above}</div>` : title && html`<h2>${title}</h2>`}
    ${children}
    ${note && html`<p class="note">${note}</p>`}
  </section>`;

/** `rows` of [name, value]. */
export const Facts = ({ rows, wider = false }) => html`
  <dl class="facts ${wider ? "wider" : ""}">
    ${rows.map(([name, text]) => html`<div key=${name}><dt>${name}</dt><dd>${text}</dd></div>`)}
  </dl>`;

export const Pairs = ({ rows }) => html`
  <table class="pairs"><tbody>
    ${rows.map(([name, text]) => html`<tr key=${name}><th scope="row">${name}</th><td>${text}</td></tr>`)}
  </tbody></table>`;

/** Named tables of pairs side by side. */
export const Columns = ({ parts }) => html`
  <div class="columns">
    ${parts.map(([name, rows]) => html`<div key=${name}><h3>${name}</h3><${Pairs} rows=${rows} /></div>`)}
  </div>`;

/** Names and values cut into `count` columns. */
export function parted(rows, names) {
  const height = Math.ceil(rows.length / names.length) || 1;
  return names.map((name, k) => [name, rows.slice(k * height, (k + 1) * height)]).filter(([, part]) => part.length);
}

/** A table that scrolls inside its card where the page is too narrow for it. */
export const Wide = ({ name, children }) => html`
  <div class="wide" tabindex="0" role="region" aria-label="table of ${name}">${children}</div>`;

export const NoCandles = () => html`<p class="problem mild">
  No candles are stored yet: <code>candlemill ingest PATH</code> brings some in.</p>`;

export const Failure = ({ error, mild = false }) =>
  error && html`<p class="problem ${mild ? "mild" : ""}" role="alert">${error.message}</p>`;

export const Busy = ({ what = "loading" }) => html`<p class="busy" role="status">${what} …</p>`;

export function Command({ text, label }) {
  const [said, say] = useState("copy");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // not over plain HTTP from elsewhere: the old way
      const area = Object.assign(document.createElement("textarea"), { value: text });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    say("copied");
    setTimeout(() => say("copy"), 1500);
  };
  return html`<div class="command">
    <code aria-label=${label}>${text}</code>
    <button type="button" class="small" onClick=${copy} aria-label="copy the ${label}">${said}</button>
  </div>`;
}

/** `choices` of [value, text]. */
export const Select = ({ label, value, choices, onChange }) => html`
  <label>${label} <select value=${value} onChange=${(event) => onChange(event.target.value)}>
    <${Choices} choices=${choices} value=${value} />
  </select></label>`;

/** A column's head that sorts by it. */
export function SortHead({ name, text, sort, order, onSort, numeric = true }) {
  const active = sort === name;
  const arrow = active ? (order === "asc" ? " ↑" : " ↓") : "";
  return html`<th scope="col" class=${numeric ? "n" : ""}
    aria-sort=${active ? (order === "asc" ? "ascending" : "descending") : undefined}>
    <button type="button" onClick=${() => onSort(name)}>${text}${arrow}</button>
  </th>`;
}

/** Pages by cursors: `cursors` of the pages seen so far, this one's last. */
export function Pages({ shown, total, cursors, next, onPage }) {
  if (cursors.length < 2 && !next) return total ? html`<div class="pages">${shown} of ${total}</div>` : null;
  return html`<nav class="pages" aria-label="pages">
    <span>${total ? `${shown} of ${total}` : shown}</span>
    <button type="button" class="small" disabled=${cursors.length < 2}
      onClick=${() => onPage(cursors.slice(0, -1))}>previous</button>
    <button type="button" class="small" disabled=${!next} onClick=${() => onPage([...cursors, next])}>next</button>
  </nav>`;
}

export const STATE_NAMES = {
  accepted: "accepted",
  planned: "planned",
  running: "running",
  repairing: "repairing",
  merging: "merging",
  done: "done",
  failed: "failed",
  cancelled: "cancelled",
};
export const KIND_NAMES = {
  backtest: "backtest",
  sweep: "sweep",
  portfolio: "portfolio",
  walk_forward: "walk-forward",
  sweeps: "sweeps",
  walk_forwards: "walk-forwards",
  study: "study",
};
export const ended = (state) => state === "done" || state === "failed" || state === "cancelled";

export const plainState = (state) => STATE_NAMES[state] ?? state;

export const Badge = ({ state }) =>
  html`<span class="badge ${ended(state) ? state : "busy"}">${plainState(state)}</span>`;

/** The title of a view, which is also the page's. */
export function Head({ title, below, children }) {
  useEffect(() => {
    document.title = `${title} · candlemill`;
  }, [title]);
  return html`<div class="head">
    <div><h1 tabindex="-1">${title}</h1>${below && html`<p>${below}</p>`}</div>
    ${children && html`<div class="actions">${children}</div>`}
  </div>`;
}

const phone = matchMedia("(max-width: 620px)");

/** Whether the page is as narrow as a phone's. */
export function useNarrow() {
  const [narrow, setNarrow] = useState(phone.matches);
  useEffect(() => {
    const watch = () => setNarrow(phone.matches);
    phone.addEventListener("change", watch);
    return () => phone.removeEventListener("change", watch);
  }, []);
  return narrow;
}

/** A value that follows another one, when it has been the same for `ms`. */
export function useSettled(value, ms) {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), ms);
    return () => clearTimeout(timer);
  }, [value, ms]);
  return settled;
}
