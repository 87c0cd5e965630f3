"""The report of a walk-forward: parameters are chosen in one range and traded in the next."""

from collections.abc import Mapping, Sequence
from typing import Any

from candlemill import formatting
from candlemill.backtests.command_line import value_text
from candlemill.backtests.metric_table import label, shown
from candlemill.backtests.replay import Replay
from candlemill.report import times, walk_figures
from candlemill.report.facts import identity_of, range_text
from candlemill.report.guards_card import guard_cards
from candlemill.report.page import Cell, Figures, Html, Key, card, command, facts, keys, render, table, toned
from candlemill.report.run import headline, run_cards, run_facts, zoom_of
from candlemill.units import ratio

Fold = Mapping[str, Any]


def page(found: Mapping[str, Any]) -> str:
    trace: Replay = found["trace"]
    folds: Sequence[Fold] = found["folds"]
    score = str(found.get("score", "sharpe_ratio"))
    boxes, spec = Figures(), trace.spec
    body = [
        keys(walk_headline(trace, folds)),
        boxes.card("equity", walk_figures.stitched(found)),
        boxes.card("scores", walk_figures.scores([fold for fold in folds if fold["params"]], score)),
        *guard_cards(found.get("guards")),
        card("Folds", fold_table(trace, folds, score), kind="long"),
        *run_cards(trace, boxes),
        card("What was run", _what(found)),
    ]
    title = f"{spec.symbol} · {spec.strategy} · walk-forward, {len(folds):,} folds"
    return render(title, f"{range_text(spec)}, out of sample", body, boxes, zoom_of(trace))


def walk_headline(trace: Replay, folds: Sequence[Fold]) -> list[Key]:
    """Return a run's headline, with figures of the folds instead of exposure and fees."""
    keys = [key for key in headline(trace) if key.label not in ("Fees", "Exposure")]
    profits = fold_profits(trace, folds)
    gained = sum(profit > 0 for profit in profits)
    promised, kept = (sum(fold[key] or 0 for fold in folds) for key in ("in_sample", "out_of_sample"))
    efficiency = ratio(kept, promised) if promised > 0 else None
    return [
        *keys,
        Key("Folds with a profit", f"{gained:,} of {len(folds):,}", "out of sample"),
        Key("Efficiency", formatting.percent(efficiency), "score out of sample over in sample"),
    ]


def fold_profits(trace: Replay, folds: Sequence[Fold]) -> list[int]:
    """Return the profit of each fold's test: the sum over its UTC days."""
    days = [(trace.days >= fold["test_start"]) & (trace.days < fold["test_end"]) for fold in folds]
    return [int(trace.daily[inside].sum()) for inside in days]


def _what(found: Mapping[str, Any]) -> Html:
    trace = found["trace"]
    text = Html(facts(run_facts(trace)) + facts(identity_of(trace.result)))
    return Html(text + command(found["command"])) if found.get("command") else text


def fold_table(trace: Replay, folds: Sequence[Fold], score: str) -> Html:
    """Return a table with one row per fold; a click on a row shows its test in the price figure."""
    profits = fold_profits(trace, folds)
    largest = formatting.largest_of(profits)
    scores = {name: formatting.largest_of(fold[name] for fold in folds) for name in ("in_sample", "out_of_sample")}

    def judge(fold: Fold, name: str) -> str:
        return shown(score, fold[name], trace.spec.sizing, scores[name])

    efficiency = any("efficiency" in fold for fold in folds)
    names = list(dict.fromkeys(name for fold in folds for name in fold["params"]))
    rows: list[list[Cell]] = [
        [
            str(k + 1),
            f"{times.day(fold['test_start'])} – {times.day(fold['test_end'] - 1)}",
            *(value_text(fold["params"][name]) if name in fold["params"] else formatting.NO_VALUE for name in names),
            judge(fold, "in_sample"),
            toned(judge(fold, "out_of_sample"), fold["out_of_sample"] or 0),
            *([formatting.percent(fold.get("efficiency"))] if efficiency else []),
            toned(formatting.money(profit, largest), profit),
            f"{times.day(fold['train_start'])} – {times.day(fold['train_end'] - 1)}",
        ]
        for k, (fold, profit) in enumerate(zip(folds, profits, strict=True))
    ]
    spans = [f'data-exact data-from="{fold["test_start"]}" data-to="{fold["test_end"]}"' for fold in folds]
    text = label(score)
    judged = [f"{text} in sample", "out of sample", *(["efficiency"] if efficiency else [])]
    headers = ["fold", "traded in", *names, *judged, "profit", "chosen in"]
    return table(headers, rows, left=2, names=spans)
