"""Tables of stored candles for people: coverage by month of one symbol, and of all symbols."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from candlemill.formatting import table
from candlemill.stored_days import Day, missing_in, missing_of, months_of
from candlemill.units import iso


def coverage_rows(days: Sequence[Day]) -> list[dict[str, Any]]:
    """Return a row per month of a symbol, including months without candles: rows, first and last candle, missing
    minutes, digest. The missing minutes add up to the symbol's."""
    if not days:
        return []
    first, last = days[0].first, days[-1].last
    out = []
    for month in months_of(days, empty=True):
        members = [day for day in days if month.start <= day.start < month.end]
        out.append(
            {
                "month": iso(month.start)[:7],
                "rows": month.rows,
                "first": members[0].first if members else None,
                "last": members[-1].last if members else None,
                "missing_minutes": missing_in(month, first, last),
                "data_digest": month.digest,
            }
        )
    return out


def coverage(symbol: str, days: Sequence[Day]) -> str:
    rows = coverage_rows(days)
    cells = []
    for has_rows, group in groupby(rows, lambda row: row["rows"] > 0):
        months = list(group)
        if has_rows:
            cells += [_month_cells(row) for row in months]
        else:
            missing = sum(row["missing_minutes"] for row in months)
            span = months[0]["month"] + (f"..{months[-1]['month']}" if len(months) > 1 else "")
            cells.append([span, "0", "", "", f"{missing:,}", ""])
    headers = ["month", "rows", "first", "last", "missing", "digest"]
    total = f"{symbol}: {sum(r['rows'] for r in rows):,} rows, {missing_of(days):,} minutes missing from first to last"
    return f"{table(cells, headers, right=(1, 4))}\n{total}"


def _month_cells(row: Mapping[str, Any]) -> list[str]:
    first, last, missing = iso(row["first"]), iso(row["last"]), f"{row['missing_minutes']:,}"
    return [row["month"], f"{row['rows']:,}", first, last, missing, row["data_digest"][:16]]


def coverage_summary(symbols: Mapping[str, Sequence[Day]]) -> str:
    cells = []
    for symbol, days in symbols.items():
        rows = coverage_rows(days)
        if rows:
            total, missing = sum(r["rows"] for r in rows), missing_of(days)
            cells.append(
                [
                    symbol,
                    f"{total:,}",
                    iso(days[0].first),
                    iso(days[-1].last),
                    f"{missing:,}",
                    str(sum(r["rows"] > 0 for r in rows)),
                ]
            )
    return table(cells, ["symbol", "rows", "first", "last", "missing", "months"], right=(1, 4, 5))
