"""The examples of docs/orders.md run, and no cut shows in their fills."""

import re
from pathlib import Path

import pytest
from candlemill.engine.position import ExecutionRules
from candlemill.strategies import REGISTERED, build, loader, registry
from candlemill.strategies.orders import decide_fills
from order_candles import candle_columns, fills_of

DOCS = Path(__file__).parents[2] / "docs/orders.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.S)
CLOSES = [10_000 + 5 * ((k * k * 7 + k * 3) % 23) - 40 * (k % 25) for k in range(400)]


KEYS: list[list[str]] = [["dip"], ["up", "out"], [], []]


@pytest.mark.parametrize(("example", "keys"), list(zip(EXAMPLES, KEYS, strict=True)))
def test_the_examples(example: str, keys: list[str], tmp_path: Path) -> None:
    path = tmp_path / "example.py"
    path.write_text(example)
    name = loader.load(str(path))
    try:
        strategy, candles = build(name, {}), candle_columns([(c, c + 3, c - 3, c) for c in CLOSES])
        whole, end = decide_fills(candles, 1, strategy, ExecutionRules(), b"", 0, 400)
        assert whole.keys == keys
        assert whole.n > 0
        first, state = decide_fills(candles, 1, strategy, ExecutionRules(), b"", 0, 217)
        second, after = decide_fills(candles, 1, strategy, ExecutionRules(), state, 217, 400)
        assert (fills_of(first) + fills_of(second), after) == (fills_of(whole), end)
    finally:
        del REGISTERED[name], registry._sources[name]
