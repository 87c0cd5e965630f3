// The result of one run: headline, charts of a span that all of them share, months, figures, trades.
import { html, useCallback, useEffect, useState } from "../lib.js";
import { job as jobPath, useGet } from "../api.js";
import { DAY, MINUTE, count, float, money, percent, plural, ratio, share, times } from "../format.js";
import { shown } from "../metrics.js";
import { metricRows, sumRows } from "./figures.js";
import { Equity } from "../charts/equity.js";
import { Price } from "../charts/price.js";
import { Span } from "../charts/span.js";
import { within } from "../charts/drag.js";
import { replace, to } from "../route.js";
import { Busy, Card, Columns, Failure, Key, parted, useNarrow, useSettled } from "../ui.js";
import { Guards } from "./guards.js";
import { JobSetup } from "./job_setup.js";
import { Months } from "./months.js";
import { Profile } from "./profile.js";
import { Trades } from "./trades.js";

const ORDERS_SPAN = 2000 * MINUTE;
const BAR_BY_BAR =
  "Profit so far at each bar's close, after costs; buy and hold before costs. Highs and lows are kept.";
const POINTS = 1200,
  OVERVIEW = 240;

/** The span that is looked at; the address follows it. */
function useSpan(route, whole) {
  const read = (q) => (q.from && q.to ? within([Number(q.from), Number(q.to)], whole) : whole);
  const [span, setSpan] = useState(() => read(route.query));
  useEffect(() => setSpan(read(route.query)), [route.query.from, route.query.to]);
  const settled = useSettled(span, 150);
  useEffect(() => {
    const all = settled[0] === whole[0] && settled[1] === whole[1];
    const shown = all ? { from: "", to: "" } : { from: settled[0], to: settled[1] };
    replace(to(route.path, { ...route.query, ...shown }));
  }, [settled[0], settled[1]]);
  const set = useCallback(
    (from, until) => setSpan(from === undefined ? whole : within([from, until], whole)),
    [whole[0], whole[1]],
  );
  return [span, settled, set];
}

export function Run({ job, route }) {
  const { result } = job;
  return html`
    <${Headline} result=${result} />
    <${Charts} job=${job} route=${route} symbol=${result.symbol} />
    <${Months} id=${job.job_id} />
    <${Profile} id=${job.job_id} result=${result} />
    <${Figures} result=${result} />
    <${Guards} guards=${result.guards} />
    <${Trades} id=${job.job_id} route=${route} />
    <${JobSetup} job=${job} more=${found(result)} />`;
}

export const found = (result) =>
  [
    ["bars", `${count(result.bars)} of ${count(result.bars + result.missing_minutes)} minutes`],
    ["missing minutes", count(result.missing_minutes)],
    ["trades held over gaps", count(result.trades_over_gaps)],
    ["earned over gaps", money(result.gap_profit ?? 0)],
    ["ambiguous bars", count(result.ambiguous_bars)],
    ["slices", `${count(result.slices)}, ${count(result.repaired_slices)} repaired`],
    ["computed in", `${count(result.execution_time_ms)} ms`],
  ].filter(([, v]) => !/undefined|–/.test(v));

export function Headline({ result: r }) {
  const m = r.metrics ?? {};
  const joint = r.parts !== undefined || r.symbol.includes(","); // which counts its open positions
  const side = joint ? plural(r.open_position, "position") : shown("open_position", r.open_position);
  return html`<section class="keys" aria-label="headline">
    <${Key} label="Profit" value=${money(r.total_pnl)} tone=${r.total_pnl}
      below="${percent(m.return)} of ${money(r.capital)}" />
    ${
      r.interval &&
      html`<${Key} label="Profit, best path" value=${money(r.best_path_pnl)} tone=${r.best_path_pnl}
      below="${count(r.interval.best.ambiguous_bars)} ambiguous bars" />`
    }
    <${Key} label="Buy and hold" value=${money(times(m.buy_and_hold, r.capital))} tone=${m.buy_and_hold}
      below=${
        m.buy_and_hold === null || m.buy_and_hold === undefined
          ? "several symbols have no single price"
          : `${percent(m.buy_and_hold)} of the price, before costs`
      } />
    <${Key} label="Sharpe ratio" value=${shown("sharpe_ratio", r.sharpe_ratio)}
      below="Sortino ${shown("sortino_ratio", r.sortino_ratio)}" />
    <${Key} label="Max drawdown" value=${shown("max_drawdown", r.max_drawdown, r.spec?.sizing)}
      below="${joint ? "" : "bar by bar; "}${percent(m.max_drawdown_share)} of the peak day by day" />
    <${Key} label="Trades" value=${count(r.trades)}
      below=${r.trades ? `${percent(share(r.wins, r.trades))} won` : "none closed"} />
    <${Key} label="Profit factor" value=${ratio(m.profit_factor)} below="won over lost" />
    <${Key} label="Fees" value=${money(r.fees)} below="${count(r.fills)} fills" />
    <${Key} label="Exposure" value=${percent(share(r.exposure_bars, r.bars))} below="at the end: ${side}" />
    </section>
    <${Cautions} result=${r} />`;
}

