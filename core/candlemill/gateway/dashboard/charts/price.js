// Candles, as fine as the server gives them for the span, with the trades that touch it.
import { html, useCallback, useMemo, useRef } from "../lib.js";
import { bucket, count, exact, float, minute, money, plural } from "../format.js";
import { useColors } from "../theme.js";
import { Chart, Legend, NARROW, axisNumber, timeAxis, tip } from "./chart.js";
import { dragToZoom } from "./drag.js";

const HEIGHT = 420;
const HOW = matchMedia("(pointer: coarse)").matches
  ? "The handles above lead closer."
  : "Drag over a span to look closer, double click for all; Ctrl and the wheel zoom.";
const AMBIGUOUS_SHOWN = 5;
const HALF_MINUTE = 30_000; // a fill at a bar's open is drawn in that bar's middle

/** `candles`, `trades` and `orders` (null: none) are the server's answers for the span [from, to]. */
export function Price({ candles, trades, orders, span, onSpan, onAll }) {
  const colors = useColors();
  const hovered = useRef(null); // the trade under the pointer
  const marks = useMemo(() => marksOf(trades, span), [trades, span[0], span[1]]);
  const option = useCallback(
    (c, width) => optionOf(c, width, candles, marks, span, hovered, orders),
    [candles, marks, orders, span[0], span[1]],
  );
  const onChart = useCallback(
    (chart, box) => {
      const undo = [dragToZoom(chart, box, span, onSpan, onAll), watchTrades(chart, hovered)];
      return () => undo.forEach((one) => one());
    },
    [span[0], span[1], onSpan],
  );
  const n = candles.t.length;
  const total = trades.total ?? trades.items.length;
  const shown =
    trades.items.length === total
      ? plural(total, "trade")
      : `the ${count(trades.items.length)} largest of ${count(total)} trades`;
  const drawn = `${count(n)} candles of ${bucket(candles.minutes)}`;
  const label = n
    ? `Price from ${exact(candles.open[0])} to ${exact(candles.close[n - 1])} in ${drawn}, with ${shown}`
    : "Price: no candles in this span";
  const items = [
    [colors.up, "long", "up"],
    [colors.down, "short", "down"],
    [colors.up, "exit, won", "dot"],
    [colors.down, "exit, lost", "cross"],
  ];
  const described = orders?.lines.length
    ? ` Lines are orders: green buys, red sells, dashed stop orders; dotted the position's stop, target and liquidation.${unknown(orders)}`
    : "";
  return html`<${Legend} items=${items} />
    <${Chart} option=${option} height=${HEIGHT} label=${label} onChart=${onChart} />
    <p class="note" data-price>${n ? `${drawn}; ${shown} marked.` : "No candles in this span."}${described} ${HOW}</p>`;
}

/** The minutes whose order of events is unknown, with what filled in them. */
function unknown({ ambiguous, fills }) {
  if (!ambiguous.length) return "";
  const first = ambiguous.slice(0, AMBIGUOUS_SHOWN).map((t) => {
    const filled = fills.filter((fill) => fill.t === t && fill.ambiguous).map((fill) => fill.what);
    return `${minute(t)} (${filled.join(", ")})`;
  });
  const more = ambiguous.length > first.length ? ` and ${count(ambiguous.length - first.length)} more` : "";
  return ` Ambiguous: ${first.join("; ")}${more}.`;
}

/** Orders and levels as lines; fills of ambiguous minutes as rings. */
function orderSeries(orders, c) {
  if (!orders) return [];
  const style = ({ key, kind, side }) => ({
    color: key === "liquidation" ? c.down : kind === "level" ? c.muted : side > 0 ? c.up : c.down,
    type: kind === "level" ? "dotted" : kind === "stop" ? "dashed" : "solid",
    width: 1.3,
    opacity: 0.9,
  });
  const lines = orders.lines.map((line) => {
    const price = float(line.price);
    return { coords: [[line.start_ms, price], [line.end_ms, price]], lineStyle: style(line) };
  });
  const rings = orders.fills
    .filter((fill) => fill.ambiguous)
    .map((fill) => ({ value: [fill.t + HALF_MINUTE, float(fill.price)] }));
  return [
    { name: "orders", type: "lines", coordinateSystem: "cartesian2d", data: lines, silent: true, z: 3 },
    {
      name: "ambiguous",
      type: "scatter",
      data: rings,
      symbol: "circle",
      symbolSize: 18,
      silent: true,
      z: 6,
      itemStyle: { color: "transparent", borderColor: c.down, borderWidth: 1.5 },
    },
  ];
}

/** Entries by side, exits by outcome, and a line between them where there are few. */
function marksOf({ items }, [from, to]) {
  const inside = (ms) => ms >= from && ms < to;
  const kinds = { long: [], short: [], won: [], lost: [], lines: [] };
  for (const trade of items) {
    const entry = [trade.entry_ms + HALF_MINUTE, float(trade.entry_price)],
      exit = [trade.exit_ms + HALF_MINUTE, float(trade.exit_price)];
    if (inside(trade.entry_ms)) kinds[trade.side > 0 ? "long" : "short"].push({ value: entry, trade });
    if (inside(trade.exit_ms)) kinds[trade.pnl > 0 ? "won" : "lost"].push({ value: exit, trade });
    kinds.lines.push({ coords: [entry, exit], trade });
  }
  return kinds;
}

