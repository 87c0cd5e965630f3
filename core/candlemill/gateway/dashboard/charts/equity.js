// Profit beside buying and holding, and the drawdown below it.
import { html, useCallback, useMemo } from "../lib.js";
import { float, minute, money } from "../format.js";
import { useColors } from "../theme.js";
import { Chart, Legend, NARROW, axisNumber, timeAxis, tip } from "./chart.js";
import { dragToZoom } from "./drag.js";

const HEIGHT = 400;
const NO_FOLDS = []; // one, or each drawing of the page would draw the chart too

/** `data` is the answer of …/equity for the span [from, to]; `folds` of a walk-forward are shaded. */
export function Equity({ data, span, onSpan, onAll, folds = NO_FOLDS }) {
  const colors = useColors();
  const lines = useMemo(() => {
    const pairs = (values) => broken(data, values.map((value, k) => [data.t[k], float(value), k]));
    return { equity: pairs(data.equity), drawdown: pairs(data.drawdown), hold: pairs(data.benchmark ?? []) };
  }, [data]);
  const option = useCallback((c, width) => optionOf(c, width, data, lines, span, folds), [data, lines, folds, span[0], span[1]]);
  const zoom = useCallback((chart, box) => dragToZoom(chart, box, span, onSpan, onAll), [span[0], span[1], onSpan]);
  const items = [
    [colors.line, "strategy"],
    ...(lines.hold.length ? [[colors.other, "buy and hold"]] : []),
    [colors.down, "drawdown"],
  ];
  const last = data.equity.length - 1;
  const label =
    last < 0
      ? "Equity: no bars in this span"
      : `Equity from ${minute(data.t[0])} to ${minute(data.t[last])}: profit ${money(data.equity[0])} to ` +
        `${money(data.equity[last])}, deepest drawdown ${money(data.drawdown.reduce((a, b) => (b < a ? b : a)))}`;
  return html`<${Legend} items=${items} /><${Chart} option=${option} height=${HEIGHT} label=${label}
    onChart=${zoom} />`;
}

/** The points of a line with a point without a value before each break: where candles are missing, the line ends. */
export function broken({ t, breaks = [] }, points) {
  if (!breaks.length || !points.length) return points;
  const ends = new Set(breaks);
  return points.flatMap((point, k) => (ends.has(k) ? [[t[k], null, k], point] : [point]));
}

/** Every other fold of a walk-forward, shaded. */
const shading = (c, folds) =>
  folds.length < 2
    ? {}
    : {
        markArea: {
          silent: true,
          itemStyle: { color: c.fold },
          data: folds.filter((_, k) => k % 2).map((fold) => [{ xAxis: fold.test_start }, { xAxis: fold.test_end }]),
        },
      };

/** Whether a line has no height, for which an axis has no scale of its own. */
const flat = (points) => points.every(([, y]) => !y);

function optionOf(c, width, data, lines, [from, to], folds) {
  const narrow = width < NARROW;
  const left = narrow ? 56 : 70;
  const x = timeAxis(from, to, width);
  const y = { type: "value", axisLabel: { formatter: axisNumber }, splitNumber: 4 };
  const line = (name, values, color, more = {}) => ({
    name,
    type: "line",
    data: values,
    showSymbol: false,
    lineStyle: { color, width: 1.6 },
    itemStyle: { color },
    emphasis: { disabled: true },
    silent: true,
    ...more,
  });
  const described = (found) => {
    const k = found[0].data[2];
    return tip(minute(data.t[k]), [
      [c.line, "strategy", money(data.equity[k])],
      ...(lines.hold.length ? [[c.other, "buy and hold", money(data.benchmark[k])]] : []),
      [c.down, "drawdown", money(data.drawdown[k])],
    ]);
  };
  return {
    grid: [
      { left, right: 12, top: 14, height: 232 },
      { left, right: 12, top: 274, height: 98 },
    ],
    xAxis: [
      { ...x, gridIndex: 0, axisLabel: { show: false } },
      { ...x, gridIndex: 1 },
    ],
    yAxis: [
      { ...y, gridIndex: 0, scale: true, ...(flat(lines.equity) && flat(lines.hold) ? { min: -1, max: 1 } : {}) },
      { ...y, gridIndex: 1, max: 0, splitNumber: 2, ...(flat(lines.drawdown) ? { min: -1, interval: 1, axisLabel: { formatter: (v) => (v ? "" : "0") } } : {}) },
    ],
    axisPointer: { link: [{ xAxisIndex: "all" }], lineStyle: { color: c.muted, width: 1 } },
    tooltip: { trigger: "axis", formatter: described },
    series: [
      ...(lines.hold.length
        ? [line("buy and hold", lines.hold, c.other, { lineStyle: { color: c.other, width: 1.1 } })]
        : []),
      line("strategy", lines.equity, c.line, shading(c, folds)),
      line("drawdown", lines.drawdown, c.down, {
        xAxisIndex: 1,
        yAxisIndex: 1,
        areaStyle: { color: c.loss, origin: 0 },
        lineStyle: { color: c.down, width: 1 },
      }),
    ],
  };
}
