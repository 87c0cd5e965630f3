"""Options of a job: how people give each field of a spec or a request.

An `Option` stands in the annotation of its field, in `backtests.spec.Spec` or `pipeline.request.Request`, and is the
only declaration: the command line, Python's keywords, the REST interface with its description, and the dashboard's form
are made from it. A new option is a field there, and what it does.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from candlemill.errors import BadInput
from candlemill.units import SCALE, amount, parse_decimal, parse_rate, parse_timeframe

Kind = Literal["rate", "amount", "leverage", "timeframe", "choice", "flag", "count", "minutes", "text"]
Group = Literal["", "costs", "account", "run"]

_UNITS = ((10_080, "w"), (1440, "d"), (60, "h"), (1, "m"))
METAVARS: Mapping[str, str] = {
    "rate": "RATE",
    "amount": "DECIMAL",
    "leverage": "PPM|3x",
    "count": "N|auto",
    "minutes": "MINUTES",
}


class Option(msgspec.Struct, frozen=True):
    """How people give a field.

    `kind` says how it is written: a rate as 0.1%, 10bp or ppm; an amount as a decimal, scaled by 10^8 in a spec. `help`
    is the text of the command line, of Python and of REST. `group`, `label`, `hint`, `usual` (what is used if nothing
    is given) and `notes` (of choices) are the dashboard's; without a group it has no field there. `when` lists the
    settings that the option belongs to; it must have its default in all others. `name`, `default` and `choices` come
    from the annotated field.
    """

    kind: Kind
    help: str
    group: Group = ""
    label: str = ""
    hint: str = ""
    usual: str = ""
    notes: Mapping[str, str] = {}
    when: tuple[Mapping[str, str], ...] = ()
    zero: bool = False  # an amount that may be 0
    switch: str = ""  # the name on the command line, where it is another one
    inferred: bool = False  # left out, it follows from what else is given: see `resolve.account_of`

    name: str = ""
    default: Any = None
    choices: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """Return the name on the command line."""
        return f"--{self.switch or self.name.replace('_', '-')}"

    def parse(self, given: Any) -> Any:
        """Return the field's value of what people gave. Raises BadInput."""
        if self.kind == "rate":
            return parse_rate(given, self.name)
        if self.kind == "amount":
            text = amount(given, self.name)
            return 0 if self.zero and re.fullmatch(r"0+(\.0*)?", text) else parse_decimal(text, self.name)
        if self.kind == "leverage":
            return parse_leverage(given)
        return parse_timeframe(str(given)) if self.kind == "timeframe" else given

    def text(self, value: Any) -> str:
        """Return a value of the field as text that `parse` reads."""
        if self.kind == "amount":
            whole, rest = divmod(value, SCALE)
            return f"{whole}.{rest:08d}".rstrip("0").rstrip(".")
        if self.kind == "timeframe":
            size, unit = next((size, unit) for size, unit in _UNITS if value % size == 0)
            return f"{value // size}{unit}"
        return str(value)

    def default_text(self) -> str | None:
        return None if self.default is None else self.text(self.default)

    def belongs(self, spec: msgspec.Struct) -> bool:
        """Return whether the option means something beside the other settings of a spec."""
        settings = [all(getattr(spec, name) == text for name, text in one.items()) for one in self.when]
        return any(settings) or not settings

    def check(self, spec: msgspec.Struct) -> None:
        """Raise ValueError if the option has a value in a spec that it does not belong to."""
        value = getattr(spec, self.name)
        if value == self.default or not self.when:
            return
        wrong = [[name for name, text in one.items() if getattr(spec, name) != text] for one in self.when]
        if all(wrong):
            nearest = min(wrong, key=lambda names: ("account" in names, len(names)))
            here = " and ".join(f"{name}={getattr(spec, name)}" for name in nearest)
            there = ", or ".join(" with ".join(f"{name}={text}" for name, text in one.items()) for one in self.when)
            raise ValueError(f"{self.name}={self.text(value)} does not go with {here}: it belongs to {there}")


def options_of(struct: type[msgspec.Struct]) -> dict[str, Option]:
    """Return the annotated options of a struct by name, in its order."""
    hints = get_type_hints(struct, include_extras=True)
    found = {}
    for field in msgspec.structs.fields(struct):
        hint = hints[field.name]
        for option in getattr(hint, "__metadata__", ()):
            if isinstance(option, Option):
                choices = get_args(hint.__origin__) if get_origin(hint.__origin__) is Literal else ()
                more = {"name": field.name, "default": field.default, "choices": choices}
                found[field.name] = msgspec.structs.replace(option, **more)
    return found


def described(options: Mapping[str, Option]) -> str:
    """Return a line for each option, for the docstring of a Python call."""
    lines = []
    for option in options.values():
        kind = " or ".join(map(repr, option.choices)) or option.kind
        default = "" if option.default is None else f", default {option.default_text()}"
        lines.append(f"{option.name} ({kind}{default}): {option.help}")
    return "\n".join(lines)


def parse_leverage(given: str | int) -> int:
    """Return `3x`, `2.5x` or parts per million as parts per million."""
    text = str(given)
    if text.endswith("x"):
        ppm, rest = divmod(parse_decimal(text[:-1], "leverage"), SCALE // 1_000_000)
        if rest == 0:
            return ppm
    elif text.isdecimal() and int(text) > 0:
        return int(text)
    raise BadInput(f"leverage {text!r} is neither parts per million nor like 3x or 2.5x")