function tradeTip(trade, c) {
  const color = trade.pnl > 0 ? c.up : c.down;
  return tip(`${trade.side > 0 ? "long" : "short"}, ${minute(trade.entry_ms)}`, [
    [null, "entry", exact(trade.entry_price)],
    [null, "exit", exact(trade.exit_price)],
    [null, "until", minute(trade.exit_ms)],
    [color, "profit", money(trade.pnl)],
    [null, "ended by", trade.reason],
  ]);
}

/** A tooltip of the axis hides those of single marks: the trade under the pointer is kept in `hovered`. */
function watchTrades(chart, hovered) {
  const enter = ({ data }) => {
    hovered.current = data?.trade ?? null;
  };
  const leave = () => {
    hovered.current = null;
  };
  chart.on("mouseover", { seriesType: "scatter" }, enter);
  chart.on("mouseout", { seriesType: "scatter" }, leave);
  return () => {
    chart.off("mouseover", enter);
    chart.off("mouseout", leave);
  };
}

function optionOf(c, width, candles, marks, [from, to], hovered, orders) {
  const narrow = width < NARROW,
    left = narrow ? 56 : 70,
    half = candles.minutes * HALF_MINUTE;
  const count_ = (to - from) / (candles.minutes * 60_000);
  const candleWidth = Math.max(1, Math.min(14, Math.floor(((width - left - 12) / Math.max(count_, 1)) * 0.72)));
  const bars = candles.t.map((t, k) => [
    t + half,
    ...["open", "close", "low", "high"].map((name) => float(candles[name][k])),
  ]);
  const up = candles.t.map((_, k) => candles.close[k] >= candles.open[k]);
  const volumes = candles.t.map((t, k) => ({
    value: [t + half, Number(candles.volume[k])],
    itemStyle: { color: up[k] ? c.up : c.down },
  }));
  const size = narrow ? 7 : marks.lines.length > 60 ? 8 : 11;
  const points = (name, data, symbol, color, rotate = 0, by = 0) => ({
    name,
    type: "scatter",
    data,
    symbol,
    symbolRotate: rotate,
    symbolSize: size,
    symbolOffset: [0, by],
    z: 5,
    itemStyle: { color, borderColor: c.paper, borderWidth: symbol === CROSS ? 0 : 1 },
  });
  const x = timeAxis(from, to, width);
  const described = (found) => {
    if (hovered.current) return tradeTip(hovered.current, c);
    const k = found.find((part) => part.seriesType === "candlestick")?.dataIndex;
    if (k === undefined) return "";
    const rows = ["open", "high", "low", "close"].map((key) => [null, key, exact(candles[key][k])]);
    const volume = Number(candles.volume[k]) / Number(candles.volume_scale);
    return tip(
      minute(candles.t[k]),
      [...rows, [null, "volume", axisNumber(volume)]],
      `a candle of ${bucket(candles.minutes)}`,
    );
  };
  return {
    grid: [
      { left, right: 12, top: 12, bottom: 92 },
      { left, right: 12, height: 46, bottom: 30 },
    ],
    xAxis: [
      { ...x, gridIndex: 0, axisLabel: { show: false } },
      { ...x, gridIndex: 1, splitLine: { show: false } },
    ],
    yAxis: [
      { type: "value", scale: true, gridIndex: 0, axisLabel: { formatter: axisNumber }, splitNumber: 5 },
      { type: "value", gridIndex: 1, axisLabel: { show: false }, splitLine: { show: false } },
    ],
    tooltip: { trigger: "axis", formatter: described, axisPointer: { type: "line", lineStyle: { color: c.muted } } },
    axisPointer: { link: [{ xAxisIndex: "all" }] },
    series: [
      {
        name: "price",
        type: "candlestick",
        data: bars,
        barWidth: candleWidth,
        encode: { x: 0, y: [1, 2, 3, 4] },
        dimensions: ["t", "open", "close", "low", "high"],
        itemStyle: { color: c.up, color0: c.down, borderColor: c.up, borderColor0: c.down, borderWidth: 1 },
      },
      {
        name: "volume",
        type: "bar",
        xAxisIndex: 1,
        yAxisIndex: 1,
        data: volumes,
        barWidth: candleWidth,
        itemStyle: { opacity: 0.5 },
        silent: true,
      },
      {
        name: "held",
        type: "lines",
        coordinateSystem: "cartesian2d",
        data: marks.lines.length > 120 ? [] : marks.lines,
        silent: true,
        z: 4,
        lineStyle: { color: c.ink, width: 1.1, type: "dotted", opacity: 0.8 },
      },
      points("long", marks.long, "triangle", c.up, 0, "60%"),
      points("short", marks.short, "triangle", c.down, 180, "-60%"),
      points("won", marks.won, "circle", c.up),
      points("lost", marks.lost, CROSS, c.down),
      ...orderSeries(orders, c),
    ],
  };
}

const CROSS = "path://M0 2 L2 0 L6 4 L10 0 L12 2 L8 6 L12 10 L10 12 L6 8 L2 12 L0 10 L4 6 Z";
