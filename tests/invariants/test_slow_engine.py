"""The reference itself, pinned by examples that were worked out by hand. The arithmetic stands in the comments."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from slow_engine import DAY, MINUTE, SCALE, Bar, backtest, cut_candles, decision_bars, desired, read_zip, round_root

SPOT = Path(__file__).resolve().parents[3] / "shared" / "data" / "spot"
UPDOWN = {"fast": 1, "slow": 2}  # sma_cross 1/2: +1 exactly when this close is above the one before
BOTH_WAYS = {**UPDOWN, "allow_short": True}


def b(minute: int, o: int, h: int, lo: int, c: int) -> Bar:
    return Bar(minute * MINUTE, o, h, lo, c, 1)


def run(
    bars: list[Bar], strategy: str = "buy_and_hold", params: dict[str, int] | None = None, **more
) -> dict[str, int]:
    """A job over exactly these bars; free of costs unless the example says otherwise."""
    job = {"start": 0, "end": bars[-1].t + MINUTE, "fee": 0, **more}
    return backtest(bars, strategy=strategy, params=params or {}, **job)


def check(result: dict[str, int], **expected: int) -> None:
    assert {key: result[key] for key in expected} == expected


# Closes 1.00, 1.01, 1.03, 1.025, 1.024 million: desired is 0, 1, 1, 0, 0.
ROUND_TRIP = [
    b(0, 1_000_000, 1_000_000, 1_000_000, 1_000_000),
    b(1, 1_000_000, 1_010_000, 1_000_000, 1_010_000),
    b(2, 1_020_000, 1_030_000, 1_020_000, 1_030_000),
    b(3, 1_030_000, 1_030_000, 1_025_000, 1_025_000),
    b(4, 1_024_000, 1_024_000, 1_024_000, 1_024_000),
]


def test_round_trip_at_the_next_open_with_fee_and_slippage():
    result = run(ROUND_TRIP, "sma_cross", UPDOWN, fee=1000, slippage=500, quantity=3 * SCALE // 2)
    # Buy at bar 2's open: 1_020_000 + 510 = 1_020_510; fee 1_020.51.
    # Sell at bar 4's open: 1_024_000 - 512 = 1_023_488; fee 1_023.488.
    # Gain 2_978, profit 2_978 - 2_043.998 = 934.002. Equity 0, 0, 1_030_000 - 1_020_510 - 1_020.51 = 8_469.49,
    # 1_025_000 - 1_021_530.51 = 3_469.49, 934.002; fall 8_469.49 - 934.002 = 7_535.488.
    # Times 1.5, rounded down once: 1_401 (.003), 11_303 (.232), fees 3_065 (.997).
    assert result == {
        "bars": 5,
        "missing_minutes": 0,
        "capital": 1_500_000,
        "total_pnl": 1_401,
        "sharpe_ratio": 0,
        "sortino_ratio": 0,
        "max_drawdown": 11_303,
        "trades": 1,
        "wins": 1,
        "gross_profit": 1_401,
        "gross_loss": 0,
        "fees": 3_065,
        "funding": 0,
        "turnover": 3_065_997,
        "fills": 2,
        "unfilled": 0,
        "exposure_bars": 2,
        "open_position": 0,
        "days": 1,
        "ambiguous_bars": 0,
        "trades_over_gaps": 0,
        "first_open": 1_000_000,
        "last_close": 1_024_000,
        "daily": [1_401],
    }


def test_maker_fees_rebates_and_funding():
    # Buy at 1000, a fee of 1 %: 10. Target 1 %: 1010, a rebate of 0.25 % of it: -2.525. Fees 7.475, profit 2.525.
    bars = [FLAT, b(1, 1000, 1005, 1000, 1001), b(2, 1001, 1015, 1000, 1005)]
    check(run(bars, take_profit=10_000, fee=10_000, maker_fee=-2_500), total_pnl=2, fees=7, wins=1, gross_profit=2)
    # At the target in bar 2 with funding of 0.3 % and 0.2 % before bar 2's open: 0.5 % of 1001 is 5.005.
    funding = [(MINUTE + 1, 300_000), (2 * MINUTE, 200_000)]
    check(run(bars, take_profit=10_000, funding=funding), total_pnl=4, funding=5, gross_profit=4)
    # Nothing for the bar that it is opened in, nor for one after its end.
    check(run(bars, take_profit=10_000, funding=[(MINUTE, SCALE), (2 * MINUTE + 1, SCALE)]), total_pnl=10, funding=0)
    # A short pays -4.995, rounded down -5, and its profit of 4.995 is rounded down to 4. It is sold at bar 2's open and
    # bought back at bar 3's, both at 999.
    falling = [FLAT, b(1, 999, 999, 999, 999), b(2, 999, 999, 999, 999), b(3, 999, 999, 998, 998)]
    check(run(falling, "sma_cross", BOTH_WAYS, funding=[(3 * MINUTE, 500_000)]), funding=-5, total_pnl=4)


def test_a_loss_is_floored_towards_minus_infinity_and_its_magnitude_towards_zero():
    # Buy 1000, marked at 997, closed at 997: -3 per unit. Half of it: -1.5 -> -2; the magnitude 1.5 -> 1.
    bars = [
        b(0, 999, 999, 999, 999),
        b(1, 1000, 1000, 1000, 1000),
        b(2, 1000, 1000, 997, 997),
        b(3, 997, 997, 997, 997),
    ]
    check(
        run(bars, "sma_cross", UPDOWN, quantity=SCALE // 2),
        total_pnl=-2,
        gross_loss=1,
        max_drawdown=1,
        trades=1,
        wins=0,
    )


def test_fill_at_the_close():
    # Desired 0, 1, 1, 0, 0. Buy at bar 1's close: 1_010_000 + 505 = 1_010_505; fee 1_010.505.
    # Sell at bar 3's close: 1_025_000 - 513 (512.5) = 1_024_487; fee 1_024.487.
    # Gain 13_982, profit 13_982 - 2_034.992 = 11_947.008. In position at the marks of bars 1 and 2.
    result = run(ROUND_TRIP, "sma_cross", UPDOWN, fee=1000, slippage=500, fill="close")
    check(
        result, total_pnl=11_947, gross_profit=11_947, fees=2_034, fills=2, trades=1, exposure_bars=2, open_position=0
    )


FLAT = b(0, 1000, 1000, 1000, 1000)  # buy and hold decides here and enters at the open of the next bar


def test_stop_on_the_entry_bar_inside_a_bar_and_over_a_gap():
    # Entry 1000, stop 1 % = 990, touched on the entry bar: exit 990. Locked, so it never enters again.
    entry_bar = [FLAT, b(1, 1000, 1000, 980, 1000), b(2, 1000, 1000, 1000, 1000)]
    check(run(entry_bar, stop_loss=10_000), total_pnl=-10, trades=1, fills=2, exposure_bars=0, open_position=0)
    # With 2 % slippage: entry 1020, stop 1020 - 11 (10.2) = 1009, above the open. On the entry bar the exit is the
    # stop itself, not min(1000, 1009): 1009 - 21 (20.18) = 988. Result 988 - 1020 = -32.
    check(run(entry_bar, stop_loss=10_000, slippage=20_000), total_pnl=-32, trades=1)
    # Inside a later bar: min(open 995, stop 990) = 990.
    inside = [FLAT, b(1, 1000, 1000, 991, 995), b(2, 995, 995, 990, 995)]
    check(run(inside, stop_loss=10_000), total_pnl=-10, trades=1, exposure_bars=1)
    # A later bar opens beyond the stop: exit at its open, 970.
    gap = [FLAT, b(1, 1000, 1000, 991, 995), b(2, 970, 995, 960, 995)]
    check(run(gap, stop_loss=10_000), total_pnl=-30, trades=1, exposure_bars=1)
    # Under fill=close it enters at bar 0's close; bar 1 is not its entry bar any more: exit at the open, 985.
    late = [FLAT, b(1, 985, 1000, 980, 1000)]
    check(run(late, stop_loss=10_000, fill="close"), total_pnl=-15, trades=1, exposure_bars=1)


def test_take_profit():
    # Entry 1000, take 1 % = 1010. On the entry bar: 1010. Later inside a bar: 1010. Opening beyond: the open, 1030.
    check(run([FLAT, b(1, 1000, 1010, 1000, 1005)], take_profit=10_000), total_pnl=10, wins=1)
    quiet = b(1, 1000, 1009, 1000, 1005)
    check(run([FLAT, quiet, b(2, 1005, 1015, 1000, 1005)], take_profit=10_000), total_pnl=10, wins=1)
    check(run([FLAT, quiet, b(2, 1030, 1040, 1000, 1005)], take_profit=10_000), total_pnl=30, wins=1)


def test_a_bar_that_touches_both_loses():
    # Stop 990, take 1010; bar 1 spans 985 .. 1020.
    check(
        run([FLAT, b(1, 1000, 1020, 985, 1000)], stop_loss=10_000, take_profit=10_000),
        total_pnl=-10,
        ambiguous_bars=1,
        trades=1,
    )


def test_the_open_comes_first():
    both = {"stop_loss": 10_000, "take_profit": 10_000}
    quiet = b(1, 1000, 1000, 1000, 1000)
    # Bar 2 opens on or beyond the take of 1010: out at the open, whatever the low of 985 does later.
    check(run([FLAT, quiet, b(2, 1030, 1030, 985, 1000)], **both), total_pnl=30, ambiguous_bars=0, wins=1)
    check(run([FLAT, quiet, b(2, 1010, 1030, 985, 1000)], **both), total_pnl=10, ambiguous_bars=0, wins=1)
    # Under the stop of 990, whatever the high of 1020 does later.
    check(run([FLAT, quiet, b(2, 980, 1020, 980, 1000)], **both), total_pnl=-20, ambiguous_bars=0, trades=1)
    # Between them nothing is known: it loses.
    check(run([FLAT, quiet, b(2, 1009, 1020, 985, 1000)], **both), total_pnl=-10, ambiguous_bars=1, trades=1)
    # A short: sold at bar 2's open of 990, take 10 under it. Bar 3 opens there and rises above the stop of 1000.
    short = [FLAT, b(1, 1000, 1000, 995, 995), b(2, 990, 995, 985, 990), b(3, 980, 1005, 980, 1000)]
    check(run(short, "sma_cross", BOTH_WAYS, **both), total_pnl=10, ambiguous_bars=0, wins=1)
    # The maker's fee is paid, as by every exit at the target: 1 % of 1030 is 10.3.
    check(run([FLAT, quiet, b(2, 1030, 1030, 985, 1000)], **both, maker_fee=10_000), total_pnl=19, fees=10)


def test_a_million_coins_below_a_hundred_thousandth():
    # 1,000,000 coins at 0.00000798: a fill is worth 7.98, its fee of 0.1 % is 0.00798.
    bars = [b(k, 798, 798, 798, 798) for k in range(4)]
    coins = {"quantity": 1_000_000 * SCALE, "fee": 1_000}
    check(run(bars, **coins), fills=1, turnover=798_000_000, fees=798_000, total_pnl=-798_000, max_drawdown=798_000)
    # A rebate of 1 ppm credits 1 ppm; what is less than 10^-8 in all is less than 10^-8.
    check(run(bars, quantity=1_000_000 * SCALE, fee=-1), fees=-798, total_pnl=798, max_drawdown=0)
    check(run(bars, fee=1_000), turnover=798, fees=0, total_pnl=-1, max_drawdown=0)  # 0.798 of 10^-8


def test_a_profit_below_a_unit_is_a_win():
    # In and out at 798 with a rebate of 1 ppm: a profit of 0.001596 of 10^-8 a coin, which is a win with any quantity.
    bars = [b(0, 798, 798, 798, 798), b(1, 798, 799, 798, 799), b(2, 798, 798, 798, 798), b(3, 798, 798, 798, 798)]
    check(run(bars, "sma_cross", UPDOWN, fee=-1), trades=1, wins=1, gross_profit=0, total_pnl=0)
    result = run(bars, "sma_cross", UPDOWN, fee=-1, quantity=1_000_000 * SCALE)
    check(result, trades=1, wins=1, gross_profit=1_596, total_pnl=1_596, fees=-1_596)


def test_distances_are_rounded_away():
    # 90 units and 1 %: a distance of 0.9 is 1. A price that never moves touches neither stop nor target.
    still = [b(k, 90, 90, 90, 90) for k in range(4)]
    for name in ("stop_loss", "take_profit", "trailing_stop"):
        check(run(still, **{name: 10_000}), fills=1, trades=0, open_position=1, total_pnl=0)
        moved = [*still, b(4, 90, 91, 90, 90) if name == "take_profit" else b(4, 90, 90, 89, 90)]
        check(run(moved, **{name: 10_000}), trades=1, total_pnl=1 if name == "take_profit" else -1)
    # Slippage of 1 ppm of 90 units is a unit at each fill; none is none.
    check(run(moved, take_profit=0, slippage=1), total_pnl=-1)
    check(run(moved, take_profit=0, slippage=0), total_pnl=0)


def test_trailing_stop():
    # Trailing 10 %. Bar 1: entry 1000, extreme 1000, stop 900, low 950 holds; then extreme = 1100.
    # Bar 2: stop 990, low 1000 holds (with its own high 1200 taken in first, 1080 would have been hit); extreme = 1200.
    # Bar 3: stop 1080, low 1075: exit min(1150, 1080) = 1080, +80.
    bars = [FLAT, b(1, 1000, 1100, 950, 1090), b(2, 1090, 1200, 1000, 1150), b(3, 1150, 1160, 1075, 1100)]
    check(run(bars, trailing_stop=100_000), total_pnl=80, trades=1, exposure_bars=2)
    # With a fixed stop of 5 % as well, the higher of both counts: 950 on the entry bar, touched by the low of 950.
    check(run(bars, trailing_stop=100_000, stop_loss=50_000), total_pnl=-50, trades=1, exposure_bars=0)
    # The extreme starts from the raw price: slippage 10 % fills at 1100, but the stop is 1000 - 100 = 900, not 990.
    check(run(bars[:2], trailing_stop=100_000, slippage=100_000), trades=0, open_position=1, total_pnl=1090 - 1100)
    # Under fill=close the entry bar's own high (2000) is not taken in: bar 1's stop is 900, low 950 holds.
    late = [b(0, 1000, 2000, 1000, 1000), b(1, 1000, 1100, 950, 1090)]
    check(run(late, trailing_stop=100_000, fill="close"), trades=0, open_position=1, total_pnl=90)


def test_locked_until_desired_changes():
    # Closes 1000 1010 1020 1030 1025 1035 1050: desired 0 1 1 1 0 1 1. Stop 1 %.
    bars = [
        b(0, 1000, 1000, 1000, 1000),
        b(1, 1000, 1010, 1000, 1010),
        b(2, 1010, 1020, 1010, 1020),  # buy 1010, stop 1010 - 11 (10.1) = 999
        b(3, 1020, 1030, 990, 1030),  # out at 999: -11; locked on +1
        b(4, 1030, 1030, 1025, 1025),  # wanted +1 again, but locked
        b(5, 1025, 1036, 1025, 1035),  # previous desired 0: unlocked
        b(6, 1040, 1050, 1040, 1050),  # buy 1040, marked at 1050: +10
    ]
    result = run(bars, "sma_cross", UPDOWN, stop_loss=10_000)
    check(result, total_pnl=-1, trades=1, fills=3, open_position=1, gross_loss=11, exposure_bars=2)
    # fill=close: buy 1010 at bar 1's close, out at 999 on bar 3, bar 3's close is locked, buy 1035 at bar 5's close:
    # -11 + (1050 - 1035) = 4. In position at the marks of bars 1, 2, 5, 6.
    result = run(bars, "sma_cross", UPDOWN, stop_loss=10_000, fill="close")
    check(result, total_pnl=4, trades=1, fills=3, open_position=1, exposure_bars=4)
    # A lock is on one value only: with shorts, bar 4 decides -1, so bar 5 sells at its open, 1025. Its own stop,
    # 1025 + 11 = 1036, is touched on that bar: -11. Bar 6 buys at 1040 for +1: +10. Together -11 - 11 + 10 = -12.
    result = run(bars, "sma_cross", BOTH_WAYS, stop_loss=10_000)
    check(result, total_pnl=-12, trades=2, fills=5, open_position=1)


def test_short_is_the_mirror_image():
    down = [
        b(0, 1_000_000, 1_000_000, 1_000_000, 1_000_000),
        b(1, 1_000_000, 1_000_000, 990_000, 990_000),  # desired -1
        b(2, 980_000, 980_000, 970_000, 970_000),  # sell at 980_000 - 490 = 979_510; fee 979.51
    ]
    costs = {"fee": 1000, "slippage": 500}
    # Take 2 %: 979_510 - 19_591 (19_590.2) = 959_919; bar 3 goes through it: buy at 959_919 + 480 (479.96) = 960_399;
    # fee 960.399. Profit 979_510 - 960_399 - 979.51 - 960.399 = 17_171.091.
    take = [*down, b(3, 965_000, 965_000, 950_000, 955_000)]
    check(run(take, "sma_cross", BOTH_WAYS, take_profit=20_000, **costs), total_pnl=17_171, wins=1, fees=1_939)
    # Stop 1 %: 979_510 + 9_796 (9_795.1) = 989_306; bar 3 opens above it: buy at 1_000_000 + 500; fee 1_000.5.
    # Profit 979_510 - 1_000_500 - 979.51 - 1_000.5 = -22_970.01, rounded down; as a loss 22_970.01.
    stop = [*down, b(3, 1_000_000, 1_000_000, 960_000, 960_000)]
    result = run(stop, "sma_cross", BOTH_WAYS, stop_loss=10_000, **costs)
    check(result, total_pnl=-22_971, gross_loss=22_970, wins=0, ambiguous_bars=0)
    # Both touched after an open between them (the low of 950_000 is under the take of 959_919): it loses. Out at
    # 989_306 + 495 (494.65) = 989_801; fee 989.801. Profit 979_510 - 989_801 - 979.51 - 989.801 = -12_260.311.
    both = [*down, b(3, 965_000, 1_000_000, 950_000, 960_000)]
    result = run(both, "sma_cross", BOTH_WAYS, stop_loss=10_000, take_profit=20_000, **costs)
    check(result, total_pnl=-12_261, ambiguous_bars=1)
    # Trailing 10 %, no costs: sell 980_000; low 900_000 makes the stop 990_000 on the next bar: -10_000.
    trail = [*down[:2], b(2, 980_000, 980_000, 900_000, 910_000), b(3, 910_000, 995_000, 905_000, 905_000)]
    check(run(trail, "sma_cross", BOTH_WAYS, trailing_stop=100_000), total_pnl=-10_000, trades=1, exposure_bars=1)
    # With a fixed stop of 1 % as well (989_800), the lower of both counts: -9_800.
    result = run(trail, "sma_cross", BOTH_WAYS, trailing_stop=100_000, stop_loss=10_000)
    check(result, total_pnl=-9_800, trades=1, exposure_bars=1)
    # Take 2 % without costs: 960_400. A low on the level touches it; a bar that opens beyond leaves at its open.
    for bar, gain in (
        (b(3, 970_000, 970_000, 960_400, 965_000), 19_600),
        (b(3, 950_000, 970_000, 940_000, 965_000), 30_000),
    ):
        check(run([*down, bar], "sma_cross", BOTH_WAYS, take_profit=20_000), total_pnl=gain, wins=1)
    # On the entry bar the exit is the stop itself. Slippage 2 %: sell 980_000 - 19_600 = 960_400, stop 1 % = 970_004,
    # under the open of 980_000; buy at 970_004 + 19_401 (19_400.08) = 989_405: 960_400 - 989_405 = -29_005.
    result = run(down, "sma_cross", BOTH_WAYS, stop_loss=10_000, slippage=20_000)
    check(result, total_pnl=-29_005, trades=1, exposure_bars=0)


def test_a_reversal_is_two_fills():
    bars = [
        b(0, 1_000_000, 1_000_000, 1_000_000, 1_000_000),
        b(1, 1_000_000, 1_010_000, 1_000_000, 1_010_000),  # desired +1
        b(2, 1_010_000, 1_010_000, 1_000_000, 1_000_000),  # buy 1_010_000, fee 1_010; desired -1
        b(3, 1_000_000, 1_000_000, 990_000, 990_000),  # sell twice at 1_000_000, fee 1_000 each
    ]
    # Trade: -10_000 - 1_010 - 1_000 = -12_010. Equity -10_000 - 3_010 + 10_000 (open short) = -3_010.
    # Bar 2's equity is -10_000 - 1_010 = -11_010, the deepest under the starting peak of 0.
    check(
        run(bars, "sma_cross", BOTH_WAYS, fee=1000),
        total_pnl=-3_010,
        gross_loss=12_010,
        max_drawdown=11_010,
        fees=3_010,
        fills=3,
        trades=1,
        exposure_bars=2,
        open_position=-1,
    )


def daily_closes(closes: list[int]) -> list[Bar]:
    """One bar a day that opens where the one before closed: buy and hold earns each day's difference from day 1 on."""
    opens = [closes[0], *closes]
    return [Bar(d * DAY, o, max(o, c), min(o, c), c, 1) for d, (o, c) in enumerate(zip(opens, closes, strict=False))]


