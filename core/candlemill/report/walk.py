"""The report of a walk-forward: parameters chosen in one stretch, traded in the next."""

from collections.abc import Mapping, Sequence
from typing import Any

from candlemill.command import value_text
from candlemill.model import SCALE
from candlemill.report import units, walk_figures
from candlemill.report.facts import identity_of, range_text
from candlemill.report.guards_card import guard_cards
from candlemill.report.metrics_table import label, shown
from candlemill.report.page import Cell, Figures, Html, Key, card, command, facts, keys, render, table, toned
from candlemill.report.run import headline, run_cards, run_facts, zoom_of
from candlemill.trace import Trace

Fold = Mapping[str, Any]


def page(found: Mapping[str, Any]) -> str:
    trace: Trace = found["trace"]
    folds: Sequence[Fold] = found["folds"]
    score = str(found.get("score", "sharpe_ratio"))
    boxes, spec = Figures(), trace.spec
    body = [
        keys(walk_headline(trace, folds)),
        card("What was run", _what(found)),
        boxes.card("equity", walk_figures.stitched(found)),
        boxes.card("scores", walk_figures.scores(folds, score)),
        *guard_cards(found.get("guards")),
        card("Folds", fold_table(trace, folds, score), kind="long"),
        *run_cards(trace, boxes),
    ]
    title = f"{spec.symbol} · {spec.strategy} · walk-forward, {len(folds):,} folds"
    return render(title, f"{range_text(spec)}, out of sample", body, boxes, zoom_of(trace))


def walk_headline(trace: Trace, folds: Sequence[Fold]) -> list[Key]:
    """A run's headline; exposure and fees give way to how the folds did."""
    keys = [key for key in headline(trace) if key.label not in ("Fees", "Exposure")]
    profits = fold_profits(trace, folds)
    gained = sum(profit > 0 for profit in profits)
    promised, kept = (sum(fold[key] for fold in folds) for key in ("in_sample", "out_of_sample"))
    efficiency = kept * SCALE // promised if promised > 0 else None
    return [
        *keys,
        Key("Folds with a profit", f"{gained:,} of {len(folds):,}", "out of sample"),
        Key("Efficiency", units.percent(efficiency), "score out of sample over in sample"),
    ]


def fold_profits(trace: Trace, folds: Sequence[Fold]) -> list[int]:
    """Each test's profit: of its UTC days."""
    days = [(trace.days >= fold["test_start"]) & (trace.days < fold["test_end"]) for fold in folds]
    return [int(trace.daily[inside].sum()) for inside in days]


def _what(found: Mapping[str, Any]) -> Html:
    trace = found["trace"]
    text = Html(facts(run_facts(trace)) + facts(identity_of(trace.result)))
    return Html(text + command(found["command"])) if found.get("command") else text


def fold_table(trace: Trace, folds: Sequence[Fold], score: str) -> Html:
    """One row per fold; a click shows its test in the price figure."""
    profits = fold_profits(trace, folds)
    largest = max((abs(profit) for profit in profits), default=0)
    efficiency = any("efficiency" in fold for fold in folds)
    names = list(dict.fromkeys(name for fold in folds for name in fold["params"]))
    rows: list[list[Cell]] = [
        [
            str(k + 1),
            f"{units.day(fold['test_start'])} – {units.day(fold['test_end'] - 1)}",
            *(value_text(fold["params"][name]) if name in fold["params"] else units.NO_VALUE for name in names),
            shown(score, fold["in_sample"]),
            toned(shown(score, fold["out_of_sample"]), fold["out_of_sample"]),
            *([units.percent(fold.get("efficiency"))] if efficiency else []),
            toned(units.money(profit, largest), profit),
            f"{units.day(fold['train_start'])} – {units.day(fold['train_end'] - 1)}",
        ]
        for k, (fold, profit) in enumerate(zip(folds, profits, strict=True))
    ]
    spans = [f'data-exact data-from="{fold["test_start"]}" data-to="{fold["test_end"]}"' for fold in folds]
    text = label(score)
    judged = [f"{text} in sample", "out of sample", *(["efficiency"] if efficiency else [])]
    headers = ["fold", "traded in", *names, *judged, "profit", "chosen in"]
    return table(headers, rows, left=2, names=spans)
