// A chart in the page: ECharts, loaded when the first one is drawn, in the page's colours and width.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../lib.js";
import { useColors } from "../theme.js";

let loading;
const library = () => (loading ??= import("../vendor/echarts.js"));

/** Load the library before it is needed, when the browser has nothing else to do. */
export const preload = () => (window.requestIdleCallback ?? setTimeout)(() => library());

export const NARROW = 520;

/** `option(colors, width)` makes the chart's option; another function draws it again. `onChart(chart, box)` is called
 * with the chart when it is there, and returns what undoes that. `children` lie over the chart. */
export function Chart({ option, height, label, onChart, role = "img", children }) {
  const box = useRef(null),
    chart = useRef(null);
  const [ready, setReady] = useState(false);
  const [width, setWidth] = useState(0);
  const [failed, setFailed] = useState(false);
  const colors = useColors();
  useLayoutEffect(() => {
    const watch = new ResizeObserver(([entry]) => setWidth(Math.round(entry.contentRect.width)));
    watch.observe(box.current);
    return () => watch.disconnect();
  }, []);
  useEffect(() => {
    let gone = false;
    library().then(
      (echarts) => {
        if (gone) return;
        chart.current = echarts.init(box.current, null, { renderer: "canvas" });
        setReady(true);
      },
      () => setFailed(true),
    );
    return () => {
      gone = true;
      chart.current?.dispose();
      chart.current = null;
    };
  }, []);
  useEffect(() => {
    if (!ready || !width) return;
    chart.current.resize();
    chart.current.setOption(styled(option(colors, width), colors), { notMerge: true });
    box.current.dataset.drawn = "1";
  }, [ready, option, colors, width, height]);
  useEffect(() => (ready && onChart ? onChart(chart.current, box.current) : undefined), [ready, onChart]);
  return html`<div class="chart" style="height:${height}px" role=${role} aria-label=${label}>
    <div class="canvas" ref=${box}></div>
    ${failed && html`<p class="failed">the chart could not be loaded</p>`}
    ${children}
  </div>`;
}

function styled(option, colors) {
  const tooltip = option.tooltip && {
    confine: true,
    backgroundColor: colors.paper,
    borderColor: colors.grid,
    borderWidth: 1,
    padding: [7, 10],
    textStyle: { color: colors.ink, fontFamily: colors.font, fontSize: 12.5 },
    transitionDuration: 0,
    extraCssText: "box-shadow:0 4px 14px rgba(0,0,0,.16)",
    ...option.tooltip,
  };
  const grids = [].concat(option.grid).map((grid) => ({ outerBoundsMode: "none", ...grid }));
  const axes = (given) => [].concat(given ?? []).map((axis) => axisOf(axis, colors));
  return {
    animation: false,
    useUTC: true,
    textStyle: { fontFamily: colors.font, color: colors.ink },
    ...option,
    ...(option.grid ? { grid: grids } : {}),
    ...(tooltip ? { tooltip } : {}),
    xAxis: axes(option.xAxis),
    yAxis: axes(option.yAxis),
  };
}

const axisOf = (axis, colors) => ({
  ...axis,
  axisLine: { show: false, ...axis.axisLine },
  axisTick: { show: false, ...axis.axisTick },
  axisLabel: { color: colors.muted, fontSize: 11.5, hideOverlap: true, margin: 9, ...axis.axisLabel },
  splitLine: { show: true, lineStyle: { color: colors.grid }, ...axis.splitLine },
  nameTextStyle: { color: colors.muted, fontSize: 11.5, ...axis.nameTextStyle },
});

/** Numbers on an axis: 12,000 or 0.00003. */
export const axisNumber = (x) =>
  Math.abs(x) >= 1 || x === 0 ? x.toLocaleString("en", { maximumFractionDigits: 2 }) : String(+x.toPrecision(3));

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

const MINUTE = 60_000,
  DAY = 86_400_000;
const EQUAL = [1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720].map((n) => n * MINUTE).concat([1, 2, 4, 7, 14].map((n) => n * DAY));
const MONTHLY = [1, 3, 6, 12, 24, 60, 120];
const MONTH = 30.4 * DAY;

