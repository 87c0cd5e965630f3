// Which candles: symbols, and the range with what is stored of them.
import { html, useId, useRef, useState } from "../lib.js";
import { useGet } from "../api.js";
import { DateField, Field, TextField } from "../fields.js";
import { DAY, count, day, plural } from "../format.js";
import { rangeText, spanOf } from "../request.js";
import { Card } from "../ui.js";
import { daysOf } from "./coverage.js";

const STRIPS = 6; // symbols whose coverage is drawn

export function Market({ fields, set, wrong, symbols }) {
  const chosen = fields.symbol.split(",").filter((name) => name.trim());
  const known = symbols.filter((s) => chosen.some((name) => matches(name, s.symbol)));
  return html`<${Card} title="Market">
    <${Symbols} chosen=${chosen} all=${symbols} fields=${fields} set=${set} wrong=${wrong("symbol", "weights")} />
    <${Range} fields=${fields} set=${set} wrong=${wrong("range")} known=${known} />
  </${Card}>`;
}

/** A name, or a glob of names. */
function matches(pattern, name) {
  if (!/[*?]/.test(pattern)) return pattern === name;
  const text = pattern
    .replace(/[.+^${}()|[\]\\]/g, "\\$&")
    .replaceAll("*", ".*")
    .replaceAll("?", ".");
  return new RegExp(`^${text}$`).test(name);
}

function Symbols({ chosen, all, fields, set, wrong }) {
  const [typed, setTyped] = useState("");
  const list = useId(),
    at = useRef(null);
  const put = (names) => set({ symbol: names.join(",") });
  const add = (text) => {
    const names = text
      .split(/[,\s]+/)
      .map((name) => name.trim().toUpperCase())
      .filter(Boolean);
    if (names.length) put([...new Set([...chosen, ...names])]);
    setTyped("");
  };
  const type = (event) => {
    const text = event.target.value;
    // A suggestion that was chosen comes as a whole name.
    if (text.endsWith(",") || (all.some((s) => s.symbol === text) && event.inputType !== "insertText")) add(text);
    else setTyped(text);
  };
  const press = (event) => {
    if (event.key === "Enter") {
      event.preventDefault();
      add(typed);
    }
    if (event.key === "Backspace" && !typed && chosen.length) put(chosen.slice(0, -1));
  };
  const remove = (name) => {
    set({ symbol: chosen.filter((other) => other !== name).join(",") || " ", [`w.${name}`]: "" });
    at.current.focus();
  };
  const several = chosen.length > 1;
  const hint = several
    ? "A portfolio (the number is a symbol's weight), or with varied parameters a sweep for each."
    : "Another symbol makes a portfolio; *USDT takes all that end so.";
  const weight = (name) => html`<input inputmode="decimal" aria-label="weight of ${name}" placeholder="1"
    value=${fields[`w.${name}`] ?? ""} onInput=${(event) => set({ [`w.${name}`]: event.target.value.trim() })} />`;
  const chip = (name) => html`<span class="chip" key=${name}>${name}${several && weight(name)}
    <button type="button" aria-label="remove ${name}" onClick=${() => remove(name)}>×</button></span>`;
  const others = all.filter((s) => !chosen.includes(s.symbol));
  const control = (tied) => html`<div class="chips">
    ${chosen.map(chip)}
    <input ...${tied} ref=${at} type="text" list=${list} value=${typed} autocomplete="off" spellcheck=${false}
      placeholder=${chosen.length ? "add a symbol" : "BTCUSDT"} onInput=${type} onKeyDown=${press}
      onBlur=${() => add(typed)} />
    <datalist id=${list}>${others.map((s) => html`<option key=${s.symbol} value=${s.symbol} />`)}</datalist>
  </div>`;
  return html`<${Field} label="Symbols" hint=${hint} wrong=${wrong}>${control}</${Field}>`;
}

