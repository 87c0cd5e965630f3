// A result's figures as rows of names and values.
import { count, exact, money, percent, share } from "../format.js";
import { label, shown } from "../metrics.js";

export const metricRows = (result) =>
  Object.entries(result.metrics ?? {}).map(([name, v]) => [label(name), shown(name, v, result.spec?.sizing)]);

/** Liquidations, and the price at which the position that is open at the end would be liquidated. */
const marginRows = (r) =>
  (r.spec?.margin ?? "none") === "none"
    ? []
    : [
        ["liquidations", count(r.liquidations)],
        ["liquidation price", exact(r.liquidation_price)],
      ];

/** The sums that are in every result, in two named parts. */
export function sumRows(r) {
  return [
    [
      "Account",
      [
        ["days", count(r.days)],
        ["capital", money(r.capital)],
        ["gross profit", money(r.gross_profit)],
        ["gross loss", money(r.gross_loss)],
        ["fees", money(r.fees)],
        ["funding", money(r.funding)],
        ["turnover", money(r.turnover)],
      ],
    ],
    [
      "Trades",
      [
        ["trades", count(r.trades)],
        ["won", `${count(r.wins)}${r.trades ? `, ${percent(share(r.wins, r.trades))}` : ""}`],
        ["fills", count(r.fills)],
        ["unfilled", count(r.unfilled)],
        ["bars with a position", count(r.exposure_bars)],
        ["held over gaps", count(r.trades_over_gaps)],
        ["ambiguous bars", count(r.ambiguous_bars)],
        ...marginRows(r),
      ],
    ],
  ];
}
