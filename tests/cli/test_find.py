"""`candlemill jobs`, `label` and `diff`: a job is found again, and what differs between two is reported."""

from typing import Any

import candlemill as cm
import pytest
from conftest import Cli, said

pytestmark = pytest.mark.usefixtures("database")
RUN = ("backtest", "--symbol", "AAAUSDT", "--strategy", "sma_cross", "--param", "slow=20", "--json")
GRID = ("--symbol", "AAAUSDT", "--strategy", "sma_cross", "--grid", "fast=5,10", "--grid", "slow=20,30", "--json")


@pytest.fixture
def jobs(run: Cli) -> dict[str, dict[str, Any]]:
    return {
        "five": said(run(*RUN, "--param", "fast=5")),
        "ten": said(run(*RUN, "--param", "fast=10")),
        "stop": said(run(*RUN, "--param", "fast=10", "--stop-loss", "1%", "--range", "2024-01-30..2024-02-03")),
        "sweep": said(run("sweep", *GRID)),
        "free": said(run("sweep", *GRID, "--fee", "0")),
        "walk": said(run("walk-forward", *GRID[:-1], "--train", "2d", "--test", "1d", "--json")),
    }


def ids(found: dict[str, Any]) -> set[str]:
    return {job["job_id"] for job in found["jobs"]}


def test_jobs_are_found_by_what_they_are_and_what_is_written_about_them(
    run: Cli, jobs: dict[str, dict[str, Any]]
) -> None:
    five, ten, stop, sweep, free = (jobs[name]["job_id"] for name in ("five", "ten", "stop", "sweep", "free"))
    every = said(run("jobs", "--json"))["jobs"]
    assert [job["kind"] for job in every].count("sweep") == 2 and len(every) == 6  # a sweep is a line, a set none
    assert ids(said(run("jobs", "--param", "fast=5", "--kind", "backtest", "--json"))) == {five}
    assert {sweep, free, ten, stop} <= ids(said(run("jobs", "--param", "fast=10", "--json")))
    assert ids(said(run("jobs", "--symbol", "BBBUSDT", "--json"))) == set()
    profit = jobs["ten"]["total_pnl"] / 10**8
    found = ids(said(run("jobs", f"--where=total_pnl>={profit:.8f}", f"--where=total_pnl<={profit:.8f}", "--json")))
    assert {ten, sweep} <= found and free not in found
    said(
        run(
            "label", five[:8], "Tuesday's idea", "--tag", "live", "--tag", "slow one", "--note", "look\nagain", "--json"
        )
    )
    assert (
        ids(said(run("jobs", "--tag", "live", "--json")))
        == {five}
        == ids(said(run("jobs", "--text", "AGAIN", "--json")))
    )
    said(run("label", five, "--untag", "live", "--json"))
    (job,) = said(run("jobs", "--text", "tuesday", "--json"))["jobs"]
    assert (job["label"], job["note"], job["tags"]) == ("Tuesday's idea", "look\nagain", ["slow one"])
    status, out, _ = run("jobs", "--text", "tuesday")
    assert status == 0 and '"Tuesday\'s idea" #slow one' in out and five[:12] in out
    assert said(run(*RUN, "--param", "fast=5"))["job_id"] == five  # notes are no part of a job
    table = cm.jobs(params=["fast=10"], kind="sweep")
    assert set(table["job_id"]) == {sweep, free} and table["sets"].tolist() == [4, 4]
    assert len(cm.jobs(text="nothing like it")) == 0