function Range({ fields, set, wrong, known }) {
  const text = fields.range ?? "all";
  const first = Math.min(...known.map((s) => s.first_ms)),
    last = Math.max(...known.map((s) => s.last_ms));
  const span = spanOf(text) ?? (known.length && (text === "all" || !text) ? [first, last + 60_000] : null);
  const put = (start, stop) => {
    if (start < stop) set({ range: rangeText(start, stop) });
  };
  const pick = (edge) => (event) => {
    const ms = Date.parse(event.target.value);
    if (!Number.isFinite(ms) || ms < Date.UTC(2009) || ms > Date.UTC(2100)) return;
    const [a, b] = span ?? [ms, ms + DAY];
    if (edge === "from") put(ms, Math.max(b, ms + DAY));
    else put(Math.min(Math.floor(a / DAY) * DAY, ms), ms + DAY);
  };
  const years = known.length ? yearsOf(first, last) : [];
  const shown = years.length > 12 ? years.slice(-12) : years;
  const dates = known.length ? { min: day(first), max: day(last) } : {};
  const year = (y) => html`<button type="button" class="small" key=${y} aria-pressed=${text === String(y)}
    onClick=${() => set({ range: String(y) })}>${y}</button>`;
  const strip = (s) => html`<${Strip} key=${s.symbol} symbol=${s} span=${span} put=${put}
    whole=${[first, last]} named=${known.length > 1} />`;
  return html`<div style="margin-top:14px">
    <div class="choices" role="group" aria-label="range">
      <button type="button" class="small" aria-pressed=${text === "all"}
        onClick=${() => set({ range: "" })}>all that is stored</button>
      ${shown.map(year)}
    </div>
    <div class="fields" style="margin-top:10px">
      <${DateField} label="From" ...${dates} value=${span ? day(span[0]) : ""} onChange=${pick("from")} />
      <${DateField} label="To, included" ...${dates} value=${span ? day(span[1] - 1) : ""} onChange=${pick("to")} />
      <${TextField} label="As text" wrong=${wrong} value=${fields.range ?? ""} placeholder="all"
        onInput=${(range) => set({ range })} />
    </div>
    ${known.slice(0, STRIPS).map(strip)}
    ${known.length > STRIPS && html`<p class="note">and ${known.length - STRIPS} more symbols</p>`}
  </div>`;
}

function yearsOf(first, last) {
  const years = [];
  for (let y = new Date(first).getUTCFullYear(); y <= new Date(last).getUTCFullYear(); y++) years.push(y);
  return years;
}

/** A symbol's months, each with what is stored of it; dragging over them takes them as the range. */
function Strip({ symbol, span, put, whole, named }) {
  const { data } = useGet(`symbols/${encodeURIComponent(symbol.symbol)}`);
  const [from, setFrom] = useState(null);
  const months = data?.calendar ? monthsOf(daysOf(data.calendar), whole) : [];
  const at = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const k = Math.floor(((event.clientX - box.left) / box.width) * months.length);
    return Math.max(0, Math.min(months.length - 1, k));
  };
  const take = (a, b) => put(months[Math.min(a, b)].start, months[Math.max(a, b)].end);
  const down = (event) => {
    event.currentTarget.setPointerCapture(event.pointerId);
    setFrom(at(event));
    take(at(event), at(event));
  };
  const move = (event) => {
    if (from !== null) take(from, at(event));
  };
  const described =
    `${day(symbol.first_ms)} to ${day(symbol.last_ms)} · ${plural(symbol.bars, "candle")} · ` +
    (symbol.missing_minutes ? `${count(symbol.missing_minutes)} minutes missing` : "none missing");
  const kind = (m) => [
    !m.rows && "none",
    m.rows && m.missing && "some",
    span && (m.end <= span[0] || m.start >= span[1]) && "out",
  ];
  const month = (m) =>
    html`<i key=${m.start} title="${m.name}: ${m.described}" class=${kind(m).filter(Boolean).join(" ")} />`;
  return html`<div style="margin-top:12px">
    ${
      months.length > 1 &&
      html`<div class="strip" aria-hidden="true" onPointerDown=${down} onPointerMove=${move}
      onPointerUp=${() => setFrom(null)}>${months.map(month)}</div>`
    }
    <p class="note" style="margin-top:3px">${named && html`<b>${symbol.symbol}</b>: `}${described}</p>
  </div>`;
}

/** Every month from the first of `whole` to its last: what is stored in it. */
function monthsOf(days, [first, last]) {
  const found = new Map();
  const name = (ms) => day(ms).slice(0, 7);
  for (let ms = first; name(ms) <= name(last);) {
    const [year, month] = name(ms).split("-").map(Number);
    const end = Date.UTC(year, month);
    found.set(name(ms), { name: name(ms), rows: 0, missing: 0, start: Date.UTC(year, month - 1), end });
    ms = end;
  }
  for (const { day: date, rows, missing } of days) {
    const month = found.get(date.slice(0, 7));
    month.rows += rows;
    month.missing += missing;
  }
  const described = (m) => (m.rows ? (m.missing ? `${count(m.missing)} minutes missing` : "complete") : "nothing stored");
  return [...found.values()].map((m) => ({ ...m, described: described(m) }));
}
