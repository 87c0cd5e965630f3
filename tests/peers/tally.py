"""What a test module counted, as a table: written into the page that CANDLEMILL_PEERS_PAGE names.

The page has a line `<!-- counted: NAME -->` before each table and `<!-- end -->` after it.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from deals import Agreement, Run

PAGE_VARIABLE = "CANDLEMILL_PEERS_PAGE"
HEADERS = ("compared", "runs", "trades", "the same", "not", "why not", "price apart", "money apart")


class Line:
    def __init__(self) -> None:
        self.runs = self.trades = self.same = self.other = 0
        self.prices = self.money = 0.0
        self.reasons: Counter[str] = Counter()

    def cells(self) -> tuple[str, ...]:
        reasons = "; ".join(f"{reason}: {count:,}" for reason, count in self.reasons.most_common())
        counts = (f"{count:,}" for count in (self.runs, self.trades, self.same, self.other))
        return (*counts, reasons or "–", f"{self.prices:.1f}", f"{self.money:.1f}")


class Tally:
    def __init__(self) -> None:
        self.lines: dict[str, Line] = {}

    def add(self, what: str, run: Run, found: Agreement, reasons: Counter[str] | None = None) -> None:
        """One comparison. `reasons` has one for each trade that is in one program only."""
        line = self.lines.setdefault(what, Line())
        line.runs += 1
        line.trades += len(run.deals)
        line.same += found.same
        line.other += len(found.only_ours) + len(found.only_theirs)
        line.prices, line.money = max(line.prices, found.prices), max(line.money, found.money)
        line.reasons += reasons or Counter()

    def table(self) -> str:
        rows = [HEADERS, ("---",) * len(HEADERS)] + [(what, *line.cells()) for what, line in self.lines.items()]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)


@pytest.fixture(scope="module")
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    found = Tally()
    yield found
    page = os.environ.get(PAGE_VARIABLE)
    if page:
        write(Path(page), request.module.PEER, found.table())


def write(page: Path, name: str, table: str) -> None:
    mark = f"<!-- counted: {name} -->\n"
    text = page.read_text()
    fresh, times = re.subn(f"({re.escape(mark)}).*?(<!-- end -->)", rf"\g<1>{table}\n\g<2>", text, flags=re.DOTALL)
    if times != 1:
        raise ValueError(f"{page} has no place for {name}: {mark.strip()} ... <!-- end -->")
    page.write_text(fresh)