def test_differences_are_those_of_request_figures_and_sets(run: Cli, jobs: dict[str, dict[str, Any]]) -> None:
    five, ten, stop, sweep, free = (jobs[name]["job_id"] for name in ("five", "ten", "stop", "sweep", "free"))
    same = said(run("diff", ten, ten[:9], "--json"))
    assert not (same["request"] or same["candles"] or same["code"] or same["figures"] or same["sets"])
    found = said(run("diff", five, ten, "--json"))
    assert found["request"] == {"param fast": [5, 10]} and found["candles"] is None and found["code"] == ""
    assert found["figures"]["total_pnl"] == [jobs["five"]["total_pnl"], jobs["ten"]["total_pnl"]]
    assert "bars" not in found["figures"]
    other = said(run("diff", ten, stop, "--json"))
    assert other["request"]["stop_loss"] == [0, 10_000] and {"start", "end"} <= set(other["request"])
    assert other["candles"][0] != other["candles"][1]
    of_sweeps = cm.diff(sweep, free)
    assert of_sweeps.request == {"fee": (1000, 0)} and len(of_sweeps.sets) == 4
    status, out, err = run("diff", sweep, free)
    assert (status, err) == (0, "") and "parameter sets of both have other figures" in out


def test_other_code_is_reported(run: Cli, jobs: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    from candlemill.backtests import identity

    monkeypatch.setattr(identity, "code_digest", lambda: "another release")
    again = said(run(*RUN, "--param", "fast=5"))
    found = said(run("diff", jobs["five"]["job_id"], again["job_id"], "--json"))
    assert found["code"] == "other code: the same request and candles have another id"
    assert found["request"] == {} and found["candles"] is None and found["figures"] == {}


def test_bad_requests_are_one_line(run: Cli, jobs: dict[str, dict[str, Any]]) -> None:
    five = jobs["five"]["job_id"]
    for arguments, text in (
        (("jobs", "--where", "sharp_ratio>1"), "did you mean 'sharpe_ratio'?"),
        (("jobs", "--where", "sharpe_ratio=1"), "is not like sharpe_ratio>1.5"),
        (("jobs", "--param", "fast"), "is not like fast=10"),
        (("jobs", "--since", "yesterday"), "is not like 2023"),
        (("label", "0123456789", "x"), "unknown job"),
        (("label", five, "x" * 201), "the limit is 200"),
        (("label", five, "--tag", "a,b"), "without a comma"),
        (("label", five, "--untag", "none"), "the job has no tag 'none'"),
        (("diff", five, "0123456789"), "unknown job"),
    ):
        status, out, err = run(*arguments)
        assert (status, out, err.count("\n")) == (2, "", 1) and text in err, (arguments, err)
    for search, text in (({"tag": "x"}, "unknown term 'tag'"), ({"tags": "x"}, "give a list")):
        with pytest.raises(cm.BadInput, match=text):
            cm.jobs(**search)


def test_a_job_gets_its_notes_from_the_command_that_runs_it(run: Cli) -> None:
    notes = ("--label", "Tuesday's", "--note", "as planned", "--tag", "b", "--tag", "a")
    single = said(run(*RUN, "--param", "fast=5", *notes))["job_id"]
    sweep = said(run("sweep", *GRID, *notes[:2]))["job_id"]
    run("walk-forward", *GRID[:-1], "--train", "2d", "--test", "1d", "--tag", "walk")
    found = {job["job_id"]: job for job in said(run("jobs", "--json"))["jobs"]}
    assert [found[single][name] for name in ("label", "note", "tags")] == ["Tuesday's", "as planned", ["a", "b"]]
    assert found[sweep]["label"] == "Tuesday's"
    (walk,) = said(run("jobs", "--tag", "walk", "--json"))["jobs"]
    assert walk["kind"] == "walk_forward"
    said(run(*RUN, "--param", "fast=5"))  # notes stay where none are given
    assert said(run("jobs", "--tag", "a", "--json"))["jobs"][0]["label"] == "Tuesday's"


def test_notes_that_cannot_be_written_are_refused_before_the_job_runs(run: Cli) -> None:
    code, _, error = run(*RUN, "--param", "fast=5", "--tag", "a,b")
    assert code and "without a comma" in error
    assert run("jobs", "--json")[1].count("job_id") == 0