/** The times to name from `from` to `to`, at least `least` ms apart: whole minutes, hours, days, months or years. */
function datesOf(from, to, least) {
  const step = EQUAL.find((one) => one >= least);
  const found = [];
  if (step) {
    const shift = step === 7 * DAY || step === 14 * DAY ? 4 * DAY : 0; // weeks begin on Mondays
    for (let t = Math.ceil((from - shift) / step) * step + shift; t <= to; t += step) found.push(t);
    return { found, name: step < DAY ? clock : day };
  }
  const many = MONTHLY.find((n) => n * MONTH >= least) ?? MONTHLY.at(-1);
  const first = new Date(from);
  for (let k = Math.floor((first.getUTCFullYear() * 12 + first.getUTCMonth()) / many) * many; ; k += many) {
    const t = Date.UTC(Math.floor(k / 12), k % 12);
    if (t > to) break;
    if (t >= from) found.push(t);
  }
  return { found, name: many < 12 ? month : year };
}

const year = (ms) => String(new Date(ms).getUTCFullYear());
const month = (ms) => `${MONTHS[new Date(ms).getUTCMonth()]} ${year(ms)}`;
const day = (ms) => `${new Date(ms).getUTCDate()} ${MONTHS[new Date(ms).getUTCMonth()]}`;
const clock = (ms) => (ms % DAY ? new Date(ms).toISOString().slice(11, 16) : day(ms));

const DATE_WIDTH = 60; // pixels that a date needs, with the room around it

/** An axis of times from `from` to `to`, for a chart of `width` pixels: dates at equal distances. */
export function timeAxis(from, to, width) {
  const { found, name } = datesOf(from, to, ((to - from) * DATE_WIDTH) / Math.max(width - DATE_WIDTH, DATE_WIDTH));
  const end = to - ((to - from) * 16) / width; // a name there would be cut
  return {
    type: "time",
    min: from,
    max: to,
    axisTick: { customValues: found },
    axisLabel: { formatter: name, customValues: found.filter((t) => t <= end) },
  };
}

/** What a tooltip shows, without any markup: a title, and rows of [colour or null, name, value]. */
export function tip(title, rows, foot = "") {
  const make = (name, text = "", parent = null) => {
    const node = document.createElement(name);
    node.textContent = text;
    parent?.append(node);
    return node;
  };
  const box = make("div");
  box.className = "tip";
  make("b", title, box);
  const table = make("table", "", box);
  for (const [color, name, value] of rows) {
    const row = make("tr", "", table),
      head = make("th", "", row);
    if (color) make("i", "", head).style.background = color;
    head.append(name);
    make("td", value, row);
  }
  if (foot) make("div", foot, box).className = "muted";
  return box;
}

/** A frame around what the keyboard is at: `center` and `size` in pixels of the chart. */
export function Cursor({ center: [x, y], size: [wide, tall] }) {
  const place = { left: x - wide / 2 - 2, top: y - tall / 2 - 2, width: wide + 4, height: tall + 4 };
  const style = Object.entries(place).map(([name, value]) => `${name}:${value.toFixed(1)}px`);
  return html`<div class="cursor" style=${style.join(";")}></div>`;
}

export const Legend = ({ items }) => html`<ul class="legend" aria-hidden="true">
  ${items.map(
    ([color, text, shape]) =>
      html`<li key=${text}>${
        shape
          ? html`<svg viewBox="0 0 12 12"><path d=${SHAPES[shape]} fill=${shape === "cross" ? "none" : color}
            stroke=${color} stroke-width=${shape === "cross" ? 2.4 : 0} /></svg>`
          : html`<i style="background:${color}"></i>`
      }${text}</li>`,
  )}
</ul>`;

const SHAPES = {
  up: "M6 1 L11 11 L1 11 Z",
  down: "M6 11 L11 1 L1 1 Z",
  dot: "M6 2 a4 4 0 1 0 .01 0 Z",
  cross: "M2 2 L10 10 M10 2 L2 10",
  diamond: "M6 1 L11 6 L6 11 L1 6 Z",
  square: "M1 1 H11 V11 H1 Z",
};
