"""A self-contained page: text, tables and figures in one HTML file that makes no network request.

plotly's script is 4.8 MB, so the file contains it compressed and the browser decompresses it. A content security policy
enforces this: it allows only this page's two scripts, by their hashes, and no connection.
"""

import base64
import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from string import Template
from typing import Any, NamedTuple

import msgspec

from candlemill._version import __version__
from candlemill.report.theme import DARK, FONT, LIGHT


class Html(str):
    """A string of HTML markup. Every other string is escaped when it is put into a page."""

    __slots__ = ()


class Key(NamedTuple):
    """One figure of the headline: `tone` is 1 good, -1 bad, 0 neither."""

    label: str
    value: str
    below: str = ""
    tone: int = 0


Cell = str | Html
ROOM = 10  # characters of a headline's figure at full size


def markup(cell: Cell) -> str:
    return cell if isinstance(cell, Html) else escape(cell)


def toned(text: str, sign: int) -> Html:
    kind = "up" if sign > 0 else "down" if sign < 0 else ""
    return Html(f'<span class="{kind}">{escape(text)}</span>') if kind else Html(escape(text))


def table(headers: Sequence[str], rows: Iterable[Sequence[Cell]], left: int = 1, names: Sequence[str] = ()) -> Html:
    """Return a table. The first `left` columns are text, the rest numbers. `names`: attributes of each row, as HTML."""
    head = "".join(f'<th scope="col"{_kind(k, left)}>{escape(text)}</th>' for k, text in enumerate(headers))
    body = []
    for number, row in enumerate(rows):
        cells = "".join(f"<td{_kind(k, left)}>{markup(cell)}</td>" for k, cell in enumerate(row))
        body.append(f"<tr{' ' + names[number] if names else ''}>{cells}</tr>")
    label = escape(", ".join(headers))
    inner = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return Html(f'<div class="wide" tabindex="0" role="group" aria-label="{label}">{inner}</div>')


def _kind(column: int, left: int) -> str:
    return "" if column < left else ' class="n"'


def pairs(rows: Iterable[tuple[str, Cell]]) -> Html:
    """Return a table of two columns: names and values."""
    body = "".join(f"<tr><th scope='row'>{escape(a)}</th><td class='n'>{markup(b)}</td></tr>" for a, b in rows)
    return Html(f'<table class="pairs"><tbody>{body}</tbody></table>')


def facts(rows: Iterable[tuple[str, Cell]]) -> Html:
    body = "".join(f"<div><dt>{escape(a)}</dt><dd>{markup(b)}</dd></div>" for a, b in rows)
    return Html(f'<dl class="facts">{body}</dl>')


def keys(found: Iterable[Key]) -> Html:
    cards = []
    for key in found:
        value = toned(key.value, key.tone)
        kind = "key long" if len(key.value) > ROOM else "key"
        card = f"<h2>{escape(key.label)}</h2><b>{value}</b><small>{escape(key.below)}</small>"
        cards.append(f'<div class="{kind}">{card}</div>')
    return Html(f'<section class="keys">{"".join(cards)}</section>')


def card(title: Cell, body: Html, note: str = "", kind: str = "") -> Html:
    below = f'<p class="note">{escape(note)}</p>' if note else ""
    return Html(f'<section class="card {kind}"><h2>{markup(title)}</h2>{body}{below}</section>')


def command(text: str) -> Html:
    button = '<button type="button" class="copy" title="copy the command">copy</button>'
    words = " ".join(f"<span>{escape(word)}</span>" for word in text.split(" "))  # lines break between words only
    return Html(f'<div class="command"><code>{words}</code>{button}</div>')


class Figures:
    """The figures of a page. Each has an empty box in the HTML, which the page's script fills."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = {}

    @staticmethod
    def plain(figure: Any) -> dict[str, Any]:
        """Return a figure in the form that the page's script reads, with title and note as separate fields."""
        plot = figure.to_plotly_json()
        layout = plot["layout"]
        title, note = layout.pop("title")["text"], layout.pop("meta")["note"]
        layout["margin"] = {**layout["template"]["layout"]["margin"], "t": 28, **layout.get("margin", {})}
        return {"data": plot["data"], "layout": layout, "title": title, "note": note}

    def card(self, name: str, figure: Any, kind: str = "", above: Html | None = None) -> Html:
        """Return a card with the figure's title and note; `above` is put between title and plot."""
        plot = self.plain(figure)
        self._found[name] = plot
        title, height = plot["title"], plot["layout"]["height"]
        label = f'role="group" aria-label="{title}"'  # escaped already when the figure was made
        box = f'{above or ""}<div class="plot" id="{name}" style="height:{height}px" {label}></div>'
        return card(Html(title), Html(box), plot["note"], kind)

    def to_dict(self) -> dict[str, Any]:
        return self._found


def render(title: str, subtitle: str, body: Iterable[Html], figures: Figures, more: Mapping[str, Any]) -> str:
    """Return the page as HTML. `more` is further data for the page's script."""
    script = _resource("page.js")
    plotly, digest = _plotly()
    data = {"figures": figures.to_dict(), "light": LIGHT, "dark": DARK, **more}
    return Template(_resource("page.html")).substitute(
        policy=f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
        f"script-src '{_hash(script.encode())}' '{digest}'",
        title=escape(title),
        subtitle=escape(subtitle),
        style=_resource("page.css") + _colors(),
        script=script,
        body="\n".join(body),
        version=escape(__version__),
        data=_pack(msgspec.json.encode(data)),
        plotly=plotly,
    )


@cache
def _resource(name: str) -> str:
    return files("candlemill.report").joinpath(name).read_text(encoding="utf-8")


@cache
def _plotly() -> tuple[str, str]:
    source = files("plotly").joinpath("package_data/plotly.min.js").read_bytes()
    return _pack(source), _hash(source)


def _hash(script: bytes) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script).digest()).decode()


def _pack(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 6)).decode()


def _colors() -> str:
    """Return the figures' colours as CSS variables, so that the page uses the same ones."""

    def block(colors: Mapping[str, str]) -> str:
        return "".join(f"--{name}:{value};" for name, value in colors.items())

    dark = f":root{{{block(DARK)}}}"
    return (
        f":root{{--font:{FONT};{block(LIGHT)}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{block(DARK)}}}}}"
        f"@media screen{{{dark.replace(':root', ':root[data-theme=dark]')}}}"
    )
