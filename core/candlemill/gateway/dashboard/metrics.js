// The table of metrics: what each figure is called, its unit and which end is good. The server has it.
import { get } from "./api.js";
import { NONE, count, money, percent, rate, ratio } from "./format.js";

let loading = null;
let rows = new Map();

/** To be awaited before anything below is used; asks once, and again after a failure. */
export function loadMetrics() {
  loading ??= get("metrics").then(
    ({ metrics }) => {
      rows = new Map(metrics.map((row) => [row.key, row]));
    },
    (error) => {
      loading = null;
      throw error;
    },
  );
  return loading;
}

const SIDES = { 1: "long", "-1": "short", 0: "none" };
const SHOW = {
  money,
  ratio,
  count,
  share: (value) => percent(value),
  days: (value) => `${count(value)} ${String(value) === "1" ? "day" : "days"}`,
  ppm: rate,
  side: (value) => SIDES[value] ?? String(value),
};

export const label = (name) => rows.get(name)?.label ?? name.replaceAll("_", " ");
export const definition = (name) => rows.get(name)?.definition;
export const smallerIsBetter = (name) => rows.get(name)?.better === "low";
export const isNeutral = (name) => !rows.get(name)?.better;

/** The columns of a table of sets. */
export const mainFigures = () => [...rows.values()].filter((row) => row.main).map((row) => row.key);

/** What a sweep can be sorted by and coloured with. */
export const rankedFigures = () =>
  [...rows.values()].filter((row) => row.place !== "guards" && row.unit !== "side").map((row) => row.key);

/** A figure without a row is a count. A compound account's drawdown is a share of its peak. */
export function unitOf(name, sizing = "fixed") {
  if (name === "max_drawdown" && sizing === "compound") return "share";
  return rows.get(name)?.unit ?? "count";
}

/** How many of a figure's integers make 1. */
export const scaleOf = (name) => rows.get(name)?.scale ?? 1;

/** Ratios that are stored as 0 where they are undefined: without trades, over a single day. */
const NONE_AT_ZERO = ["sharpe_ratio", "sortino_ratio"];
const isNone = (name, value) =>
  value === null || value === undefined || (NONE_AT_ZERO.includes(name) && Number(value) === 0);

/** `top` is the largest size in a column, which decides on the decimals of all of it. */
export function shown(name, value, sizing = "fixed", top = undefined) {
  if (isNone(name, value)) return NONE;
  if (typeof value !== "number" && typeof value !== "bigint") return String(value);
  return SHOW[unitOf(name, sizing)](value, top);
}

/** A figure of a result, or of its metrics. */
export function figure(result, name) {
  const found = result?.metrics?.[name] ?? result?.[name];
  return isNone(name, found) ? null : found;
}
