"""One parameter set after another: each does in its time what it would do alone, however the job is cut."""

import random

import msgspec
import pytest
from candlemill.backtests.resolve import resolve
from candlemill.backtests.spec import Leg, Spec
from candlemill.errors import BadInput, CandlemillError
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from slow_engine import DAY
from world import FIRST_DAY, PARAMS, Market, jobs

BRIEF = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


def scheduled(spec: Spec, legs: list[Leg]) -> Spec:
    rest = {name: getattr(spec, name) for name in Spec.__struct_fields__}
    for name in ("symbol", "strategy", "start", "end", "params", "grid", "schedule"):
        rest.pop(name)
    return resolve(
        symbol=spec.symbol,
        strategy=spec.strategy,
        span=(spec.start, spec.end),
        params={},
        schedule=legs,
        **{"account": "units"} | rest,
    )


def digests(market: Market, spec: Spec, slices: int = 1, rng: random.Random | None = None) -> list[str] | None:
    try:
        return [result["result_digest"] for result in market.world().run(spec, slices, rng)]
    except CandlemillError:
        return None  # refused: beyond 64 bits


@given(jobs(), st.data(), st.integers(2, 8), st.integers(0, 2**32))
@BRIEF
def test_any_cut_of_a_schedule_is_the_uncut_one(
    job: tuple[Market, Spec], data: st.DataObject, slices: int, seed: int
) -> None:
    market, spec = job
    note(f"seed {seed}")
    minutes = st.integers(0, (spec.end - spec.start) // 60_000 - 1)
    starts = sorted(data.draw(st.sets(minutes, min_size=1, max_size=4)))
    legs = [Leg(spec.start + m * 60_000, data.draw(PARAMS[spec.strategy])) for m in starts]
    spec = scheduled(spec, legs)
    whole = digests(market, spec)
    assert digests(market, spec, slices, random.Random(seed)) == whole


@given(jobs())
@BRIEF
def test_a_schedule_of_one_leg_is_that_set_alone(job: tuple[Market, Spec]) -> None:
    market, spec = job
    if digests(market, spec) is None:
        return
    (alone,) = market.world().run(spec)
    (one,) = market.world().run(scheduled(spec, [Leg(spec.start, dict(spec.params))]))
    ids = {"job_id", "result_digest", "params", "spec"}
    assert {k: v for k, v in one.items() if k not in ids} == {k: v for k, v in alone.items() if k not in ids}


def test_a_schedule_must_be_ascending_within_the_range() -> None:
    spec = Spec(symbol="X", account="units", strategy="buy_and_hold", params={}, start=FIRST_DAY, end=FIRST_DAY + DAY)
    for starts in ([FIRST_DAY + 5, FIRST_DAY], [FIRST_DAY, FIRST_DAY], [FIRST_DAY - 60_000], [FIRST_DAY + DAY]):
        with pytest.raises(BadInput, match="not ascending within the range"):
            scheduled(spec, [Leg(start, {}) for start in starts])
    with pytest.raises(BadInput, match="neither params nor a grid"):
        resolve(
            symbol="X",
            strategy="sma_cross",
            span=(spec.start, spec.end),
            params={"fast": 3},
            schedule=[Leg(spec.start, {})],
        )
    assert msgspec.json.decode(scheduled(spec, [Leg(FIRST_DAY, {})]).to_json(), type=Spec).schedule
