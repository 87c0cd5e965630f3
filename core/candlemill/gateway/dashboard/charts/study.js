// A study's trials: scores in their order, what explains them, and values beside scores.
import { html, useCallback } from "../lib.js";
import { float, percent, plural, value } from "../format.js";
import { label, scaleOf, shown, smallerIsBetter } from "../metrics.js";
import { useColors } from "../theme.js";
import { Chart, Legend, NARROW, axisNumber, tip } from "./chart.js";

const HEIGHT = 280;
const number = (score, x) => (scaleOf(score) === 1 ? Number(x) : float(x));

/** `trials` of a study; a click opens the job of one. */
export function History({ trials, score, sizing, onOpen }) {
  const colors = useColors();
  const option = useCallback(
    (c, width) => {
      const scored = trials.filter((t) => t.score !== null);
      const points = (state) => scored.filter((t) => t.state === state).map((t) => ({ value: [t.number, number(score, t.score)], trial: t }));
      let top = null;
      const best = [];
      for (const t of scored.filter((one) => one.state === "done")) {
        const better = top === null || (smallerIsBetter(score) ? t.score < top : t.score > top);
        if (better) top = t.score;
        best.push([t.number, number(score, top)]);
      }
      const cloud = (name, state, style) => ({ name, type: "scatter", data: points(state), symbolSize: 7, itemStyle: style });
      return {
        grid: { left: width < NARROW ? 52 : 64, right: 20, top: 12, bottom: 44 },
        xAxis: { type: "value", name: "trial", nameLocation: "middle", nameGap: 26, minInterval: 1, max: Math.max(trials.length - 1, 1),
          splitLine: { show: false } },
        yAxis: { type: "value", scale: true, splitNumber: 4, axisLabel: { formatter: axisNumber } },
        tooltip: {
          trigger: "item",
          formatter: ({ data: { trial } }) =>
            tip(`trial ${trial.number}`, [
              ...Object.entries(trial.point).map(([name, v]) => [null, name, value(v)]),
              [c.line, label(score), shown(score, trial.score, sizing)],
            ]),
        },
        series: [
          { name: "best", type: "line", step: "end", data: best, showSymbol: false, silent: true, lineStyle: { color: c.other, width: 1.6 } },
          cloud("done", "done", { color: c.line, opacity: 0.75 }),
          cloud("pruned", "pruned", { color: "transparent", borderColor: c.muted, borderWidth: 1.4 }),
        ],
      };
    },
    [trials, score],
  );
  const onChart = useCallback(
    (chart) => {
      const open = ({ data }) => data?.trial && onOpen(data.trial.job_id);
      chart.on("click", open);
      return () => chart.off("click", open);
    },
    [onOpen],
  );
  const items = [
    [colors.line, "trial", "dot"],
    [colors.other, "best so far"],
  ];
  return html`<${Legend} items=${items} /><${Chart} option=${option} height=${HEIGHT} onChart=${onChart}
    label="${label(score)} of ${plural(trials.length, "trial")} in their order" />`;
}

/** `shares` by name, from 0 to 1. */
export function Importance({ shares }) {
  const rows = Object.entries(shares);
  const option = useCallback(
    (c, width) => ({
      grid: { left: Math.min(30 + 8 * Math.max(...rows.map(([name]) => name.length)), width * 0.4), right: 46, top: 6, bottom: 30 },
      xAxis: { type: "value", min: 0, max: 1, interval: 0.25, axisLabel: { formatter: (x) => `${Math.round(x * 100)}%` } },
      yAxis: { type: "category", inverse: true, data: rows.map(([name]) => name), splitLine: { show: false } },
      series: [
        {
          type: "bar",
          barMaxWidth: 22,
          silent: true,
          data: rows.map(([, share]) => share),
          itemStyle: { color: c.line },
          label: { show: true, position: "right", color: c.ink, formatter: ({ value: share }) => `${Math.round(share * 100)}%` },
        },
      ],
    }),
    [shares],
  );
  const label = `What explains the scores: ${rows.map(([name, share]) => `${name} ${percent(Math.round(share * 1e8), 0)}`).join(", ")}`;
  return html`<${Chart} option=${option} height=${50 + 32 * rows.length} label=${label} />`;
}

/** A line for each of `trials` over the axes of `space` and the score; `low`: a small score is good. */
export function Parallel({ trials, space, score, low }) {
  const option = useCallback(
    (c, width) => {
      const names = Object.keys(space);
      const scores = trials.map((t) => number(score, t.score));
      const [min, max] = [Math.min(...scores), Math.max(...scores)];
      const text = { color: c.ink, fontSize: 11, backgroundColor: c.paper, padding: [1, 3], borderRadius: 3 }; // above lines
      const axis = (name, k) => ({
        dim: k,
        z: 3,
        name,
        type: "category",
        data: space[name].map(value),
        nameTextStyle: { color: c.ink },
        axisLabel: { ...text, interval: Math.ceil(space[name].length / 8) - 1 },
        axisLine: { lineStyle: { color: c.muted } },
        axisTick: { show: false },
      });
      const last = {
        dim: names.length,
        z: 3,
        name: label(score),
        type: "value",
        min,
        max: max > min ? max : min + 1,
        nameTextStyle: { color: c.ink },
        axisLabel: { ...text, formatter: axisNumber },
        axisLine: { lineStyle: { color: c.muted } },
        splitLine: { show: false },
      };
      const good = low ? [c.line, c.grid] : [c.grid, c.line];
      return {
        parallel: { left: 46, right: width < NARROW ? 60 : 90, top: 34, bottom: 22, axisExpandable: false },
        parallelAxis: [...names.map(axis), last],
        visualMap: { show: false, min, max: max > min ? max : min + 1, dimension: names.length, inRange: { color: good } },
        series: [
          {
            type: "parallel",
            smooth: false,
            silent: true,
            lineStyle: { width: 1.4, opacity: 0.75 },
            data: trials.map((t, k) => [...names.map((name) => value(t.point[name])), scores[k]]),
          },
        ],
      };
    },
    [trials, space, score],
  );
  return html`<${Chart} option=${option} height=${320}
    label="Values of ${plural(trials.length, "trial")} beside their ${label(score)}" />`;
}
