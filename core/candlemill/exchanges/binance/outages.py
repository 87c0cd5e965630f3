"""Outages of Binance's spot market: minutes for which no source has candles.

Times are the first minute and the one after the last, UTC, as BTCUSDT shows them; other symbols begin or end a few
minutes earlier or later. Sources: github.com/binance/binance-public-data issues 365, 368, 169 and 312, ccxt issue 8068;
those of 2019-08 on are mostly seen in candles, that of 2019-08-15 in candles of two hours only. During a
HALT there are candles without volume, during a BREAK there are none.
"""

from collections.abc import Iterable
from functools import cache
from typing import Final

from candlemill.intervals import Interval, IntervalSet
from candlemill.units import parse_range

EDGE_MS: Final = 5 * 60_000
"""How far a symbol's outage may reach beyond that of BTCUSDT."""

_EVERYWHERE: Final = """
2017-09-06T16:00..2017-09-06T23:00
2017-12-04T06:00..2017-12-04T06:49
2017-12-18T10:00..2017-12-18T10:14
2017-12-18T12:29..2017-12-18T13:34
2018-01-04T03:00..2018-01-04T05:06
2018-02-08T00:28..2018-02-09T10:00
2018-02-10T06:00..2018-02-10T06:15
2018-02-11T04:00..2018-02-11T04:35
2018-06-26T02:00..2018-06-26T12:00
2018-06-27T13:00..2018-06-27T14:45
2018-07-04T00:22..2018-07-04T08:00
2018-10-19T06:00..2018-10-19T09:30
2018-11-14T02:00..2018-11-14T09:00
2019-03-12T02:00..2019-03-12T08:00
2019-05-15T03:00..2019-05-15T13:00
2019-06-07T21:13..2019-06-07T22:15
2019-08-15T02:00..2019-08-15T10:00
2019-11-13T02:00..2019-11-13T04:19
2019-11-13T05:30..2019-11-13T05:32
2019-11-25T02:00..2019-11-25T03:59
2020-02-09T02:00..2020-02-09T02:59
2020-02-19T11:36..2020-02-19T17:29
2020-03-04T09:22..2020-03-04T11:29
2020-04-25T02:00..2020-04-25T04:29
2020-06-28T02:00..2020-06-28T05:29
2020-12-21T13:47..2020-12-21T17:59
2020-12-25T02:00..2020-12-25T02:59
2021-02-11T03:41..2021-02-11T04:59
2021-03-06T02:00..2021-03-06T03:29
2021-04-20T02:00..2021-04-20T04:29
2021-04-25T04:01..2021-04-25T08:44
2021-08-13T02:00..2021-08-13T06:29
2021-09-29T07:00..2021-09-29T08:59
2023-03-24T12:40..2023-03-24T13:59
"""

_OF_SYMBOLS: Final = {
    "2020-11-30T06:00..2020-11-30T06:59": ("ETHBTC", "DATAUSDT"),
    "2022-09-29..2023-03-12": ("USDCUSDT", "ETHUSDC"),  # not listed
}


@cache
def known_outages(symbol: str) -> tuple[Interval, ...]:
    """Stretches `start <= t < end` (ms) in which Binance is known to have no candles of a stored symbol, edges
    included; nothing for other markets and exchanges, whose names have a prefix."""
    if ":" in symbol:
        return ()
    spans = _EVERYWHERE.split() + [text for text, symbols in _OF_SYMBOLS.items() if symbol in symbols]
    return tuple((start - EDGE_MS, end + EDGE_MS) for start, end in map(parse_range, spans))


def divide_holes(symbol: str, holes: Iterable[Interval]) -> tuple[list[Interval], list[Interval]]:
    """Missing stretches that are Binance's own, and the others; one that only begins or ends in an outage is cut."""
    at_exchange, here = IntervalSet(), IntervalSet(holes)
    whole = IntervalSet(here)
    for start, end in known_outages(symbol):
        for a, b in whole.within(start, end):
            at_exchange.add(a, b)
        here.remove(start, end)
    return list(at_exchange), list(here)