def test_ratios_round_half_to_even():
    assert [round_root(1, n, 4) for n in (1, 9, 25, 49)] == [0, 2, 2, 4]  # roots 0.5, 1.5, 2.5, 3.5
    assert [round_root(-1, n, 4) for n in (1, 9, 25, 49)] == [0, -2, -2, -4]
    assert round_root(1, 25 * 10**40 + 1, 4 * 10**40) == 3  # a hair above 2.5

    # Daily profits 0, +20, -10: n 3, sum 10, squares 500. Variance (500 - 100/3) / 2 = 700/3, mean 10/3:
    # Sharpe^2 = (100/9) / (700/3) * 365 = 365/21 = 17.380952..., root 4.169046944...
    # Mean squared negative 100/3: Sortino^2 = (100/9) / (100/3) * 365 = 365/3 = 121.666..., root 11.030261405...
    result = run(daily_closes([100, 120, 110]))
    check(result, days=3, total_pnl=10, missing_minutes=2 * 1439, trades_over_gaps=1)
    check(result, sharpe_ratio=416_904_694, sortino_ratio=1_103_026_141)

    # 365 days, one of them a profit of x: mean x/365, variance (x^2 - x^2/365) / 364 = x^2/365, so Sharpe is exactly 1.
    start = 10**9
    check(run(daily_closes([start] + [start + 7] * 364)), days=365, sharpe_ratio=SCALE, trades_over_gaps=1)
    # 365 days, one +(u + s), one -u: Sortino = (s/365) / sqrt(u^2/365) * sqrt(365) = s/u.
    # With u = 2 * 10^8 and an odd s it ends in .5.
    u = 2 * SCALE
    for s, rounded in ((1, 0), (3, 2), (5, 2), (7, 4), (-1, 0), (-3, -2), (-5, -2)):
        check(run(daily_closes([start, start + u + s] + [start + s] * 363)), days=365, sortino_ratio=rounded)

    # A single day, or no variation, has no Sharpe. Two equal days: Sharpe 0, no loss, Sortino 0.
    check(run(daily_closes([100])), sharpe_ratio=0, sortino_ratio=0)
    bars = [b(0, 100, 100, 100, 100), b(1, 100, 110, 100, 110), Bar(DAY, 110, 120, 110, 120, 1)]  # +10, +10
    check(run(bars), days=2, total_pnl=20, sharpe_ratio=0, sortino_ratio=0)


