// How a sweep's figures are drawn: the options of a heat map, and of bars.
import { NONE, float, value } from "../format.js";
import { label, scaleOf, shown, smallerIsBetter, unitOf } from "../metrics.js";
import { NARROW, axisNumber, tip } from "./chart.js";

const ROW = 28; // pixels
const LEAST = 190;
const MOST = 580;
const EDGES = 52; // the axis below

const inside = (rows) => Math.min(Math.max(rows * ROW, LEAST), MOST);
export const heightOf = (rows) => inside(rows) + EDGES;

const range = (data) => {
  const values = data.z
    .flat()
    .filter((z) => z !== null)
    .map(float);
  const low = Math.min(...values),
    high = Math.max(...values);
  return { low, high };
};

/** Colours over all cells: two-sided around zero where figures have both signs, else from pale to strong. */
export function scale(colors, data, metric) {
  const { low, high } = range(data);
  if (low < 0 && high > 0) {
    const reach = Math.max(-low, high);
    return { min: -reach, max: reach, colors: [colors.fall, colors.paper, colors.rise] };
  }
  if (high <= 0) return { min: low, max: high > low ? high : low + 1, colors: [colors.fall, colors.paper] };
  const strong = smallerIsBetter(metric) ? colors.fall : colors.rise;
  return { min: low, max: high > low ? high : low + 1, colors: [colors.paper, strong] };
}

export const nameOf = (data, i, j) =>
  [
    [data.x, i],
    [data.y, j],
  ]
    .filter(([axis]) => axis.name)
    .map(([axis, k]) => `${axis.name} ${value(axis.values[k])}`)
    .join(", ");

/** The best cell, [i, j]. */
export function best(data, metric) {
  const low = smallerIsBetter(metric);
  let found = [0, 0],
    top = null;
  data.z.forEach((row, j) =>
    row.forEach((z, i) => {
      if (z !== null && (top === null || (low ? z < top : z > top))) {
        top = z;
        found = [i, j];
      }
    }),
  );
  return found;
}

const isWhole = (metric) => scaleOf(metric) === 1;

export const axisShown = (metric, x, sizing) =>
  isWhole(metric)
    ? axisNumber(Math.round(x * 1e8))
    : unitOf(metric, sizing) === "share"
      ? `${axisNumber(x * 100)}%`
      : axisNumber(x);

/** Short enough for a cell. */
function brief(metric, scaled, sizing) {
  if (scaled === null) return "";
  if (shown(metric, scaled, sizing) === NONE) return NONE;
  const x = float(scaled),
    share = unitOf(metric, sizing) === "share";
  if (isWhole(metric)) return String(scaled);
  if (share) return `${(x * 100).toFixed(Math.abs(x) < 0.1 ? 1 : 0)}%`;
  const size = Math.abs(x);
  if (size < 0.005) return "0.00";
  if (size >= 1e6) return `${(x / 1e6).toFixed(1)}M`;
  if (size >= 1e4) return `${(x / 1e3).toFixed(size >= 1e5 ? 0 : 1)}k`;
  return size >= 100 ? x.toFixed(0) : x.toFixed(2);
}

function axes(c, width, data) {
  const name = (axis) => ({
    name: axis.name ?? "",
    nameLocation: "middle",
    data: axis.values.map(value),
    type: "category",
  });
  const left = Math.min(20 + 8 * Math.max(...data.y.values.map((v) => value(v).length), 1), 90) + 14;
  return {
    left,
    x: { ...name(data.x), nameGap: 26, splitLine: { show: false } },
    y: { ...name(data.y), nameGap: left - 18, splitLine: { show: false } },
  };
}

/** Where a cell is, or its bar. */
export function cellAt(chart, { x, y }, [i, j]) {
  const grid = chart.getModel().getComponent("grid").coordinateSystem.getRect();
  const [left, top] = chart.convertToPixel({ gridIndex: 0 }, [i, j]);
  const wide = grid.width / x.values.length;
  if (y.values.length === 1) return { center: [left, grid.y + grid.height / 2], size: [wide, grid.height] };
  return { center: [left, top], size: [wide, grid.height / y.values.length] };
}

export function cellsOf(c, width, data, metric, sizing) {
  const { left, x, y } = axes(c, width, data);
  const [nx, ny] = [data.x.values.length, data.y.values.length];
  const { min, max, colors } = scale(c, data, metric);
  const [bi, bj] = best(data, metric);
  const frame = { itemStyle: { borderColor: c.ink, borderWidth: 2, borderRadius: 2 } };
  const cells = data.z
    .flatMap((row, j) =>
      row.map((z, i) => (z === null ? null : { value: [i, j, float(z)], ...(i === bi && j === bj ? frame : {}) })),
    )
    .filter(Boolean)
    .sort((a, b) => ("itemStyle" in a) - ("itemStyle" in b)); // the frame lies over its neighbours
  const room = (width - left - 12) / nx,
    tall = inside(ny) / ny;
  const gap = Math.min(room, tall) > 9 ? 1 : 0;
  return {
    grid: { left, right: 4, top: 8, bottom: 44 },
    xAxis: x,
    yAxis: { ...y, axisLabel: { interval: Math.ceil(15 / tall) - 1 } },
    tooltip: {
      trigger: "item",
      formatter: ({ value: [i, j] }) =>
        tip(nameOf(data, i, j), [[null, label(metric), shown(metric, data.z[j][i], sizing)]], "click to open its run"),
    },
    visualMap: { type: "continuous", show: false, min, max, seriesIndex: 0, dimension: 2, inRange: { color: colors } },
    series: [
      {
        type: "heatmap",
        data: cells,
        cursor: "pointer",
        progressive: 0,
        itemStyle: { borderColor: c.paper, borderWidth: gap, borderRadius: gap * 2 },
        label: {
          show: room >= (width < NARROW ? 40 : 44) && tall >= 17,
          fontSize: 12,
          color: c.ink,
          formatter: ({ value: [i, j] }) => brief(metric, data.z[j][i], sizing),
        },
        emphasis: { itemStyle: { borderColor: c.ink, borderWidth: 1 } },
      },
    ],
  };
}

export function barsOf(c, width, data, metric, sizing) {
  const { left, x } = axes(c, width, data);
  const row = data.z[0];
  const [top] = best(data, metric);
  return {
    grid: { left: Math.max(left, 66), right: 12, top: 14, bottom: 44 },
    xAxis: x,
    yAxis: {
      type: "value",
      axisLabel: { formatter: (v) => axisShown(metric, isWhole(metric) ? v / 1e8 : v, sizing) },
    },
    tooltip: {
      trigger: "axis",
      axisPointer: { type: "shadow" },
      formatter: ([{ dataIndex: i }]) =>
        tip(nameOf(data, i, 0), [[null, label(metric), shown(metric, row[i], sizing)]], "click to open its run"),
    },
    series: [
      {
        type: "bar",
        cursor: "pointer",
        barMaxWidth: 60,
        data: row.map((z, i) => ({
          value: z === null ? null : isWhole(metric) ? Number(z) : float(z),
          itemStyle: {
            color: Number(z) >= 0 && !smallerIsBetter(metric) ? c.up : c.down,
            ...(i === top && z !== null ? { borderColor: c.ink, borderWidth: 2 } : {}),
          },
        })),
      },
    ],
  };
}
