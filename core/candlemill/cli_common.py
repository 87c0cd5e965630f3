"""What all commands share: arguments, the store, output, the progress bar."""

import argparse
import json
from collections.abc import Callable
from typing import Any, NoReturn

from candlemill.errors import BadInput
from candlemill.model import ParamValue


class Parser(argparse.ArgumentParser):
    """Complains in one line, and takes options by their whole names: an abbreviation would bind what comes later."""

    def __init__(self, **more: Any) -> None:
        super().__init__(allow_abbrev=False, **more)

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message}; see `{self.prog} --help`")


def text_argument(text: str) -> str:
    """Whatever bytes a shell passes on, the database takes text."""
    if not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is not printable text")
    return text


def count_argument(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def parameters(texts: list[str]) -> dict[str, ParamValue]:
    """`NAME=VALUE` for each parameter."""
    found: dict[str, ParamValue] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise BadInput(f"parameter {text!r} is not like fast=10")
        if name in found:
            raise BadInput(f"parameter {name!r} is given twice")
        found[name] = value
    return found


def open_store() -> Any:
    from candlemill.io.settings import dsn
    from candlemill.io.store import Store

    return Store(dsn())


def output(args: argparse.Namespace, found: dict[str, Any], text: str) -> None:
    print(json.dumps(found) if args.json else text)


class progress_bar:
    """A bar of finished tasks on stderr, for what takes longer than a second; `disable` None: where nobody looks."""

    def __init__(self, text: str, disable: bool | None = None) -> None:
        self._text = text
        self._disable = disable
        self._bar: Any = None

    def __enter__(self) -> Callable[[int, int], None]:
        return self._update

    def _update(self, done: int, known: int) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(desc=self._text, unit="task", delay=1, disable=self._disable, dynamic_ncols=True)
        self._bar.total = known
        self._bar.update(done - self._bar.n)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
