// Which candles are stored: the symbols, and the days of one of them.
import { html, useMemo, useState } from "../lib.js";
import { useGet } from "../api.js";
import { count, day, minute, percent, plural, sum } from "../format.js";
import { to } from "../route.js";
import { Calendar } from "../charts/calendar.js";
import { Busy, Card, Facts, Failure, Head, NoCandles, Wide } from "../ui.js";
import { daysOf, stretches } from "./coverage.js";

const GAPS = 40;

export function Data({ route }) {
  const { data, error } = useGet("symbols");
  const symbols = data?.symbols ?? [];
  const first = symbols.reduce((best, s) => (best && best.bars >= s.bars ? best : s), null);
  const name = route.path[1] ?? first?.symbol;
  const symbol = symbols.find((s) => s.symbol === name);
  const candles = plural(sum(symbols.map((s) => s.bars)), "candle");
  const unknown = html`<p class="problem mild">${name} is not stored.</p>`;
  return html`
    <${Head} title="Data" below=${data && `${plural(symbols.length, "symbol")}, ${candles} of one minute`} />
    <${Failure} error=${error} />
    ${!data && !error && html`<${Busy} />`}
    ${data && !symbols.length && html`<${NoCandles} />`}
    ${
      symbols.length > 0 &&
      html`<div class="data">
      <${List} symbols=${symbols} chosen=${name} />
      <div class="cards">${symbol ? html`<${Coverage} key=${name} symbol=${symbol} />` : unknown}</div>
    </div>`
    }`;
}

function List({ symbols, chosen }) {
  const [text, setText] = useState("");
  const shown = symbols.filter((s) => s.symbol.toLowerCase().includes(text.trim().toLowerCase()));
  return html`<nav class="card symbols" aria-label="symbols">
    ${
      symbols.length > 8 &&
      html`<label><span class="hidden">find a symbol</span><input type="text" placeholder="find a symbol" value=${text}
      onInput=${(event) => setText(event.target.value)} spellcheck=${false} /></label>`
    }
    <ul>${shown.map(
      (s) => html`<li key=${s.symbol}><a href=${to(["data", s.symbol])}
        aria-current=${s.symbol === chosen ? "true" : undefined}>
      <span>${s.symbol}</span><small>${coverage(s)}
      </small></a></li>`,
    )}</ul>
    ${!shown.length && html`<p class="empty">none</p>`}
  </nav>`;
}

/** A share in whole percent, with two decimals close to all; never 100% where something is missing. */
function coverage(symbol) {
  const part = covered(symbol);
  return symbol.missing_minutes && part > 99_900_000 ? percent(part, 2) : percent(Math.floor(part / 1e6) * 1e6, 0);
}

/** The share of minutes from first to last that are there. */
const covered = (s) => Math.floor((s.bars / (s.bars + s.missing_minutes)) * 1e8);

function Coverage({ symbol: s }) {
  const { data, error } = useGet(`symbols/${encodeURIComponent(s.symbol)}`);
  const days = useMemo(() => daysOf(data?.calendar ?? []), [data]);
  const gaps = stretches(days);
  const above = html`<a class="button small" href=${to(["new"], { symbol: s.symbol })}>backtest it</a>`;
  return html`
    <${Card} title=${s.symbol} above=${above}>
      <${Facts} rows=${[
        ["first", minute(s.first_ms)],
        ["last", minute(s.last_ms)],
        ["candles", count(s.bars)],
        ["missing minutes", count(s.missing_minutes)],
        ["days with candles", count(s.days)],
        ["covered", percent(covered(s), 2)],
      ]} />
    </${Card}>
    <${Card} title="Days">
      <${Failure} error=${error} />
      ${!data && !error && html`<${Busy} />`}
      ${days.length > 0 && html`<${Calendar} symbol=${s.symbol} days=${days} />`}
    </${Card}>
    ${
      data &&
      html`<${Card} title="Gaps" note=${gaps.length > GAPS ? `The ${GAPS} largest of ${count(gaps.length)}.` : ""}>
      ${
        gaps.length
          ? html`<${Wide} name="gaps"><table>
        <thead><tr><th scope="col">days</th><th scope="col" class="n">how many</th>
        <th scope="col" class="n">minutes missing</th></tr></thead>
        <tbody>${gaps.slice(0, GAPS).map(
          (g) => html`<tr key=${g.from}><th scope="row">${g.from}${g.to === g.from ? "" : ` to ${g.to}`}</th>
          <td class="n">${count(g.days)}</td><td class="n">${count(g.missing)}</td></tr>`,
        )}</tbody></table></${Wide}>`
          : html`<p class="empty">No minute is missing from ${day(s.first_ms)} to ${day(s.last_ms)}.</p>`
      }
    </${Card}>`
    }`;
}
