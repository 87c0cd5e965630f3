// How a run came to its profit, beside its curve: trades, rolling Sharpe ratio, deepest drawdowns.
import { html, useMemo } from "../lib.js";
import { job as jobPath, useGet } from "../api.js";
import { count, largest, minute, money, percent, plural, span } from "../format.js";
import { Contributions, Histogram, Moments, Rolling } from "../charts/profile.js";
import { Busy, Card, Failure, Wide } from "../ui.js";

const SHARES = 20;

export function Profile({ id, result }) {
  const { data, error } = useGet(jobPath(id, "profile"));
  if (!data) return html`<${Card} title="Profile"><${Failure} error=${error} />${!error && html`<${Busy} />`}</${Card}>`;
  const { profits, excursions, drawdowns } = data;
  return html`<div class="halves">
    <${Card} title="Rolling Sharpe ratio" note=${rollingNote(data)}>
      ${isMoving(data) && html`<${Rolling} data=${data} whole=${result.sharpe_ratio} />`}
    </${Card}>
    ${profits && html`<${Card} title="Profits of trades" note=${profitsNote(profits)}><${Histogram} data=${profits} /></${Card}>`}
    ${
      excursions &&
      html`<${Card} title="Worst moment of trades" note="Winners far to the left came close to being stopped.">
        <${Moments} data=${excursions} moment="mae" name="worst mark while held (MAE)" /></${Card}>
      <${Card} title="Best moment of trades" note="Losers far to the right were ahead once.">
        <${Moments} data=${excursions} moment="mfe" name="best mark while held (MFE)" /></${Card}>`
    }
  </div>
  ${drawdowns.length > 0 && html`<${Drawdowns} rows=${drawdowns} />`}`;
}

const isMoving = ({ t, sharpe }) => t.length > 1 && sharpe.some(Boolean);

function rollingNote(data) {
  if (isMoving(data)) return `Of the ${data.window} days before each day, annualised with 365; dashed: the whole range.`;
  return data.t.length > 1 ? "No day has a profit or a loss." : "The range has too few days.";
}

function profitsNote({ counts, mean, median, beyond, reach }) {
  const total = counts.reduce((a, b) => a + b, 0);
  const rest = beyond ? ` The outermost bars hold ${count(beyond)} beyond ±${money(Math.round(reach * 1e8))}.` : "";
  return `${plural(total, "trade")}. Mean ${money(mean)} (dashed), median ${money(median)} (dotted).${rest}`;
}

function Drawdowns({ rows }) {
  const top = largest(rows.map((row) => row.depth));
  return html`<${Card} title="Worst drawdowns" note="From the peak, bar by bar.">
    <${Wide} name="drawdowns"><table>
      <thead><tr><th scope="col">peak</th><th scope="col" class="n">depth</th><th scope="col" class="n">of peak</th>
        <th scope="col" class="n">length</th><th scope="col">bottom</th><th scope="col">recovered</th></tr></thead>
      <tbody>${rows.map(
        (row) => html`<tr key=${row.bottom_ms}>
        <th scope="row">${minute(row.start_ms)}</th>
        <td class="n">${money(row.depth, top)}</td><td class="n">${percent(row.share)}</td>
        <td class="n">${row.end_ms === null ? "–" : span(row.end_ms - row.start_ms)}</td>
        <td>${minute(row.bottom_ms)}</td><td>${row.end_ms === null ? "not yet" : minute(row.end_ms)}</td>
      </tr>`,
      )}</tbody></table></${Wide}>
  </${Card}>`;
}

/** Profit by symbol; of more than SHARES the largest gains and losses. */
export function Shares({ rows }) {
  const shown = useMemo(() => {
    const sorted = [...rows].sort((a, b) => (a[1] < b[1] ? 1 : a[1] > b[1] ? -1 : 0));
    return sorted.length <= SHARES ? sorted : [...sorted.slice(0, SHARES / 2), ...sorted.slice(-SHARES / 2)];
  }, [rows]);
  const note =
    shown.length < rows.length ? `The ${SHARES / 2} best and the ${SHARES / 2} worst of ${count(rows.length)} symbols.` : "";
  return html`<${Card} title="Contribution by symbol" note=${note}><${Contributions} rows=${shown} /></${Card}>`;
}
