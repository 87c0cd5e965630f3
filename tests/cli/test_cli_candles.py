"""What ingest and coverage say."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from candlemill.config import DSN_VARIABLE
from candlemill.exchanges.binance.outages import EDGE_MS, divide_holes, known_outages
from candlemill.units import parse_range
from conftest import Cli, days, said, write_zip

DATA = Path(__file__).parents[2].parent / "shared" / "data"
needs_real_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"real candles are not at {DATA}")


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(DSN_VARIABLE, f"chdb://{tmp_path / 'db'}")
    return tmp_path


def test_every_refused_file_is_named_in_text_and_json(run: Cli, empty: Path) -> None:
    folder = empty / "files"
    write_zip(folder, "AAAUSDT-1m-2024-02-01", days(7, 31, 1))
    bad = [write_zip(folder, f"{name}-1m-2024-02-01", b"hello\n") for name in ("BBBUSDT", "CCCUSDT")]
    (folder / "notes.txt").write_text("mine")
    other = write_zip(empty, "BTC-USDT-1m-2024-02-01", days(7, 31, 1))
    status, out, err = run("ingest", folder, other, "--json")
    report = json.loads(out)
    assert status == 2 and err.count("\n") == 1 and "(and 2 more files refused; 1 stored)" in err
    assert report["error"]["code"] == "bad_file" and report["symbols"] == ["AAAUSDT"]
    assert [(one["file"], one["line"]) for one in report["refused"]] == [
        (str(other), None),
        (str(bad[0]), 1),
        (str(bad[1]), 1),
    ]
    assert "BTC-USDT is not all upper-case letters and digits" in report["refused"][0]["reason"]
    assert [one["file"] for one in report["ignored"]] == [str(folder / "notes.txt")]
    status, out, err = run("ingest", folder, other)
    assert status == 2 and all(f"refused {one['file']}" in out for one in report["refused"])


def test_a_single_refused_file_says_why(run: Cli, empty: Path) -> None:
    file = write_zip(empty, "BTCUSDT-5m-2024-02-01", days(7, 31, 1))
    for where in (file, empty):
        status, _, err = run("ingest", where)
        assert status == 2 and "interval 5m, only 1m candles are supported" in err


def test_months_and_empty_months_add_up_to_the_total(run: Cli, empty: Path) -> None:
    write_zip(empty / "files", "AAAUSDT-1m-2024-01", days(1, 20, 2))
    write_zip(empty / "files", "AAAUSDT-1m-2024-05", days(1, 140, 2))
    run("ingest", empty / "files")
    months = said(run("coverage", "AAAUSDT", "--json"))["symbols"]["AAAUSDT"]
    assert [month["month"] for month in months] == ["2024-01", "2024-02", "2024-03", "2024-04", "2024-05"]
    assert [month["rows"] for month in months] == [2880, 0, 0, 0, 2880] and months[1]["first"] is None
    missing = [month["missing_minutes"] for month in months]
    assert missing == [9 * 1440, 29 * 1440, 31 * 1440, 30 * 1440, 19 * 1440] and sum(missing) == 118 * 1440
    text = run("coverage", "AAAUSDT")[1]
    assert "169,920 minutes missing from first to last" in text and "2024-02..2024-04" in text


# -- known outages -----------------------------------------------------------------------------------------------------


def test_a_known_outage_is_binances_own_and_its_edges_may_differ() -> None:
    start, end = parse_range("2021-04-25T04:01..2021-04-25T08:44")
    assert end - start == 284 * 60_000, "as in BTCUSDT"
    assert divide_holes("BTCUSDT", [(start, end)]) == ([(start, end)], [])
    assert divide_holes("XRPUSDT", [(start + 60_000, end)])[1] == [], "begins a minute later"
    day = 86_400_000
    assert divide_holes("BTCUSDT", [(start - day, end)]) == (
        [(start - EDGE_MS, end)],
        [(start - day, start - EDGE_MS)],
    )
    for other in ("BYBIT:BTCUSDT", "BINANCE-UM:BTCUSDT"):
        assert divide_holes(other, [(start, end)]) == ([], [(start, end)]), "another market's outages are its own"
    halt = parse_range("2020-11-30T06:00..2020-11-30T06:59")
    assert divide_holes("ETHBTC", [halt])[1] == [] and divide_holes("BTCUSDT", [halt])[0] == []
    spans = np.array(known_outages("BTCUSDT"))
    assert (spans[:, 0] < spans[:, 1]).all() and (np.diff(spans[:, 0]) > 0).all()


@needs_real_data
def test_every_outage_in_real_candles_is_reported_from_what_is_missing_here(run: Cli, empty: Path) -> None:
    folder = empty / "files"
    folder.mkdir()
    for name in ("BTCUSDT", "XRPUSDT", "XTZBTC"):
        for file in (DATA / "spot").glob(f"{name}-1m-202[01]-*.zip"):
            shutil.copy(file, folder)
    run("ingest", folder)
    found = said(run("coverage", "--check", "--json"))["symbols"]
    assert [sum(row["minutes"] for row in one["outages"]) for one in found.values()] == [284, 283, 542]
    assert [one["missing"] for one in found.values()] == [[], [], []]
    assert "here" not in run("coverage", "--check")[1]