def test_k_bars_with_gaps():
    bars = [
        b(0, 100, 101, 99, 100),
        b(1, 100, 106, 98, 105),  # decides 0: the first k-bar (minutes 0, 1)
        b(3, 107, 110, 107, 110),  # decides +1: minute 2 is missing, 3 is the last of its k-bar; 110 > 105
        b(4, 109, 112, 90, 90),  # the decision stands (no k-bar ends here); buys at 109
        b(5, 91, 111, 91, 111),  # decides +1: 111 > 110
        b(8, 100, 100, 100, 100),  # decides 0: its k-bar (8, 9) is cut by the end of the job; 100 < 111
    ]
    assert decision_bars(bars, 2) == [
        (Bar(0, 100, 106, 98, 105, 2), 1),
        (Bar(2 * MINUTE, 107, 110, 107, 110, 1), 2),
        (Bar(4 * MINUTE, 109, 112, 90, 111, 2), 4),
        (Bar(8 * MINUTE, 100, 100, 100, 100, 1), 5),
    ]
    # Next open: 109 at minute 4, still open at the end, marked at 100: -9. Held over minutes 6 and 7.
    result = run(bars, "sma_cross", UPDOWN, timeframe=2)
    check(
        result, bars=6, missing_minutes=3, total_pnl=-9, fills=1, open_position=1, exposure_bars=3, trades_over_gaps=1
    )
    # At the close: buys 110 at minute 3. At minute 8 nobody knows yet that its k-bar is over: no fill.
    result = run(bars, "sma_cross", UPDOWN, timeframe=2, fill="close")
    check(result, total_pnl=-10, fills=1, open_position=1, exposure_bars=4, trades=0)
    # A later candle tells it: sold at its open.
    result = run([*bars, b(12, 95, 99, 90, 91)], "sma_cross", UPDOWN, timeframe=2, fill="close")
    check(result, total_pnl=-15, fills=2, open_position=0, exposure_bars=4, trades=1, trades_over_gaps=1)
    # On minutes: desired 0 1 1 0 1 0. Buys 107 at minute 3 (flat over minute 2), sells 91 at minute 5: -16;
    # buys 100 at minute 8 after the gap: 0. No position was held over a gap.
    check(run(bars, "sma_cross", UPDOWN), total_pnl=-16, fills=3, open_position=1, trades_over_gaps=0)


