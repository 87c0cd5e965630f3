"""docs/cli.md is what the program generates."""

from pathlib import Path

from candlemill.cli.main import parser
from candlemill.cli.reference import commands, page


def test_the_page_is_up_to_date() -> None:
    assert (Path(__file__).parents[2] / "docs/cli.md").read_text() == page(), "make reference"


def test_every_command_and_every_argument_is_described() -> None:
    found = list(commands(parser()))
    assert {"backtest", "cluster deploy", "serve"} <= {name for name, _, _ in found}
    bare = [(name, action.dest) for name, sub, text in found for action in sub._actions if not (action.help and text)]
    assert not bare
