"""Changes of one line that a test must notice: those that once passed unnoticed, and some of each part of the core."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import candlemill
import pytest
from conftest import environment

CORE = Path(candlemill.__file__).parents[1]
TESTS = Path(__file__).parents[1]


class Mutant(NamedTuple):
    module: str
    old: str
    new: str
    test: str


MUTANTS = [
    Mutant("backtests.merge", "max(1, streak), REPAIR_LIMIT, slices", "max(1, streak), slices, slices",
           "backtests/test_merge.py::test_a_repair_grows_with_those_before_it_up_to_a_limit"),
    Mutant("pipeline.prepare", "if data.digest != digest:", "if False:",
           "pipeline/test_handlers.py::test_candles_that_changed_after_the_plan_are_not_merged"),
    Mutant("pipeline.job_state", "return max(request.attempt or now, least)", "return request.attempt or now",
           "pipeline/test_job_state.py::test_an_attempt_is_later_than_the_one_before"),
    Mutant("gateway.access", "not limit.isdecimal() or not int(limit)", "not limit.isdecimal()",
           "gateway/test_access.py::test_a_limit_that_lets_nobody_in_is_refused"),
    Mutant("backtests.result", "(4 * square == half and root % 2 == 1)", "4 * square == half",
           "backtests/test_merge.py::test_roots_are_rounded_half_to_even"),
    Mutant("exchanges.binance.kline_files", "INFLATION_MAX: Final = 200", "INFLATION_MAX: Final = 1_000",
           "exchanges/test_kline_files.py::test_a_zip_bomb_is_rejected_before_it_is_decompressed"),
    Mutant("exchanges.binance.kline_files", "MEMBERS_MAX: Final = 64", "MEMBERS_MAX: Final = 64_000",
           "exchanges/test_kline_files.py::test_a_zip_of_many_files_is_rejected_before_they_are_listed"),
    Mutant("engine.summary", "b.head, a.head_cash + b.head_cash, a.head_gap | b.head_gap",
           "b.head, a.head_cash + b.head_cash, b.head_gap",
           "backtests/test_merge.py::test_a_gap_in_any_of_a_trade_s_stretches_counts"),
    Mutant("engine.summary", "self.s1 += (aa >> LIMB) + 2 * (ab & MASK)", "self.s1 += (aa >> LIMB) + 2 * (ab | MASK)",
           "engine/test_summary.py::test_days_are_counted_exactly"),
    Mutant("engine.books", "side = -1", "side = -2",
           "engine/test_books.py::test_the_side_of_a_position_is_that_of_its_exposure"),
    Mutant("engine.decide", "len(said) != 2", "len(said) < 2",
           "engine/test_decide.py::test_what_step_returns_is_checked"),
    Mutant("store.integrity", "same = day.rows == b - a and", "same = True and",
           "mutants/test_integrity.py"),
    Mutant("store.integrity", "uncounted = {day.start for day in days if not day.digest}", "uncounted = set()",
           "mutants/test_integrity.py"),
    Mutant("store.column_cache", "while self._bytes > self._limit:", "while self._bytes > 2 * self._limit:",
           "store/test_column_cache.py::test_the_least_recently_used_columns_are_removed"),
    Mutant("pipeline.watchdog", "if in_vain >= RETRIES and not is_queued:", "if in_vain >= RETRIES:",
           "pipeline/test_watchdog.py::test_what_only_waits_in_a_queue_is_not_failed"),
    Mutant("engine.mark", "elif price - low > up:", "elif price + low > up:",
           "engine/test_mark.py::test_outlines_are_highest_lowest_and_deepest"),
    Mutant("engine.exit_books", "self.paid = 0", "self.paid = 1", "engine/test_dca.py"),
    Mutant("feed.connections", "now - connection.opened >= STEADY_MS", "now - connection.opened > STEADY_MS",
           "feed/test_connections.py::test_a_steady_connection_begins_the_back_off_anew"),
    Mutant("pipeline.split", "return runtime.store.count_sweep(job.job_id) < sets", "return False",
           "pipeline/test_handlers.py::test_lost_results_of_merged_batches_are_computed_again"),
]  # fmt: skip


def test_each_is_noticed(tmp_path: Path) -> None:
    requested = []
    for one in MUTANTS:
        module = f"candlemill.{one.module}"
        text = (CORE / f"{module.replace('.', '/')}.py").read_text()
        assert text.count(one.old) == 1, f"{one.module} has {text.count(one.old)} times {one.old!r}: change this list"
        requested.append({"module": module, "text": text.replace(one.old, one.new), "tests": [str(TESTS / one.test)]})
    command = [sys.executable, str(Path(__file__).with_name("apply.py")), str(tmp_path / "base")]
    done = subprocess.run(
        command,
        input=json.dumps(requested),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    if done.returncode:
        pytest.fail(done.stdout[-3000:] + done.stderr[-3000:])
    caught = json.loads(done.stdout)
    assert len(caught) == len(MUTANTS)
    missed = [one for one, is_caught in zip(MUTANTS, caught, strict=True) if not is_caught]
    assert not missed