def test_positions_over_gaps_are_counted_once_each():
    # Closes 10 11 12 12 13 13 13 at minutes 0 1 3 5 6 8 9: desired 0 1 1 0 1 0 0. The first position is bought at
    # minute 3 (12) and sold at minute 6 (12), held over minute 4; the second is bought at 8 and sold at 9 (both 13).
    # A profit of exactly 0 is not a win.
    at = [(0, 10), (1, 11), (3, 12), (5, 12), (6, 13), (8, 13), (9, 13)]
    bars = [b(minute, c, c, c, c) for minute, c in at]
    bars[4] = b(6, 12, 13, 12, 13)
    result = run(bars, "sma_cross", UPDOWN)
    check(result, missing_minutes=3, trades=2, wins=0, gross_loss=0, total_pnl=0, trades_over_gaps=1)
    # With the last bar at minute 11 the second is held over a gap too.
    result = run([*bars[:-1], b(11, 13, 13, 13, 13)], "sma_cross", UPDOWN)
    check(result, missing_minutes=5, trades=2, trades_over_gaps=2)
    # One position over two gaps: bought at minute 3, held over 4 and over 6.
    held = [*bars[:3], b(5, 12, 13, 12, 13), b(7, 13, 14, 13, 14)]
    check(run(held, "sma_cross", UPDOWN), trades=0, open_position=1, trades_over_gaps=1)


