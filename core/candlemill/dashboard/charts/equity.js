// Profit beside buying and holding, and the drawdown below it.
import { html, useCallback, useMemo } from "../lib.js";
import { float, minute, money } from "../format.js";
import { useColors } from "../theme.js";
import { Chart, Legend, NARROW, axisNumber, timeAxis, tip } from "./chart.js";
import { dragToZoom } from "./drag.js";

const HEIGHT = 400;

/** `data` is the answer of …/equity for the span [from, to]. */
export function Equity({ data, span, onSpan, onAll }) {
  const colors = useColors();
  const lines = useMemo(() => {
    const pairs = (values) => values.map((value, k) => [data.t[k], float(value)]);
    return { equity: pairs(data.equity), drawdown: pairs(data.drawdown), hold: pairs(data.benchmark ?? []) };
  }, [data]);
  const option = useCallback((c, width) => optionOf(c, width, data, lines, span), [data, lines, span[0], span[1]]);
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

function optionOf(c, width, data, lines, [from, to]) {
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
  const told = (found) => {
    const k = found[0].dataIndex;
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
      { ...y, gridIndex: 0, scale: true },
      { ...y, gridIndex: 1, max: 0, splitNumber: 2 },
    ],
    axisPointer: { link: [{ xAxisIndex: "all" }], lineStyle: { color: c.muted, width: 1 } },
    tooltip: { trigger: "axis", formatter: told },
    series: [
      ...(lines.hold.length
        ? [line("buy and hold", lines.hold, c.other, { lineStyle: { color: c.other, width: 1.1 } })]
        : []),
      line("strategy", lines.equity, c.line),
      line("drawdown", lines.drawdown, c.down, {
        xAxisIndex: 1,
        yAxisIndex: 1,
        areaStyle: { color: c.loss, origin: 0 },
        lineStyle: { color: c.down, width: 1 },
      }),
    ],
  };
}
