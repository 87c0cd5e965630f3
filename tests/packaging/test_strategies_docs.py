"""The examples of docs/strategies.md run, and no cut shows in them."""

import re
from pathlib import Path

import pytest
from candlemill.strategies import REGISTERED, build, loader, registry
from candlemill.testing import bars_of, decisions

DOCS = Path(__file__).parents[2] / "docs/strategies.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.S)
CLOSES = [100 + (k * k * 7 + k * 3) % 23 - k % 5 for k in range(400)]


@pytest.mark.parametrize("example", EXAMPLES)
def test_example(example: str, tmp_path: Path) -> None:
    path = tmp_path / "example.py"
    path.write_text(example)
    name = loader.load(str(path))
    try:
        strategy, bars = build(name, {}), bars_of(CLOSES)
        whole = decisions(strategy, bars)
        assert 1 in whole
        assert all(decisions(strategy, bars, cuts) == whole for cuts in ([1], [70, 71], [30, 200, 399]))
    finally:
        del REGISTERED[name], registry._sources[name]


def test_every_strategy_is_described() -> None:
    text = DOCS.read_text()
    assert len(EXAMPLES) == 3
    assert all(f"| `{name}` |" in text for name in REGISTERED)