def closes(*values: int) -> list[Bar]:
    return [b(i, c, c, c, c) for i, c in enumerate(values)]


def test_strategies_at_their_edges():
    # sma 2/3 on 10, 9, 11: F * 3 = 60 and S * 2 = 60, a tie: 0, with or without shorts.
    # Then 12: 69 > 64. Then 2: 42 < 50.
    bars = closes(10, 9, 11, 12, 2)
    assert desired("sma_cross", {"fast": 2, "slow": 3}, bars) == [0, 0, 0, 1, 0]
    assert desired("sma_cross", {"fast": 2, "slow": 3, "allow_short": True}, bars) == [0, 0, 0, 1, -1]
    # momentum over 2 bars with 1 %: from 1050 the bound is 10 (.5): +10 is not above, +11 is; -11 is below.
    params = {"lookback": 2, "threshold": 10_000, "allow_short": True}
    assert desired("momentum_v1", params, closes(1050, 1050, 1060, 1061)) == [0, 0, 0, 1]
    assert desired("momentum_v1", params, closes(1050, 1050, 1040, 1039)) == [0, 0, 0, -1]
    assert desired("momentum_v1", params, closes(1050, 1070, 1061)) == [0, 0, 1]  # valid from bar 2 on
    # donchian 2/1: bar 2 closes on the highest high (11): no; bar 3 above 12: in; bar 4 on the lowest low (12): stays;
    # bar 5 under 12: out; bar 6 stays out.
    rows = [(10, 8, 9), (11, 9, 10), (12, 9, 11), (13, 12, 13), (14, 12, 12), (13, 10, 11), (12, 10, 11)]
    bars = [b(i, c, h, lo, c) for i, (h, lo, c) in enumerate(rows)]
    assert desired("donchian", {"entry": 2, "exit": 1}, bars) == [0, 0, 0, 1, 1, 0, 0]
    assert desired("donchian", {"entry": 2, "exit": 1}, bars[1:]) == [0, 0, 1, 1, 0, 0]  # valid from bar 2 on
    assert desired("buy_and_hold", {}, bars) == [1] * 7


