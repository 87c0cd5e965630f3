"""The reference against examples computed by hand from the specification."""

from pathlib import Path
from typing import Any

from reference.candles import DAY, MINUTE, SCALE, Bar, cut_candles, k_bars, read, scaled
from reference.units import run_units

T0 = 19_000 * DAY


def bars(*rows: tuple[int, ...], start: int = T0) -> list[Bar]:
    """Candles of consecutive minutes: (open, high, low, close) or one price for all four."""
    out = []
    for i, row in enumerate(rows):
        open_, high, low, close = row if len(row) == 4 else row * 4
        out.append(Bar(start + i * MINUTE, open_, high, low, close, 10**12))
    return out


def fills(result: dict[str, Any]) -> list[tuple[str, str, int, int]]:
    return [(fill.stage, fill.key, fill.after, fill.raw) for fill, _ in result["events"]]


class TestCandles:
    def test_decimal_text_is_exact(self) -> None:
        assert scaled("0.00000798") == 798
        assert scaled("1e2") == 100 * SCALE

    def test_last_duplicate_counts(self) -> None:
        assert cut_candles([Bar(T0, 1, 1, 1, 1), Bar(T0, 2, 2, 2, 2)]) == [Bar(T0, 2, 2, 2, 2)]

    def test_k_bars_of_the_minutes_present(self) -> None:
        rows = [Bar(T0 + m * MINUTE, 10 + m, 20 + m, 5 + m, 11 + m, 1) for m in (0, 1, 4, 11)]
        assert k_bars(rows, 5) == [
            (Bar(T0, 10, 24, 5, 15, 3), 2),
            (Bar(T0 + 10 * MINUTE, 21, 31, 16, 22, 1), 3),
        ]

    def test_microseconds_and_header(self, tmp_path: Path) -> None:
        path = tmp_path / "x.csv"
        path.write_text(f"open_time,open,high,low,close,volume\n{T0 * 1000},1,2,0.5,1.5,7,0\n")
        assert read(path) == [Bar(T0, SCALE, 2 * SCALE, SCALE // 2, 3 * SCALE // 2, 7 * SCALE)]


class TestUnits:
    def test_fees_of_a_cheap_coin(self) -> None:
        """1,000,000 coins at 0.00000798: a fee of 1,000 ppm on 7.98 is 0.00798."""
        result = run_units(bars((798,), (798,), (798,), (798,)), "buy_and_hold", {"quantity": 10**6 * SCALE})
        assert result["fees"] == scaled("0.00798")
        assert result["total_pnl"] == -scaled("0.00798")
        assert (result["fills"], result["trades"], result["open_position"]) == (1, 0, 1)

    def test_rebate_of_a_ppm(self) -> None:
        result = run_units(bars((798,), (798,)), "buy_and_hold", {"quantity": 10**6 * SCALE, "fee": -1})
        assert result["fees"] == -scaled("0.00000798")
        assert result["total_pnl"] == scaled("0.00000798")

    def test_still_price_does_not_stop(self) -> None:
        """A 1 % stop at 0.00000090 is one tick below, not at the entry."""
        result = run_units(bars((90,), (90,), (90,), (90,)), "buy_and_hold", {"stop_loss": 10_000})
        assert fills(result) == [("open", "target", 10**6, 90)]
        result = run_units(bars((90,), (90,), (90, 90, 89, 90)), "buy_and_hold", {"stop_loss": 10_000})
        assert fills(result)[1] == ("range", "stop", 0, 89)

    def test_slippage_rounds_away(self) -> None:
        result = run_units(bars((90,), (90,)), "buy_and_hold", {"slippage": 1, "fee": 0})
        assert result["events"][0][0].price == 91
        assert result["total_pnl"] == -1

    def test_open_beyond_the_target_comes_first(self) -> None:
        """Entry 1000, stop 990, target 1010; the next bar opens at 1020 and falls to 900: exit at 1020."""
        rules = {"stop_loss": 10_000, "take_profit": 10_000, "fee": 0}
        result = run_units(bars((1000,), (1000,), (1020, 1020, 900, 900)), "buy_and_hold", rules)
        assert fills(result)[1] == ("open", "take", 0, 1020)
        assert result["ambiguous_bars"] == 0
        assert result["total_pnl"] == 20

    def test_bar_that_touches_both_loses(self) -> None:
        rules = {"stop_loss": 10_000, "take_profit": 10_000, "fee": 0}
        rows = bars((1000,), (1000,), (1000, 1015, 985, 1000))
        worst = run_units(rows, "buy_and_hold", rules)
        assert (fills(worst)[1], worst["ambiguous_bars"]) == (("range", "stop", 0, 990), 1)
        assert fills(run_units(rows, "buy_and_hold", {**rules, "path": "best"}))[1] == ("range", "take", 0, 1010)

    def test_gap_through_the_stop(self) -> None:
        result = run_units(bars((1000,), (1000,), (950, 1100, 940, 1000)), "buy_and_hold", {"stop_loss": 10_000})
        assert fills(result)[1] == ("open", "stop", 0, 950)

    def test_stop_on_the_entry_bar_is_at_the_level(self) -> None:
        """A slip of 5 % and a stop of 1 %: entry 1050, stop 1039, above the open of 1000; it exits at the level."""
        rules = {"stop_loss": 10_000, "slippage": 50_000, "fee": 0}
        result = run_units(bars((1000,), (1000,)), "buy_and_hold", rules)
        assert fills(result)[1] == ("open", "stop", 0, 1039)
        assert result["events"][1][0].price == 1039 - 52

    def test_locked_until_the_decision_changes(self) -> None:
        rows = bars((1000,), (1000, 1000, 900, 900), (900,), (900,), (900,), (900,))
        result = run_units(rows, [1, 1, 1, 0, 1, 1], {"stop_loss": 10_000})
        assert fills(result) == [
            ("open", "target", 10**6, 1000),
            ("range", "stop", 0, 990),
            ("open", "target", 10**6, 900),
        ]

    def test_reversal_is_two_fills(self) -> None:
        result = run_units(bars((1000,), (1000,), (1100,)), [1, -1, -1], {"fee": 1_000})
        assert [fill.after for fill, _ in result["events"]] == [10**6, 0, -(10**6)]
        # Fees 1.0 + 1.1 + 1.1 at prices of 1000 and 1100 units of 10^-8: 3.2, rounded down once.
        assert result["fees"] == 3
        assert result["total_pnl"] == 96  # 100 - 3.2
        assert (result["trades"], result["wins"], result["gross_profit"]) == (1, 1, 97)  # 100 - 2.1

    def test_fill_at_the_close(self) -> None:
        """The bar of entry has had its check: its low does not stop, its high is not the best price."""
        rows = bars((1000, 2000, 500, 1000), (1000, 1000, 995, 1000), (1000,))
        result = run_units(rows, "buy_and_hold", {"fill": "close", "trailing_stop": 10_000})
        assert fills(result) == [("close", "target", 10**6, 1000)]

    def test_trailing_stop_moves_after_the_bar(self) -> None:
        rows = bars((1000,), (1000, 1200, 995, 1200), (1200, 1200, 1180, 1190))
        result = run_units(rows, "buy_and_hold", {"trailing_stop": 10_000})
        assert fills(result)[1] == ("range", "stop", 0, 1188)

    def test_take_pays_the_maker_fee(self) -> None:
        rows = bars((10_000,), (10_000,), (10_000, 10_200, 10_000, 10_000))
        result = run_units(rows, "buy_and_hold", {"take_profit": 10_000, "fee": 0, "maker_fee": 10_000})
        assert result["fees"] == 101

    def test_funding_is_exact_and_paid_before_the_open(self) -> None:
        """Held over the instant: 1 · 999 · 0.005 = 4.995; a position opened in the bar pays nothing."""
        rows = bars((999,), (999,), (999,), (999,))
        result = run_units(
            rows, "buy_and_hold", {"fee": 0, "funding": [(T0 + MINUTE, 9), (T0 + 2 * MINUTE - 1, 500_000)]}
        )
        assert result["funding"] == 4
        assert result["total_pnl"] == -5

    def test_funding_of_the_last_quantity(self) -> None:
        """Linear in the quantity: 1,000 units pay 4,995."""
        rows = bars((999,), (999,), (999,))
        rules = {"fee": 0, "quantity": 1000 * SCALE, "funding": [(T0 + 2 * MINUTE, 500_000)]}
        assert run_units(rows, "buy_and_hold", rules)["funding"] == 4995

    def test_daily_profits_and_sharpe(self) -> None:
        rows = [Bar(T0 + d * DAY, p, p, p, p) for d, p in enumerate((100, 100, 103, 104))]
        result = run_units(rows, "buy_and_hold", {"fee": 0, "quantity": SCALE})
        assert [profit for _, profit in result["daily_profits"]] == [0, 0, 3, 1]
        # mean 1, deviation √((1 + 1 + 4 + 0) / 3) = √2: √(365 / 2) = 13.509256...
        assert result["sharpe_ratio"] == 1_350_925_609
        assert result["sortino_ratio"] == 0
        assert result["missing_minutes"] == 3 * 1439

    def test_timeframe(self) -> None:
        """Decisions at the last minute present of five; the fill at the next minute's open."""
        rows = [Bar(T0 + m * MINUTE, *[100 + m] * 4) for m in (0, 1, 2, 7, 8, 11)]
        result = run_units(rows, "buy_and_hold", {"timeframe": 5})
        assert fills(result) == [("open", "target", 10**6, 107)]

    def test_volume_share(self) -> None:
        rows = [Bar(T0 + m * MINUTE, 100, 100, 100, 100, 5 * SCALE) for m in range(3)]
        result = run_units(rows, "buy_and_hold", {"volume_share": 100_000, "fee": 0})
        assert result["events"][0][1] == SCALE // 2
        assert run_units(rows, "buy_and_hold", {"volume_share": 0})["unfilled"] == 1
