// A figure of every set of a sweep, over two of its parameters (or over one: bars). A cell can be opened.
import { html, useCallback, useState } from "../lib.js";
import { float, value } from "../format.js";
import { kind, label, shown, smallerIsBetter } from "../metrics.js";
import { between, useColors } from "../theme.js";
import { Chart, NARROW, axisNumber, tip } from "./chart.js";

const ROW = 28, LEAST = 190, MOST = 580, EDGES = 52;

const range = (data) => {
  const values = data.z.flat().filter((z) => z !== null).map(float);
  const low = Math.min(...values), high = Math.max(...values);
  const ends = values.map(Math.abs).sort((a, b) => a - b);
  const reach = ends[Math.floor((ends.length - 1) * 0.97)] || 1;
  return { low, high, signed: low < 0, reach };
};

/** Colours from the worst to the best: two-sided around zero where there are losses. */
function scale(colors, data, metric) {
  const { low, high, signed, reach } = range(data);
  if (signed) return { min: -reach, max: reach, colors: [colors.down, colors.paper, colors.up] };
  const strong = smallerIsBetter(metric) ? colors.down : colors.up;
  return { min: low, max: high > low ? high : low + 1, colors: [between(colors.paper, strong, 0.06), strong] };
}

export const nameOf = (data, i, j) =>
  [[data.x, i], [data.y, j]].filter(([axis]) => axis.name).map(([axis, k]) => `${axis.name} ${value(axis.values[k])}`).join(", ");

/** `data` is the answer of …/heatmap; `onOpen(id)` gets the job of a cell's set. */
export function HeatMap({ data, metric, sizing, onOpen }) {
  const colors = useColors();
  const [at, setAt] = useState(null);
  const [nx, ny] = [data.x.values.length, data.y.values.length];
  const flat = ny === 1;
  const text = (i, j) => shown(metric, data.z[j][i], sizing);
  const option = useCallback((c, width) => (flat ? barsOf : cellsOf)(c, width, data, metric, sizing, at), [data, metric, sizing, at?.[0], at?.[1]]);
  const onChart = useCallback((chart) => {
    const open = (found) => {
      const [i, j] = flat ? [found.dataIndex, 0] : found.value;
      if (data.job_ids[j][i]) onOpen(data.job_ids[j][i]);
    };
    chart.on("click", open);
    return () => chart.off("click", open);
  }, [data, onOpen]);
  const focus = (event) => { // by the keyboard: drawing again under a mouse button would take its click away
    if (event.target.matches(":focus-visible")) setAt((old) => old ?? best(data, metric));
  };
  const press = (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const [i, j] = at ?? best(data, metric);
    if (event.key in steps) {
      const [dx, dy] = at ? steps[event.key] : [0, 0];
      setAt([Math.min(Math.max(i + dx, 0), nx - 1), Math.min(Math.max(j + dy, 0), ny - 1)]);
    } else if (event.key === "Enter" && data.job_ids[j][i]) onOpen(data.job_ids[j][i]);
    else if (event.key === "Escape") setAt(null);
    else return;
    event.preventDefault();
  };
  const { min, max, colors: ramp } = scale(colors, data, metric);
  const height = flat ? 280 : Math.min(Math.max(ny * ROW, LEAST), MOST) + EDGES;
  const says = at && (data.z[at[1]][at[0]] === null ? `${nameOf(data, ...at)}: none` : `${nameOf(data, ...at)}: ${label(metric)} ${text(...at)}. Enter opens its run.`);
  return html`
    <div tabindex="0" role="application" aria-roledescription="heat map" onKeyDown=${press} onFocus=${focus}
      onBlur=${() => setAt(null)} aria-label="${label(metric)} by ${[data.x.name, data.y.name].filter(Boolean).join(" and ")}: arrow keys move, Enter opens a set's run" data-heat>
      <${Chart} option=${option} height=${height} label="heat map" role="presentation" onChart=${onChart} />
    </div>
    <div class="cell">
      ${!flat && html`<span class="choices muted" aria-hidden="true" style="gap:6px;font-size:12.5px">${axisShown(metric, min, sizing)}
        <i style="width:150px;height:10px;border-radius:5px;background:linear-gradient(90deg,${ramp.join(",")})"></i>${axisShown(metric, max, sizing)}</span>`}
      <span aria-live="polite" class="muted" style="font-size:13px">${says ?? "A click on a cell opens that set's run; so do the arrow keys and Enter."}</span>
    </div>`;
}

function best(data, metric) {
  const low = smallerIsBetter(metric);
  let found = [0, 0], top = null;
  data.z.forEach((row, j) => row.forEach((z, i) => {
    if (z !== null && (top === null || (low ? z < top : z > top))) { top = z; found = [i, j]; }
  }));
  return found;
}

