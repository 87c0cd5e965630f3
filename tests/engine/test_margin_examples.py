"""Liquidation prices of the exchanges' own examples, and what follows from the definition.

Binance has one example for USD-M, on its page "How to Calculate Liquidation Price of USDT-Margined Futures"
(2020-08-14, https://www.binance.com/en/support/faq/b3c689c1f50a44cabb3a84e663b81d93): one wallet with a long in
BTCUSDT and a long in ETHUSDT. The page has its tables as pictures; the numbers are the ones that other programs' tests
cite from it.
"""

import hypothesis.strategies as st
import pytest
from candlemill.backtests.tiers import Tier, check_tiers
from candlemill.engine.margin import FAR, liquidation_price, own_money
from hypothesis import given
from reference import margin as slow

SCALE = 10**8


def tiers(*rows: tuple[int, float, int]) -> list[Tier]:
    return [Tier(floor * SCALE, round(percent * 10_000), amount * SCALE) for floor, percent, amount in rows]


BTC = tiers(
    (0, 0.4, 0), (50_000, 0.5, 50), (250_000, 1, 1_300), (1_000_000, 2.5, 16_300), (10_000_000, 5, 266_300),
    (20_000_000, 10, 1_266_300), (50_000_000, 12.5, 2_516_300), (100_000_000, 15, 5_016_300),
)  # fmt: skip
ETH = tiers(
    (0, 0.5, 0), (10_000, 0.65, 15), (100_000, 1, 365), (500_000, 2, 5_365), (1_000_000, 5, 35_365),
    (2_000_000, 10, 135_365), (5_000_000, 12.5, 260_365), (10_000_000, 15, 510_365), (20_000_000, 25, 2_510_365),
)  # fmt: skip


def scaled(text: str) -> int:
    whole, _, decimals = text.partition(".")
    return int(whole) * SCALE + int(decimals.ljust(8, "0"))


WALLET = scaled("1535443.01")
BTC_LONG = scaled("109.488"), scaled("32481.98")
ETH_LONG = scaled("3683.979"), scaled("1456.84")
# Maintenance and unrealised profit of the other position, at mark prices of 31,967.27 and 1,335.18.
OF_BTC = scaled("71200.81144"), -scaled("56354.57")
OF_ETH = scaled("356512.508"), -scaled("448192.89")


def pairs(table: list[Tier]) -> list[tuple[int, int]]:
    return [(tier.rate, tier.amount) for tier in table]


def test_the_page_names_rates_and_amounts() -> None:
    """264,000 lies in the tier of 1 %, whose amount is 250,000 * (1 % - 0.5 %) + 50 = 1,300."""
    check_tiers(BTC)
    check_tiers(ETH)
    inside = [tier for tier in BTC if tier.floor <= 264_000 * SCALE][-1]
    assert (inside.rate, inside.amount) == (10_000, 1_300 * SCALE)


@pytest.mark.parametrize(
    ("long", "table", "others", "price"),
    [
        (ETH_LONG, ETH, (0, 0), "1114.78"),  # isolated, with the wallet as its margin
        (BTC_LONG, BTC, (0, 0), "18778.73"),
        (ETH_LONG, ETH, OF_BTC, "1153.26"),  # cross
        (BTC_LONG, BTC, OF_ETH, "26316.89"),
    ],
)
def test_prices_of_the_example(long: tuple[int, int], table: list[Tier], others: tuple[int, int], price: str) -> None:
    quantity, entry = long
    margin = WALLET - others[0] + others[1]
    found = liquidation_price(own_money(True, 0, quantity, entry, margin), quantity, pairs(table))
    assert round(found / 10**6) == scaled(price) // 10**6  # the page rounds to cents


def test_bybit_takes_the_maintenance_margin_of_the_entry() -> None:
    """One BTC, long at 20,000 with 50x and a rate of 0.5 %: 19,700 on Bybit's page, 19,698.49 here and on Binance.

    Bybit, "Liquidation Price (USDT Contract)", read 2026-12 at
    https://testnet.bybit.com/en-US/help-center/s/article/Liquidation-Price-USDT-Contract, example 1: the entry price
    less (initial margin - maintenance margin) / size, both margins at the entry: 20,000 - (400 - 100). Binance's
    formula, and so candlemill's, has the maintenance margin at the price of liquidation, where it is smaller for a
    long: (20,000 - 400) / (1 - 0.5 %). Bybit's page of the unified account (2026-05) has it there too, in its formula
    for inverse contracts.
    """
    entry, quantity = 20_000 * SCALE, SCALE
    initial, maintenance = 400 * SCALE, 100 * SCALE
    at_entry = liquidation_price(own_money(True, 0, quantity, entry, initial - maintenance), quantity, [(0, 0)])
    assert at_entry == 19_700 * SCALE
    table = tiers((0, 0.5, 0))
    here = liquidation_price(own_money(True, 0, quantity, entry, initial), quantity, pairs(table))
    assert here == 19_600 * SCALE * 1000 // 995


def test_a_short_is_the_mirror_image() -> None:
    """The same position short: 20,300 with the margin of the entry, (20,000 + 400) / (1 + 0.5 %) here."""
    entry, quantity = 20_000 * SCALE, -SCALE
    initial, maintenance = 400 * SCALE, 100 * SCALE
    at_entry = liquidation_price(own_money(True, 0, quantity, entry, initial - maintenance), quantity, [(0, 0)])
    assert at_entry == 20_300 * SCALE
    here = liquidation_price(own_money(True, 0, quantity, entry, initial), quantity, pairs(tiers((0, 0.5, 0))))
    assert here == -(-20_400 * SCALE * 1000 // 1005)


QUANTITIES = st.integers(1, 10**13) | st.integers(-(10**13), -1)


@given(
    QUANTITIES,
    st.integers(1, 10**13),
    st.integers(0, 10**14),
    st.sampled_from([BTC, ETH, BTC[:1], [Tier(0, 0, 0)]]),
)
def test_price_is_the_nearest_that_liquidates(quantity: int, entry: int, margin: int, table: list[Tier]) -> None:
    """The reference finds it by bisection of its own test."""
    found = liquidation_price(own_money(True, 0, quantity, entry, margin), quantity, pairs(table))
    slow_table = [slow.Tier(*tier_of(tier)) for tier in table]
    wanted = slow.liquidation_price(quantity, entry, margin, slow_table)
    if quantity < 0 and slow.isolated_is_liquidated(quantity, entry, margin, 1, slow_table):
        wanted = 1  # at any price
    assert found == (wanted if wanted is not None and wanted < FAR else 0 if quantity > 0 else FAR)


def tier_of(tier: Tier) -> tuple[int, int, int]:
    return tier.floor, tier.rate, tier.amount


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ([], "the first tier"),
        ([Tier(1, 0, 0)], "the first tier"),
        ([Tier(0, 0, 5)], "the first tier"),
        ([Tier(0, 10**6, 0)], "below 1"),
        ([Tier(0, 2, 0), Tier(10**6, 1, 0)], "rise"),
        ([Tier(0, 1, 0), Tier(10**6, 2, 0)], "jumps at a floor of 1000000: the amount is 0, not 1"),
    ],
)
def test_tiers_that_are_refused(table: list[Tier], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_tiers(table)
