"""Several writers of the same day: no digest ever stands for rows that it does not cover, wherever one of them dies."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from candlemill.io import coverage
from candlemill.io.coverage import Columns, count_days, current_days, recount, touched_days, write
from candlemill.io.store import PRICES, Store

MIDNIGHT = 1_709_164_800_000
DAY_MS = 86_400_000
MINUTE_MS = 60_000


def part(first: int, length: int, price: int = 10**10) -> Columns:
    t = MIDNIGHT + MINUTE_MS * np.arange(first, first + length, dtype=np.int64)
    columns: Columns = {name: np.full(length, price, np.int64) for name in PRICES}
    return {"t": t, **columns, "volume": np.arange(length, dtype=np.uint64)}


class Writer:
    """One process's steps, one by one: open, mark, insert, close, count."""

    def __init__(self, store: Store, name: str, rows: Columns) -> None:
        self.store, self.name, self.rows = store, name, rows
        self.steps = self._steps()

    def _steps(self) -> Iterator[None]:
        days = touched_days({"X": self.rows})
        with as_writer(self.name):
            opened = coverage.open_writer(self.store, days, MIDNIGHT, MIDNIGHT + DAY_MS - 1)
        stages = stage_calls(self.store, opened)
        yield from stages(self.name)
        self.store.insert_rows([("X", self.rows)])
        yield
        with as_writer(self.name):
            opened.__exit__(None, None, None)
        yield
        yield from counting(self.store, self.name, days)

    def go(self) -> bool:
        return next(self.steps, "end") != "end"


class as_writer:
    """This process speaks for another writer for a moment."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(coverage, "WRITER", self.name)

    def __exit__(self, *_: object) -> None:
        self.patch.undo()


def stage_calls(store: Store, opened: object) -> Callable[[str], Iterator[None]]:
    """Opening, with a pause between the slot and the marks."""

    def run(name: str) -> Iterator[None]:
        done: list[Callable[[], None]] = []
        real_put = store.put_days
        with as_writer(name), pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "put_days", lambda found, version=None: done.append(lambda: real_put(found, version)))
            opened.__enter__()  # type: ignore[attr-defined]
        yield
        done[0]()
        yield

    return run


def later(done: list[Callable[[], None]], real: Callable[..., None]) -> Callable[..., None]:
    """Instead of a call, the call to be made later."""
    return lambda *arguments: done.append(lambda: real(*arguments))


def counting(store: Store, name: str, days: dict[str, list[int]]) -> Iterator[None]:
    """Counting, with a pause between the reading and the writing of the digest."""
    done: list[Callable[[], None]] = []
    real_put = store.put_days
    with as_writer(name), pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "put_days", later(done, real_put))
        recount(store, days)
    yield
    for put in done:
        put()


def true(store: Store) -> None:
    """Every digest that is not empty is that of the stored rows."""
    columns = store.read_columns("X", MIDNIGHT, MIDNIGHT + DAY_MS, coverage.CANDLE_COLUMNS[1:])
    counted = {day.start: day for day in count_days(columns)}
    for day in store.days("X"):
        assert not day.digest or counted.get(day.start) == day


@pytest.fixture
def shared(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An embedded store that believes to be one that others reach too."""
    with Store(f"chdb://{tmp_path_factory.mktemp('writers') / 'db'}") as store:
        monkeypatch.setattr(store, "embedded", False)
        monkeypatch.setattr(store, "_insert", lambda table, rows: plain_insert(store, table, rows))
        yield store


def plain_insert(store: Store, table: str, rows: object) -> None:
    store.embedded = True
    try:
        Store._insert(store, table, rows)  # type: ignore[arg-type]
    finally:
        store.embedded = False


@pytest.mark.parametrize("seed", range(3))
def test_two_writers_in_any_order_with_a_death_anywhere(shared: Store, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(6):
        shared._client.command("TRUNCATE TABLE market_data_1m")
        shared._client.command("TRUNCATE TABLE coverage_days")
        shared._client.command("TRUNCATE TABLE candle_writers")
        writers = [Writer(shared, "A", part(0, 5)), Writer(shared, "B", part(3, 6, price=2 * 10**10))]
        dies = int(rng.integers(0, 2)) if rng.random() < 0.5 else -1
        life = int(rng.integers(1, 6))
        steps = [0, 0]
        alive = [0, 1]
        while alive:
            k = alive[int(rng.integers(0, len(alive)))]
            if k == dies and steps[k] >= life:
                alive.remove(k)
                continue
            steps[k] += 1
            if not writers[k].go():
                alive.remove(k)
            if not (dies >= 0 and dies not in alive):
                true_unless_under_way(shared)
        true(shared)
        # Whoever asks gets the truth, and when the lease of the dead is over the index has it too.
        asked = list(current_days(shared, "X"))
        columns = shared.read_columns("X", MIDNIGHT, MIDNIGHT + DAY_MS, coverage.CANDLE_COLUMNS[1:])
        assert asked == count_days(columns)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(coverage, "LEASE_NS", 0)
            current_days(shared, "X")
        assert shared.days("X") == count_days(columns)


def true_unless_under_way(store: Store) -> None:
    """A digest that stands while rows come must already be outranked: so it is true at every moment."""
    true(store)


def test_a_foreign_writer_keeps_days_unsure_until_it_is_done(shared: Store) -> None:
    other = Writer(shared, "B", part(10, 5))
    other.go()
    write(shared, {"X": part(0, 5)})
    assert not recount(shared, {"X": [MIDNIGHT]}).kept
    assert [day.digest for day in shared.days("X")] == [""]
    assert current_days(shared, "X")[0].rows == 5
    while other.go():
        pass
    assert current_days(shared, "X")[0].rows == 10 and shared.days("X")[0].rows == 10


def test_an_embedded_database_has_no_other_writers(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One process opens it: whoever left a slot open there is dead."""
    with Store(f"chdb://{tmp_path_factory.mktemp('one') / 'db'}") as store:
        store.put_writer("dead", store.now_ns(), True, MIDNIGHT, MIDNIGHT + DAY_MS)
        write(store, {"X": part(0, 5), "Y": part(2, 3)})
        assert recount(store, {"X": [MIDNIGHT], "Y": [MIDNIGHT]}).kept
        assert [day.rows for name in ("X", "Y") for day in store.days(name)] == [5, 3]


def test_many_symbols_are_one_part_and_months_one_each(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Store(f"chdb://{tmp_path_factory.mktemp('parts') / 'db'}") as store:
        parts = {f"S{k}USDT": part(0, 3) for k in range(200)}
        parts["LATE"] = part(1439, 3)  # over the end of February
        write(store, parts)
        sql = "SELECT count() FROM system.parts WHERE active AND table = 'market_data_1m' AND rows > 0"
        assert store._rows(sql, {})[0][0] == 2
        found = store.read_many(list(parts), 0, 1 << 42)
        assert all((found[name][c] == column).all() for name, rows in parts.items() for c, column in rows.items())
        write(store, {"S0USDT": part(1, 1, price=5)})
        assert store.read_many(["S0USDT", "none"], 0, 1 << 42)["S0USDT"]["open"].tolist() == [10**10, 5, 10**10]
