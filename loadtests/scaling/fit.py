"""From what jobs of some sizes cost to what a job of any size does: sums of non-negative coefficients times sizes."""

import itertools
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from loadtests.scaling.measure import Sample
from loadtests.scaling.model import Costs, Part

BATCH = 512
GUARDED_SETS = 10_000  # the figures of a sweep look at the days of no more
Sizes = Callable[[Sample], tuple[float, ...]]


class Law(msgspec.Struct, frozen=True):
    """CPU seconds for each unit of its sizes: of the function, of the store."""

    own: list[float]
    store: list[float]

    def at(self, *sizes: float) -> Part:
        return Part(
            sum(a * b for a, b in zip(self.own, sizes, strict=True)),
            sum(a * b for a, b in zip(self.store, sizes, strict=True)),
        )


class Laws(msgspec.Struct, frozen=True):
    """The sizes of each are in its comment."""

    split: Law  # 1, tasks
    read: Law  # 1, bars
    compute: Law  # 1, bars * sets
    write: Law  # 1, sets
    reported: Law  # 1
    merge: Law  # sets, sets * days
    figures: Law  # sets, sets * days

    def costs(self, days: float, slices: int, sets: int, hop: float, publish: float, start: float) -> Costs:
        """Of a sweep over so many days and sets. Repairs are of one set. `publish` is what
        saying an event costs."""
        bars, each = 1440 * days / slices, min(BATCH, sets)
        one, task = self.split.at(1, 0), self.split.at(0, 1)
        compute = self.compute.at(1, bars * each)
        guarded = min(sets, GUARDED_SETS)
        return Costs(
            hop=hop,
            split=one,
            split_task=task + Part(publish),
            ask=Part(0.0, compute.store),
            read=self.read.at(1, bars),
            compute=compute.own,
            write=self.write.at(1, each),
            reported=self.reported.at(1),
            merge=self.merge.at(each, each * days),
            repair=Part(self.compute.at(1, bars).own),
            figures=self.figures.at(guarded, guarded * days),
            start=start,
        )


def laws_of(samples: Sequence[Sample]) -> Laws:
    def law(part: str, sizes: Sizes) -> Law:
        rows = [sizes(one) for one in samples]
        return Law(
            nonnegative(rows, [one.cost[part].own for one in samples]),
            nonnegative(rows, [one.cost[part].store for one in samples]),
        )

    return Laws(
        split=law("split", lambda one: (1, one.slices * -(-one.sets // BATCH))),
        read=law("read", lambda one: (1, one.bars)),
        compute=law("compute", lambda one: (1, one.bars * min(one.sets, BATCH))),
        write=law("write", lambda one: (1, min(one.sets, BATCH))),
        reported=law("reported", lambda one: (1,)),
        merge=law("merge", lambda one: (min(one.sets, BATCH), min(one.sets, BATCH) * one.days)),
        figures=law("figures", lambda one: (one.sets, one.sets * one.days)),
    )


def nonnegative(rows: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """The least squares with no coefficient below 0: the best of all choices of columns that have none."""
    matrix, wanted = np.array(rows, dtype=float), np.array(values, dtype=float)
    width = matrix.shape[1]
    best, found = float(wanted @ wanted), [0.0] * width
    for count in range(1, width + 1):
        for chosen in itertools.combinations(range(width), count):
            part, *_ = np.linalg.lstsq(matrix[:, chosen], wanted, rcond=None)
            if (part < 0).any():
                continue
            miss = float(((matrix[:, chosen] @ part - wanted) ** 2).sum())
            if miss < best:
                best, found = miss, [0.0] * width
                for column, value in zip(chosen, part.tolist(), strict=True):
                    found[column] = value
    return found
