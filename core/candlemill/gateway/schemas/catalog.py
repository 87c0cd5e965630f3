"""Responses about this gateway: its version, the metrics, the options of a request."""

from typing import Literal

import msgspec

from candlemill.backtests.options import Group, Kind, Option


class About(msgspec.Struct, frozen=True):
    """`figures` are what results can be ordered by; `keys`: whether requests need an API key."""

    version: str
    keys: bool
    figures: list[str]


class MetricRow(msgspec.Struct, frozen=True):
    """`scale` of its integers make 1; shares are shown in percent. `better`: whether high or low values are good, null
    if neither. `place` is where the figure is: in a `result`, its `metrics` or its `guards`. `main` ones are columns of
    tables.

    In a compound account `max_drawdown` is a share of the peak.
    """

    key: str
    label: str
    unit: str
    scale: int
    better: Literal["high", "low"] | None
    definition: str
    place: Literal["result", "metrics", "guards"]
    main: bool


class Metrics(msgspec.Struct, frozen=True):
    metrics: list[MetricRow]


class OptionRow(msgspec.Struct, frozen=True):
    """An option of a request: how it is written (`kind`), its default as text (null: nothing), the choices where only
    these are allowed, what it means (`help`), and its field in the dashboard's form: `group`, `label`, `hint`, `usual`,
    `notes` of choices. `when` lists the settings that it belongs to; with all others it must be left out. `flag` is its
    name on the command line."""

    name: str
    kind: Kind
    default: str | None
    choices: tuple[str, ...]
    help: str
    group: Group
    label: str
    hint: str
    usual: str
    notes: dict[str, str]
    when: list[dict[str, str]]
    flag: str


def option_row(option: Option) -> OptionRow:
    return OptionRow(
        option.name,
        option.kind,
        option.default_text(),
        option.choices,
        option.help,
        option.group,
        option.label,
        option.hint,
        option.usual,
        dict(option.notes),
        [dict(one) for one in option.when],
        option.flag,
    )


class Options(msgspec.Struct, frozen=True):
    options: list[OptionRow]
