// Every day of a symbol: complete, with minutes missing, or not there.
import { html, useCallback, useMemo, useRef, useState } from "../lib.js";
import { count } from "../format.js";
import { between, useColors } from "../theme.js";
import { Chart, Cursor, Legend, NARROW, tip } from "./chart.js";

const FULL = 1440; // minutes of a day
const TALL = 16,
  STEP = 7 * TALL + 34; // pixels of a day, of a year
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const KEYS = {
  ArrowLeft: -7,
  ArrowRight: 7,
  ArrowUp: -1,
  ArrowDown: 1,
  PageUp: -28,
  PageDown: 28,
  Home: -1e6,
  End: 1e6,
};
const GRADES = ["complete", "up to an hour missing", "more missing", "nothing stored"];

const gradeOf = ({ rows, missing }) => (!rows ? 3 : !missing ? 0 : missing <= 60 ? 1 : 2);
const ramp = (c) => [
  between(c.paper, c.up, 0.62),
  between(c.paper, c.other, 0.5),
  c.other,
  between(c.paper, c.down, c.dark ? 0.55 : 0.42),
];
const described = (d) =>
  d.rows ? `${count(d.rows)} candles, ${d.missing ? `${count(d.missing)} missing` : "none missing"}` : "nothing stored";
const yearOf = (d) => d.day.slice(0, 4);

/** `days` are {day, rows, missing}, one for each day from the first candle's to the last one's. */
export function Calendar({ symbol, days }) {
  const colors = useColors();
  const [at, setAt] = useState(null);
  const { years, empty, shown } = useMemo(() => {
    const all = [...new Set(days.map(yearOf))],
      filled = new Set(days.filter((d) => d.rows).map(yearOf));
    return {
      years: all.filter((y) => filled.has(y)),
      empty: all.filter((y) => !filled.has(y)),
      shown: days.filter((d) => filled.has(yearOf(d))),
    };
  }, [days]);
  const option = useCallback((c, width) => optionOf(c, width, shown, years), [shown]);
  const chart = useRef(null);
  const onChart = useCallback((found) => {
    chart.current = found;
    return () => {
      chart.current = null;
    };
  }, []);
  const focus = (event) => {
    if (event.target.matches(":focus-visible")) setAt((old) => old ?? shown.length - 1);
  };
  const press = (event) => {
    if (!(event.key in KEYS)) return;
    event.preventDefault();
    setAt(Math.min(Math.max((at ?? 0) + KEYS[event.key], 0), shown.length - 1));
  };
  return html`<${Legend} items=${ramp(colors).map((color, k) => [color, GRADES[k], "square"])} />
    <div tabindex="0" role="application" aria-roledescription="calendar"
      aria-label="days of ${symbol}: arrow keys go from day to day" onKeyDown=${press}
      onFocus=${focus} onBlur=${() => setAt(null)} data-calendar>
      <${Chart} option=${option} height=${years.length * STEP + 2} role="presentation" onChart=${onChart}>
        ${at !== null && chart.current && html`<${Cursor} ...${dayAt(chart.current, shown[at], years)} />`}
      </${Chart}>
    </div>
    <p class="note" aria-live="polite">${
      at === null
        ? `Arrow keys go from day to day.${empty.length ? ` Nothing is stored of ${empty.join(", ")}.` : ""}`
        : `${shown[at].day}: ${described(shown[at])}`
    }</p>`;
}

const leftOf = (width) => (width < NARROW ? 26 : 44);
const wideOf = (width) => Math.min((width - leftOf(width) - 2) / 54, 20);

/** Where a day is. */
const dayAt = (chart, d, years) => ({
  center: chart.convertToPixel({ calendarIndex: years.indexOf(yearOf(d)) }, d.day),
  size: [wideOf(chart.getWidth()), TALL],
});

function optionOf(c, width, days, years) {
  const narrow = width < NARROW;
  const colors = ramp(c);
  const cells = (k) =>
    days
      .filter((d) => yearOf(d) === years[k])
      .map((d) => ({ value: [d.day, d.rows / FULL], of: d, itemStyle: { color: colors[gradeOf(d)] } }));
  return {
    tooltip: { trigger: "item", formatter: ({ data }) => tip(data.of.day, [[null, described(data.of), ""]]) },
    calendar: years.map((year, k) => ({
      range: year,
      top: k * STEP + 22,
      left: leftOf(width),
      cellSize: [wideOf(width), TALL],
      orient: "horizontal",
      splitLine: { lineStyle: { color: c.muted, width: 1, opacity: 0.45 } },
      itemStyle: { color: "transparent", borderColor: c.paper, borderWidth: 1 },
      yearLabel: { color: c.ink, fontSize: narrow ? 11 : 13, fontWeight: 600, margin: narrow ? 5 : 10 },
      monthLabel: { nameMap: narrow ? MONTHS.map((m) => m[0]) : MONTHS, color: c.muted, fontSize: 11 },
      dayLabel: { show: false },
    })),
    series: years.map((_, k) => ({
      type: "heatmap",
      coordinateSystem: "calendar",
      calendarIndex: k,
      progressive: 0,
      data: cells(k),
      itemStyle: { borderColor: c.paper, borderWidth: narrow ? 0.5 : 1 },
    })),
    visualMap: { show: false, min: 0, max: 1, seriesIndex: [], inRange: { opacity: 1 } },
  };
}