def test_candles_are_cut_and_sorted_and_the_last_duplicate_wins():
    bars = [b(3, 3, 3, 3, 3), b(1, 1, 1, 1, 1), b(2, 2, 2, 2, 2), b(1, 9, 9, 9, 9), b(0, 0, 0, 0, 0)]
    assert [bar.close for bar in cut_candles(bars, MINUTE, 3 * MINUTE)] == [9, 2]


def test_text_is_parsed_exactly(tmp_path: Path):
    def archive(*rows: str) -> Path:
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as out:
            out.writestr("x.csv", "\n".join(rows) + "\n")
        return tmp_path / "x.zip"

    tail = ",1,0,0,0,0,0"
    ms, us = "1670889600000,0.1,0.3,0.00000001,7,448145609988" + tail, "1761711720000000,1,1,1,1,0.00000000" + tail
    assert read_zip(archive(ms, us)) == [
        Bar(1_670_889_600_000, 10_000_000, 30_000_000, 1, 700_000_000, 44_814_560_998_800_000_000),
        Bar(1_761_711_720_000, SCALE, SCALE, SCALE, SCALE, 0),
    ]
    with pytest.raises(ValueError, match="8 decimals"):
        read_zip(archive("1670889600000,0.123456789,1,1,1,1" + tail))