const axisShown = (metric, x, sizing) => (kind(metric, sizing) === "count" ? axisNumber(Math.round(x * 1e8)) : kind(metric, sizing) === "share" ? `${axisNumber(x * 100)}%` : axisNumber(x));

/** Short enough for a cell. */
function brief(metric, scaled, sizing) {
  if (scaled === null) return "";
  const x = float(scaled), what = kind(metric, sizing);
  if (what === "count") return String(scaled);
  if (what === "share") return `${(x * 100).toFixed(Math.abs(x) < 0.1 ? 1 : 0)}%`;
  const size = Math.abs(x);
  if (size < 0.005) return "0.00";
  if (size >= 1e6) return `${(x / 1e6).toFixed(1)}M`;
  if (size >= 1e4) return `${(x / 1e3).toFixed(size >= 1e5 ? 0 : 1)}k`;
  return size >= 100 ? x.toFixed(0) : x.toFixed(2);
}

function axes(c, width, data) {
  const name = (axis) => ({ name: axis.name ?? "", nameLocation: "middle", data: axis.values.map(value), type: "category" });
  const left = Math.min(20 + 8 * Math.max(...data.y.values.map((v) => value(v).length), 1), 90) + 14;
  return {
    left,
    x: { ...name(data.x), nameGap: 26, splitLine: { show: false } },
    y: { ...name(data.y), nameGap: left - 18, splitLine: { show: false } },
  };
}

function cellsOf(c, width, data, metric, sizing, at) {
  const { left, x, y } = axes(c, width, data);
  const [nx, ny] = [data.x.values.length, data.y.values.length];
  const { min, max, colors } = scale(c, data, metric);
  const cells = data.z.flatMap((row, j) => row.map((z, i) => (z === null ? null : { value: [i, j, float(z)] }))).filter(Boolean);
  const room = (width - left - 12) / nx, tall = Math.min(Math.max(ny * ROW, LEAST), MOST) / ny;
  const gap = Math.min(room, tall) > 9 ? 1 : 0;
  const strong = (v) => Math.abs(v - (min < 0 ? 0 : min)) / (min < 0 ? max : max - min) > 0.62;
  return {
    grid: { left, right: 4, top: 8, bottom: 44 },
    xAxis: x, yAxis: y,
    tooltip: {
      trigger: "item",
      formatter: ({ value: [i, j] }) => tip(nameOf(data, i, j), [[null, label(metric), shown(metric, data.z[j][i], sizing)]], "click to open its run"),
    },
    visualMap: { type: "continuous", show: false, min, max, seriesIndex: 0, dimension: 2, inRange: { color: colors } },
    series: [
      {
        type: "heatmap", data: cells, cursor: "pointer", progressive: 0,
        itemStyle: { borderColor: c.paper, borderWidth: gap, borderRadius: gap * 2 },
        label: {
          show: room >= (width < NARROW ? 40 : 44) && tall >= 17, fontSize: 12,
          formatter: ({ value: [i, j, v] }) => (strong(v) ? `{on|${brief(metric, data.z[j][i], sizing)}}` : brief(metric, data.z[j][i], sizing)),
          color: c.ink, rich: { on: { color: c.paper, fontSize: 12 } },
        },
        emphasis: { itemStyle: { borderColor: c.ink, borderWidth: 1 } },
      },
      {
        type: "heatmap", data: at ? [[...at, 0]] : [], silent: true, z: 6,
        itemStyle: { color: "rgba(0,0,0,0)", borderColor: c.ink, borderWidth: 2.5, borderRadius: 2 },
      },
    ],
  };
}

function barsOf(c, width, data, metric, sizing, at) {
  const { left, x } = axes(c, width, data);
  const row = data.z[0];
  return {
    grid: { left: Math.max(left, 66), right: 12, top: 14, bottom: 44 },
    xAxis: x,
    yAxis: { type: "value", axisLabel: { formatter: (v) => axisShown(metric, kind(metric, sizing) === "count" ? v / 1e8 : v, sizing) } },
    tooltip: {
      trigger: "axis", axisPointer: { type: "shadow" },
      formatter: ([{ dataIndex: i }]) => tip(nameOf(data, i, 0), [[null, label(metric), shown(metric, row[i], sizing)]], "click to open its run"),
    },
    series: [{
      type: "bar", cursor: "pointer", barMaxWidth: 60, data: row.map((z, i) => ({
        value: z === null ? null : kind(metric, sizing) === "count" ? Number(z) : float(z),
        itemStyle: {
          color: Number(z) >= 0 && !smallerIsBetter(metric) ? c.up : c.down,
          ...(at?.[0] === i ? { borderColor: c.ink, borderWidth: 2.5 } : {}),
        },
      })),
    }],
  };
}
