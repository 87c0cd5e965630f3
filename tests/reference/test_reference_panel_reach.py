"""What the random panels on which engine and reference are compared reach: each rule, taken away, changes outcomes."""

import random
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest
from panel_jobs import SlowAnything, random_candles

from reference import cash
from reference.candles import MINUTE, PPM, Bar, is_over
from reference.cash import Account, Run, run_cash

SEEDS, MINUTES, FEWEST = 12, 90, 3
BASE: dict[str, Any] = {
    "capital": 10**12, "leverage": 2 * PPM, "fee": 1_000, "step": 10**4, "min_quantity": 3 * 10**10,
    "min_notional": 10**11, "borrow": 1_000, "slippage": 500, "stop_loss": 60_000, "delist_after": 60 * MINUTE,
    "timeframe": 2, "universe": {"top": 3, "over": 1, "every": 1},
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "fill": {"fill": "close"},
    "lots": {"step": 1},
    "least quantity": {"min_quantity": 0},
    "least notional": {"min_notional": 0},
    "leverage": {"leverage": PPM},
    "borrow": {"borrow": 0},
    "stops": {"stop_loss": 0},
    "the end of a symbol": {"delist_after": None},
    "the universe": {"universe": None},
    "size": {"size": "notional"},
}


def rounded_down(traded: int, price: int, rate: int) -> tuple[int, int]:
    """Flows that are not rounded against the account."""
    flow = -(traded * price // 10**8)
    return flow, abs(flow) * rate // PPM


def own_prices(account: Account) -> int:
    """Equity without the positions of other symbols: cash alone."""
    return account.cash * 10**8


def additions_first(account: Account, by_symbol: Mapping[str, Any]) -> None:
    """The fills of a stage one symbol after the other instead of in rounds."""
    for symbol, fills in sorted(by_symbol.items()):
        SETTLE(account, {symbol: fills})


def only_whole_bars(minutes: list[int], k: int) -> set[int]:
    return {t for t in minutes if is_over(t, k)}


def seen_by_all(run: Run, t: int, present: dict[str, Bar]) -> dict[str, Any]:
    """Decisions that give absent symbols their last bar again."""
    run.closed = {s: run.seen[s][-1] for s in run.names if run.seen[s]}
    return DECIDE(run, t, present)


SETTLE, DECIDE = Account.settle, Run.decide
RULES: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "flows are rounded against the account": (Account, "flows", staticmethod(rounded_down)),
    "room": (Account, "room", lambda account: 10**30),
    "rounds": (Account, "settle", additions_first),
    "equity takes in all symbols": (Account, "equity", own_prices),
    "instants are those of any symbol": (cash, "ends_of_panel_bars", only_whole_bars),
    "an absent symbol gets no decision": (Run, "decide", seen_by_all),
}


def outcome(seed: int, **options: Any) -> dict[str, Any]:
    candles = random_candles(random.Random(seed), 4, MINUTES)
    return run_cash(candles, lambda: SlowAnything(seed), BASE | options)


@cache
def plain(seed: int) -> int:
    profit: int = outcome(seed)["total_pnl"]
    return profit


@pytest.mark.parametrize("name", OPTIONS)
def test_each_option_decides_some_outcomes(name: str) -> None:
    assert sum(outcome(seed, **OPTIONS[name])["total_pnl"] != plain(seed) for seed in range(SEEDS)) >= FEWEST


@pytest.mark.parametrize("name", RULES)
def test_each_rule_decides_some_outcomes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [plain(seed) for seed in range(SEEDS)]
    monkeypatch.setattr(*RULES[name])
    assert sum(outcome(seed)["total_pnl"] != wanted[seed] for seed in range(SEEDS)) >= FEWEST


def test_fills_of_all_kinds_and_ruin_are_reached() -> None:
    found = [outcome(seed, leverage=20 * PPM, size="notional", notional=2 * 10**12) for seed in range(SEEDS)]
    assert sum(one["ruined"] is not None for one in found) >= FEWEST
    assert sum(one["cut_orders"] > 0 for one in found) >= FEWEST
    assert sum(one["rejected_orders"] > 0 for one in found) >= FEWEST
    shorts = [any(e.traded < 0 and abs(e.fill.after) > abs(e.fill.before) for e in one["events"]) for one in found]
    keys = [{event.fill.key for event in one["events"]} for one in found]
    assert min(sum(shorts), *(sum(key in one for one in keys) for key in ("target", "stop", "delisted"))) >= FEWEST