@pytest.mark.parametrize(
    ("name", "rows", "first"),
    [("BTCBUSD-1m-2022-12", 1440, 1_670_889_600_000), ("BTCUSDT-1m-2025-10", 3 * 1440 - 262, 1_761_711_720_000)],
)
def test_smoke_on_a_real_file(name: str, rows: int, first: int):
    path = SPOT / f"{name}.zip"
    if not path.exists():
        pytest.skip(f"the real market data is absent: no file {path}")
    bars = read_zip(path)
    assert (len(bars), bars[0].t) == (rows, first)  # the first file is in ms, the second in us
    job = {"start": first, "end": bars[-1].t + MINUTE}

    held = backtest(bars, strategy="buy_and_hold", params={}, **job)
    check(held, missing_minutes=0, fills=1, trades=0, open_position=1, exposure_bars=rows - 1)
    assert held["total_pnl"] == bars[-1].close - bars[1].open - bars[1].open // 1000

    for strategy, params in (("sma_cross", {"allow_short": True}), ("momentum_v1", {"lookback": 60}), ("donchian", {})):
        for timeframe, fill in ((1, "next_open"), (15, "close")):
            result = backtest(
                bars,
                strategy=strategy,
                params=params,
                stop_loss=5000,
                take_profit=7000,
                trailing_stop=4000,
                timeframe=timeframe,
                fill=fill,
                **job,
            )
            assert result["fills"] == 2 * result["trades"] + abs(result["open_position"])
            assert 0 <= result["wins"] <= result["trades"]
            if result["open_position"] == 0:
                assert result["total_pnl"] == result["gross_profit"] - result["gross_loss"]
