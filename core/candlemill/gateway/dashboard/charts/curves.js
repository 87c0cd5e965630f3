// The equity of several jobs as a share of each one's capital.
import { html, useCallback } from "../lib.js";
import { day, minute, range } from "../format.js";
import { useColors } from "../theme.js";
import { titleOf } from "../views/job_setup.js";
import { broken } from "./equity.js";
import { Chart, Legend, NARROW, axisNumber, timeAxis, tip } from "./chart.js";

const LIGHT = ["#2563c9", "#a66a00", "#0b7d6b", "#c7362f", "#7c4dbd", "#4f6d8a", "#b0448d", "#5d7a00"];
const DARK = ["#6aa5ff", "#e3b355", "#41c7ac", "#ff8177", "#b794f4", "#9db4cc", "#f08cc8", "#b5cf5a"];

export const curveColors = (colors) => (colors.dark ? DARK : LIGHT);

const text = (share) => `${share >= 0 ? "+" : ""}${(share * 100).toFixed(Math.abs(share) < 1 ? 2 : 1)}%`;

export function Curves({ jobs }) {
  const colors = useColors(),
    palette = curveColors(colors);
  const option = useCallback((c, width) => optionOf(c, width, jobs), [jobs.map((j) => j.id).join()]);
  const lines = jobs.map(lineOf);
  const ends = jobs.map((j, k) => `${titleOf(j.job)} ${text(lines[k].at(-1)?.[1] ?? 0)}`);
  const label = `Equity of ${jobs.length} jobs as a share of their capital: ${ends.join("; ")}`;
  const ranges = jobs.map((j) => range(j.job.spec.start, j.job.spec.end));
  return html`<${Legend} items=${jobs.map((j, k) => [palette[k], `${titleOf(j.job)} · ${j.id.slice(0, 8)}`])} />
    <${Chart} option=${option} height=${380} label=${label} />
    ${new Set(ranges).size > 1 && html`<p class="note">Their ranges differ: ${ranges.join("; ")}.</p>`}`;
}

function lineOf({ job, equity }) {
  const capital = Number((job.result.result ?? job.result).capital);
  return broken(
    equity,
    equity.t.map((t, k) => [t, Number(equity.equity[k]) / capital]),
  );
}

function optionOf(c, width, jobs) {
  const palette = curveColors(c),
    lines = jobs.map(lineOf);
  const from = Math.min(...lines.map((line) => line[0]?.[0] ?? Infinity)),
    to = Math.max(...lines.map((line) => line.at(-1)?.[0] ?? 0));
  const at = (line, ms) => {
    // the last value known then
    let low = 0,
      high = line.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (line[middle][0] <= ms) low = middle + 1;
      else high = middle;
    }
    return low ? line[low - 1][1] : null;
  };
  const described = ([{ axisValue }]) =>
    tip(
      to - from > 60 * 86_400_000 ? day(axisValue) : minute(axisValue),
      jobs.map((j, k) => {
        const value = at(lines[k], axisValue);
        return [palette[k], j.id.slice(0, 8), value === null ? "–" : text(value)];
      }),
    );
  return {
    grid: { left: width < NARROW ? 48 : 60, right: 12, top: 14, bottom: 30 },
    xAxis: timeAxis(from, to, width),
    yAxis: { type: "value", scale: true, axisLabel: { formatter: (v) => `${axisNumber(+(v * 100).toFixed(6))}%` } },
    tooltip: { trigger: "axis", formatter: described, axisPointer: { lineStyle: { color: c.muted } } },
    series: lines.map((data, k) => ({
      type: "line",
      data,
      showSymbol: false,
      silent: true,
      lineStyle: { color: palette[k], width: 1.7 },
      itemStyle: { color: palette[k] },
    })),
  };
}
