"""Search among jobs: parameters, figures, tags and words as people write them."""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from math import ceil, floor
from typing import Any

import msgspec

from candlemill.backtests.metric_table import metric_of, value_of
from candlemill.errors import BadInput, one_line
from candlemill.pipeline.rows import FigureLimit, JobFilter, Notes
from candlemill.units import parse_range

TERMS_LIMIT = 8  # parameters, figures or tags in one search
TAGS_LIMIT, TAG_LENGTH = 20, 40
LABEL_LENGTH, NOTE_LENGTH = 200, 4_000

_FIGURE = re.compile(r"([a-z_]{1,40})\s*(>=|<=|>|<)\s*(-?[0-9]{1,18}(?:\.[0-9]{1,18})?)\s*(%?)")


def parse_figure(text: str) -> FigureLimit:
    """Parse a limit such as `sharpe_ratio>1.5`, `max_drawdown<=2000` or `return>20%`. Raises BadInput, UnknownName."""
    found = _FIGURE.fullmatch(text.strip())
    if not found:
        raise BadInput(one_line(f"{text[:80]!r} is not like sharpe_ratio>1.5, max_drawdown<=2000 or return>20%"))
    key, sign, number, percent = found.groups()
    unit = metric_of(key).unit
    value = Decimal(number) * unit.scale / (100 if percent else 1)
    is_least = sign[0] == ">"
    if is_least:
        limit = ceil(value) if sign == ">=" else floor(value) + 1
    else:
        limit = floor(value) if sign == "<=" else ceil(value) - 1
    return FigureLimit(key, is_least, limit)


def parse_param(text: str) -> tuple[str, str]:
    """Parse `fast=10` to a parameter's name and its value as JSON. Raises BadInput."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise BadInput(one_line(f"{text[:80]!r} is not like fast=10"))
    try:
        found = msgspec.json.decode(value)
    except msgspec.DecodeError:
        found = value
    if not isinstance(found, str | int | float | bool):
        raise BadInput(one_line(f"{text[:80]!r}: a parameter is a number, a text, true or false"))
    return name, msgspec.json.encode(found).decode()


def search(
    *,
    state: str = "",
    kind: str = "",
    symbol: str = "",
    strategy: str = "",
    whole: bool = True,
    tags: Sequence[str] = (),
    text: str = "",
    params: Sequence[str] = (),
    figures: Sequence[str] = (),
    since: str = "",
    until: str = "",
) -> JobFilter:
    """Return the filter of a search. `since` and `until` are days, months or years of the request, both included.

    Raises BadInput for a term that cannot be read, and for too many.
    """
    for name, terms in (("tags", tags), ("parameters", params), ("figures", figures)):
        if len(terms) > TERMS_LIMIT:
            raise BadInput(f"{len(terms)} {name} in one search, the limit is {TERMS_LIMIT}")
    return JobFilter(
        state,
        kind,
        symbol,
        strategy,
        whole,
        tuple(tags),
        text,
        tuple(map(parse_param, params)),
        tuple(map(parse_figure, figures)),
        parse_range(since)[0] if since else 0,
        parse_range(until)[1] if until else 0,
    )


def checked_notes(job_id: str, label: str, note: str, tags: Sequence[str]) -> Notes:
    """Return notes that may be stored: tags are sorted, each once. Raises BadInput."""
    for name, text, limit in (("label", label, LABEL_LENGTH), ("note", note, NOTE_LENGTH)):
        if len(text) > limit:
            raise BadInput(f"a {name} of {len(text):,} letters: the limit is {limit:,}")
    if not label.isprintable():
        raise BadInput("a label is one line of printable text")
    if not all(letter.isprintable() or letter in "\n\t" for letter in note):
        raise BadInput("a note is printable text")
    found = sorted(set(tags))
    if len(found) > TAGS_LIMIT:
        raise BadInput(f"{len(found)} tags: the limit of a job is {TAGS_LIMIT}")
    for tag in found:
        if not (0 < len(tag) <= TAG_LENGTH and tag.isprintable()) or tag != tag.strip() or "," in tag:
            raise BadInput(one_line(f"tag {tag[:60]!r} is not 1 to {TAG_LENGTH} printable letters without a comma"))
    return Notes(job_id, label, note, found)


def matches(spec: Mapping[str, Any], results: Sequence[Mapping[str, Any]], notes: Notes, job_filter: JobFilter) -> bool:
    """Return whether a job has the parameters, figures, tags and words of a filter: as the database does, in memory."""
    words = " ".join([notes.label, notes.note, *notes.tags]).lower()
    return (
        set(job_filter.tags) <= set(notes.tags)
        and job_filter.text.lower() in words
        and all(_has_param(spec, name, value) for name, value in job_filter.params)
        and all(any(_within(value_of(r, one.key), one) for r in results) for one in job_filter.figures)
    )


def _has_param(spec: Mapping[str, Any], name: str, value: str) -> bool:
    found = [spec.get("params", {}).get(name), *spec.get("grid", {}).get(name, [])]
    return value in [msgspec.json.encode(one).decode() for one in found]


def _within(value: int | None, limit: FigureLimit) -> bool:
    return value is not None and (value >= limit.value if limit.is_least else value <= limit.value)
