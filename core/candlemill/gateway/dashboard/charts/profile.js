// How a run came to its profit: histogram of trades, their worst and best moments, rolling Sharpe ratio, symbols' shares.
import { html, useCallback } from "../lib.js";
import { count, day, float, money, plural, ratio, value } from "../format.js";
import { shown } from "../metrics.js";
import { useColors } from "../theme.js";
import { Chart, Legend, NARROW, axisNumber, timeAxis, tip } from "./chart.js";

const HEIGHT = 260;
const leftOf = (width) => (width < NARROW ? 52 : 64);
const AXIS = { type: "value", axisLabel: { formatter: axisNumber } };

/** `data` is the histogram of …/profile. */
export function Histogram({ data }) {
  const option = useCallback(
    (c, width) => {
      const edges = data.counts.map((_, k) => (data.first + k) * data.width);
      const mark = (x, type) => ({ xAxis: float(x), lineStyle: { color: c.ink, type, width: 1.4 } });
      return {
        grid: { left: leftOf(width), right: 24, top: 12, bottom: 44 },
        xAxis: { ...AXIS, name: "profit of a trade, after costs", nameLocation: "middle", nameGap: 28,
          min: edges[0], max: edges.at(-1) + data.width, splitNumber: 5, splitLine: { show: false },
          axisLabel: { ...AXIS.axisLabel, showMinLabel: false, showMaxLabel: false } }, // no round numbers
        yAxis: { ...AXIS, minInterval: 1 },
        tooltip: {
          trigger: "axis",
          axisPointer: { type: "shadow" },
          formatter: ([{ dataIndex: k }]) => {
            const [a, b] = [edges[k], edges[k] + data.width].map((x) => axisNumber(Number(x.toPrecision(4))));
            return tip(`${a} to ${b}`, [[edges[k] >= 0 ? c.up : c.down, "trades", count(data.counts[k])]]);
          },
        },
        series: [
          {
            type: "bar",
            barWidth: "92%",
            data: edges.map((x, k) => ({
              value: [x + data.width / 2, data.counts[k]],
              itemStyle: { color: x >= 0 ? c.up : c.down },
            })),
            markLine: {
              symbol: "none",
              silent: true,
              label: { show: false },
              data: [mark(data.mean, "dashed"), mark(data.median, "dotted")],
            },
          },
        ],
      };
    },
    [data],
  );
  const total = data.counts.reduce((a, b) => a + b, 0);
  const label = `Histogram of the profits of ${plural(total, "trade")}: mean ${money(data.mean)}, median ${money(data.median)}`;
  return html`<${Chart} option=${option} height=${HEIGHT} label=${label} />`;
}

/** `data` are the excursions of …/profile; `moment` is `mae` or `mfe`. */
export function Moments({ data, moment, name }) {
  const colors = useColors();
  const option = useCallback(
    (c, width) => {
      const points = (won) =>
        data.pnl
          .map((pnl, k) => [float(data[moment][k]), float(pnl), k])
          .filter(([, pnl]) => (won ? pnl > 0 : pnl <= 0));
      const cloud = (title, won, color) => ({
        name: title,
        type: "scatter",
        data: points(won),
        symbol: won ? "circle" : "diamond",
        symbolSize: 6,
        itemStyle: { color, opacity: 0.65 },
      });
      return {
        grid: { left: leftOf(width), right: 24, top: 12, bottom: 44 },
        xAxis: { ...AXIS, name, nameLocation: "middle", nameGap: 28, splitNumber: 4, scale: true },
        yAxis: { ...AXIS, splitNumber: 4, scale: true },
        tooltip: {
          trigger: "item",
          formatter: ({ data: [, , k] }) =>
            tip(data.side[k] > 0 ? "long" : "short", [
              [null, "worst moment", money(data.mae[k])],
              [null, "best moment", money(data.mfe[k])],
              [data.pnl[k] > 0 ? c.up : c.down, "profit", money(data.pnl[k])],
            ]),
        },
        series: [cloud("won", true, c.up), cloud("lost", false, c.down)],
      };
    },
    [data, moment],
  );
  const items = [
    [colors.up, "won", "dot"],
    [colors.down, "lost", "diamond"],
  ];
  return html`<${Legend} items=${items} />
    <${Chart} option=${option} height=${HEIGHT} label="Profit of each trade by the ${name}" />`;
}

/** `data` is the answer of …/profile, `whole` the Sharpe ratio of all days. */
export function Rolling({ data, whole }) {
  const option = useCallback(
    (c, width) => ({
      grid: { left: leftOf(width), right: 24, top: 12, bottom: 30 },
      xAxis: timeAxis(data.t[0], data.t.at(-1), width),
      yAxis: { ...AXIS, splitNumber: 4 },
      tooltip: {
        trigger: "axis",
        formatter: ([{ dataIndex: k }]) => tip(day(data.t[k]), [[c.line, "Sharpe ratio", ratio(data.sharpe[k])]]),
      },
      series: [
        {
          type: "line",
          data: data.t.map((t, k) => [t, float(data.sharpe[k])]),
          showSymbol: false,
          lineStyle: { color: c.line, width: 1.6 },
          itemStyle: { color: c.line },
          markLine: {
            symbol: "none",
            silent: true,
            label: { show: false },
            data: [{ yAxis: float(whole), lineStyle: { color: c.ink, type: "dashed", width: 1.2 } }],
          },
        },
      ],
    }),
    [data, whole],
  );
  return html`<${Chart} option=${option} height=${HEIGHT}
    label="Sharpe ratio of the last ${data.window} days, of all days ${shown("sharpe_ratio", whole)}" />`;
}

/** `rows` of [name, money]: what each contributed, the largest first. */
export function Contributions({ rows }) {
  const option = useCallback(
    (c, width) => {
      const left = Math.min(24 + 8 * Math.max(...rows.map(([name]) => name.length)), width * 0.4);
      return {
        grid: { left, right: 20, top: 6, bottom: 30 },
        xAxis: { ...AXIS, splitNumber: width < NARROW ? 3 : 6 },
        yAxis: { type: "category", inverse: true, data: rows.map(([name]) => name), splitLine: { show: false } },
        tooltip: {
          trigger: "axis",
          axisPointer: { type: "shadow" },
          formatter: ([{ dataIndex: k }]) =>
            tip(value(rows[k][0]), [[rows[k][1] > 0 ? c.up : c.down, "profit", money(rows[k][1])]]),
        },
        series: [
          {
            type: "bar",
            barMaxWidth: 22,
            data: rows.map(([, pnl]) => ({ value: float(pnl), itemStyle: { color: pnl > 0 ? c.up : c.down } })),
          },
        ],
      };
    },
    [rows],
  );
  const label = `Profit by symbol: ${rows.map(([name, pnl]) => `${name} ${money(pnl)}`).join(", ")}`;
  return html`<${Chart} option=${option} height=${44 + 28 * rows.length} label=${label} />`;
}
