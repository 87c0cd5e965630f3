// What kind of number each figure of a result is, and what it is called: as candlemill/report/metrics_table.py has it.
import { NONE, count, money, percent, ratio } from "./format.js";

const words = (text) => new Set(text.trim().split(/\s+/));

const SHARES = words(`
  return cagr volatility max_drawdown_share value_at_risk expected_shortfall best_day worst_day positive_days win_rate
  exposure buy_and_hold probability loss_probability probabilistic_sharpe deflated_sharpe deflated_sharpe_all worse_half
  loss deeper profitable mean worst plateau level efficiency`);
const MONEY = words(`
  total_pnl max_drawdown gross_profit gross_loss fees funding average_trade average_win average_loss turnover capital`);
const COUNTS = words(`
  trades wins days bars fills longest_drawdown_days exposure_bars ambiguous_bars trades_over_gaps unfilled sets blocks
  splits trials paths missing_minutes minimum_track_days independent_trials rows neighbours seed replicates block_days
  fee break_even_fee slices repaired_slices`);
const NAMES = {
  cagr: "growth a year (CAGR)",
  total_pnl: "profit",
  sharpe_ratio: "Sharpe ratio",
  deflated_sharpe: "deflated Sharpe",
  sortino_ratio: "Sortino ratio",
  calmar_ratio: "Calmar ratio",
  omega_ratio: "Omega ratio",
  value_at_risk: "value at risk, 95%",
  probabilistic_sharpe: "probabilistic Sharpe",
  longest_drawdown_days: "longest drawdown, days",
  max_drawdown_share: "max drawdown, daily",
  positive_days: "days with a profit",
  deflated_sharpe_all: "deflated Sharpe, all trials",
  luck_sharpe: "Sharpe ratio that luck gives",
  rows: "sets looked at",
  fee: "fee, ppm",
  break_even_fee: "break-even fee, ppm",
  block_days: "days in a block",
};
const SMALLER_IS_BETTER = words(
  "max_drawdown max_drawdown_share gross_loss fees fills volatility longest_drawdown_days",
);
const SHOW = { share: percent, money, count, ratio };

export const label = (name) => NAMES[name] ?? name.replaceAll("_", " ");
export const smallerIsBetter = (name) => SMALLER_IS_BETTER.has(name);

/** `share`, `money`, `count` or `ratio`. A compound account's drawdown is a share of its peak. */
export function kind(name, sizing = "fixed") {
  if (name === "max_drawdown" && sizing === "compound") return "share";
  return SHARES.has(name) ? "share" : MONEY.has(name) ? "money" : COUNTS.has(name) ? "count" : "ratio";
}

export function shown(name, value, sizing = "fixed", top = undefined) {
  if (value === null || value === undefined) return NONE;
  if (typeof value !== "number" && typeof value !== "bigint") return String(value);
  return kind(name, sizing) === "money" ? money(value, top ?? value) : SHOW[kind(name, sizing)](value);
}

/** A figure of a result, or of its metrics. */
export const figure = (result, name) => result?.metrics?.[name] ?? result?.[name] ?? null;

/** What a sweep can be sorted by and coloured with. */
export const SORTS = [
  "sharpe_ratio",
  "total_pnl",
  "return",
  "max_drawdown",
  "sortino_ratio",
  "calmar_ratio",
  "profit_factor",
  "win_rate",
  "trades",
  "average_trade",
  "fees",
  "cagr",
  "omega_ratio",
  "recovery_factor",
  "expectancy_ratio",
];
