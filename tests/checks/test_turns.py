"""Two threads that change places after each line."""

import pytest
from candlemill.checks import turns
from candlemill.checks.turns import in_turns


def write(shared: list[str], name: str) -> int:
    for _ in range(3):
        shared.append(name)
    return len(shared)


def test_two_calls_run_line_by_line_in_turns() -> None:
    shared: list[str] = []
    lengths = in_turns(__file__, lambda: write(shared, "a"), lambda: write(shared, "b"))
    assert sorted(shared) == ["a"] * 3 + ["b"] * 3 and max(lengths) == 6
    assert shared not in (["a"] * 3 + ["b"] * 3, ["b"] * 3 + ["a"] * 3)


def test_one_that_waits_for_the_other_s_end_goes_on_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 0.01)
    ended: list[bool] = []

    def wait() -> bool:
        while not ended:
            pass
        return True

    def end() -> bool:
        return not ended.append(True)

    assert in_turns("no such file", wait, end) == (True, True)
    ended.clear()
    assert in_turns(__file__, wait, end) == (True, True)


def test_an_error_is_raised_and_leaves_nobody_waiting() -> None:
    with pytest.raises(ZeroDivisionError):
        in_turns(__file__, lambda: 1 // 0, lambda: write([], "b"))