/** What a reader must know before believing the figures: money that was made where there were no candles or rates. */
function Cautions({ result: r }) {
  const texts = [];
  if (Number(r.gap_profit ?? 0) && Math.abs(Number(r.gap_profit)) * 10 >= Math.abs(Number(r.total_pnl)))
    texts.push(
      `${money(r.gap_profit)} of a total of ${money(r.total_pnl)} was earned across gaps in the candles, where nobody could trade`,
    );
  if (r.funding_missing_minutes)
    texts.push(`funding is missing for ${(r.funding_missing_minutes / 1440).toFixed(1)} days of the range`);
  return texts.length > 0 && html`<ul class="warnings" data-cautions>${texts.map((t) => html`<li key=${t}>${t}</li>`)}</ul>`;
}

/** Equity, and price with trades, of one span; the finer the closer. */
export function Charts({ job, route, symbol, above, folds }) {
  const result = job.result.result ?? job.result;
  const whole = [result.start, result.end];
  const [span, settled, setSpan] = useSpan(route, whole);
  const narrow = useNarrow();
  const ask = { from: settled[0], to: settled[1] - MINUTE };
  const path = jobPath(job.job_id, "equity");
  const overview = useGet(path, { points: OVERVIEW });
  const equity = useGet(path, { ...ask, points: POINTS });
  const candles = useGet(symbol ? `symbols/${encodeURIComponent(symbol)}/candles` : null, {
    ...ask,
    points: narrow ? 120 : 400,
  });
  const trades = useGet(symbol ? jobPath(job.job_id, "trades") : null, {
    ...ask,
    sort: "size",
    order: "desc",
    limit: narrow ? 60 : 120,
  });
  // Orders are drawn where single candles can be distinguished.
  const close = settled[1] - settled[0] <= ORDERS_SPAN;
  const spec = result.spec ?? {};
  const drawn = symbol && close && spec.margin === "none" && spec.warm_up === "none";
  const orders = useGet(drawn ? jobPath(job.job_id, "orders") : null, ask);
  const all = useCallback(() => setSpan(), [setSpan]);
  const values = (overview.data?.equity ?? []).map(float);
  return html`
    <${Card} title="Equity and drawdown"
      note=${symbol ? BAR_BY_BAR : "Profit so far at the end of each UTC day, after costs."}>
      ${above}
      <${Span} whole=${whole} span=${span} least=${symbol ? 0 : 7 * DAY} onSpan=${setSpan} t=${overview.data?.t ?? []} values=${values}
        breaks=${overview.data?.breaks} />
      <div style="height:12px"></div>
      <${Failure} error=${equity.error} />
      ${equity.data && html`<${Equity} data=${equity.data} span=${span} onSpan=${setSpan} onAll=${all} folds=${folds} />`}
      ${!equity.data && !equity.error && html`<div style="height:420px"><${Busy} /></div>`}
    </${Card}>
    ${
      symbol &&
      html`<${Card} title="Price and trades">
      <${Failure} error=${candles.error ?? trades.error} />
      ${
        candles.data && trades.data
          ? html`<${Price} candles=${candles.data} trades=${trades.data} orders=${close ? orders.data : null}
            span=${span} onSpan=${setSpan} onAll=${all} />`
          : !candles.error && !trades.error && html`<div style="height:470px"><${Busy} /></div>`
      }
    </${Card}>`
    }`;
}

export function Figures({ result }) {
  const metrics = metricRows(result);
  const names = metrics.length > 14 ? ["Metrics", "Metrics, continued"] : ["Metrics"];
  return html`<${Card} title="Figures"><${Columns} parts=${[...sumRows(result), ...parted(metrics, names)]} />
  </${Card}>`;
}
