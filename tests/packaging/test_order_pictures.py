"""The pictures of docs/orders.md show what the engine places today."""

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
_spec = importlib.util.spec_from_file_location("order_pictures", DOCS / "order_pictures.py")
assert _spec is not None
assert _spec.loader is not None
pictures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pictures)


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_a_picture_is_that_of_this_engine(name: str) -> None:
    assert (DOCS / f"orders-{name.replace('_', '-')}.svg").read_text() == pictures.picture(name)
