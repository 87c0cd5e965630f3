"""The report of a study: the best trial beside how much of it may be luck, and all trials."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from candlemill import formatting
from candlemill.backtests.command_line import value_text
from candlemill.backtests.metric_table import is_descending, label, order_of, shown, unit_of
from candlemill.backtests.spec import Spec
from candlemill.report.facts import identity, range_text
from candlemill.report.guards_card import guard_cards
from candlemill.report.page import Cell, Figures, Html, Key, card, command, facts, keys, render, table
from candlemill.report.theme import LIGHT, figure
from candlemill.units import SCALE

TOP = 50
Trial = Mapping[str, Any]


def page(spec: Spec, study: Mapping[str, Any], importance: Mapping[str, float], again: str) -> str:
    """Return the page. `study` is a stored study as JSON has it, `again` the command line."""
    boxes, request = Figures(), study["request"]
    score = request["score"].split(",")[0]
    trials: Sequence[Trial] = study["trials"]
    body = [
        keys(_headline(study, score)),
        *guard_cards(study["guards"]),
        boxes.card("history", history(trials, score), "half"),
        boxes.card("importance", explained(importance), "half"),
        boxes.card("parallel", parallel(trials, request["space"], score)),
        card("Best trials", _table(trials, request, score), kind="long"),
        card("What was run", _what(spec, study, again)),
    ]
    title = f"{spec.symbol} · {spec.strategy} · study of {len(trials):,} trials"
    return render(title, range_text(spec), body, boxes, {})


def _headline(study: Mapping[str, Any], score: str) -> list[Key]:
    trials, guards = study["trials"], study["guards"] or {}
    best = None if study["best"] is None else trials[study["best"]]
    states = [trial["state"] for trial in trials]
    early = f"{states.count('pruned'):,} ended early, {states.count('refused'):,} refused"
    pbo = (guards.get("overfitting") or {}).get("probability")
    point = "" if best is None else ", ".join(f"{name}={value_text(v)}" for name, v in best["point"].items())
    return [
        Key("Trials", formatting.count(len(trials)), early),
        Key(f"Best {label(score)}", shown(score, None if best is None else best["score"]), point),
        Key("By luck alone", formatting.ratio(guards.get("luck_sharpe")), "Sharpe of the best of so many"),
        Key("Overfitting", formatting.percent(pbo), "probability, by CSCV", -1 if (pbo or 0) > SCALE // 2 else 0),
        Key("Deflated Sharpe", formatting.percent(guards.get("deflated_sharpe")), "that it is not luck"),
    ]


def _value(trial: Trial, score: str) -> float:
    return float(trial["score"]) / unit_of(score).scale


def history(trials: Sequence[Trial], score: str) -> Any:
    """Draw the scores of trials in their order, and the best so far."""
    done = [trial for trial in trials if trial["state"] == "done"]
    better = max if is_descending(score) else min
    best: list[float] = []
    for trial in done:
        best.append(better([*best[-1:], _value(trial, score)]))

    def marks(state: str, name: str, color: str, symbol: str) -> dict[str, Any]:
        some = [trial for trial in trials if trial["state"] == state and trial["score"] is not None]
        return {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [trial["number"] for trial in some],
            "y": [round(_value(trial, score), 6) for trial in some],
            "text": [escape(", ".join(f"{k}={value_text(v)}" for k, v in trial["point"].items())) for trial in some],
            "marker": {"color": color, "symbol": symbol, "size": 6},
            "hovertemplate": "trial %{x}: %{y:,.5~r}<br>%{text}<extra></extra>",
        }

    line = {"color": LIGHT["other"], "width": 1.5, "shape": "hv"}
    steps = {"type": "scatter", "mode": "lines", "name": "best so far", "line": line, "hoverinfo": "skip"}
    data = [
        steps | {"x": [trial["number"] for trial in done], "y": best},
        marks("done", "trial", LIGHT["line"], "circle"),
        marks("pruned", "ended early", LIGHT["muted"], "circle-open"),
    ]
    layout = {"xaxis": {"title": {"text": "trial"}}, "yaxis": {"title": {"text": label(score)}}}
    return figure("Trials in order", data, layout, "What came when; the line is the best so far.")


def explained(importance: Mapping[str, float]) -> Any:
    """Draw the share of the scores' variance that each dimension explains by itself."""
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": [escape(name) for name in importance],
        "x": [round(100 * share, 1) for share in importance.values()],
        "marker": {"color": LIGHT["line"]},
        "hovertemplate": "%{y}: %{x}%<extra></extra>",
    }
    layout = {
        "showlegend": False,
        "xaxis": {"range": [0, 100], "ticksuffix": "%"},
        "yaxis": {"autorange": "reversed", "type": "category", "showgrid": False},
    }
    note = "The share of the scores' variance that each explains by itself."
    return figure("What mattered", [bars], layout, note if importance else "Too few trials have a score.")


def parallel(trials: Sequence[Trial], space: Mapping[str, Sequence[Any]], score: str) -> Any:
    """Draw a line for each finished trial over the dimensions and the score; the best third is strong."""
    done = [trial for trial in trials if trial["state"] == "done"]
    order = [done[k] for k in order_of([trial["score"] for trial in done], is_descending(score))]
    values = [_value(trial, score) for trial in order]
    low, high = min(values, default=0.0), max(values, default=0.0)
    names = list(space)
    places = {name: {_key(value): k / max(len(of) - 1, 1) for k, value in enumerate(of)} for name, of in space.items()}

    def height(trial: Trial) -> list[float]:
        own = [places[name][_key(trial["point"][name])] for name in names]
        return [*own, (_value(trial, score) - low) / ((high - low) or 1.0)]

    def lines(some: Sequence[Trial], color: str, name: str) -> dict[str, Any]:
        heights = [y for trial in some for y in (*height(trial), None)]
        axes = [k for _ in some for k in (*range(len(names) + 1), None)]
        style = {"color": color, "width": 1.2}
        return {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": axes,
            "y": heights,
            "line": style,
            "hoverinfo": "skip",
        }

    third = -(-len(order) // 3)
    ends = [(value_text(of[0]), value_text(of[-1])) for of in space.values()]
    scale = unit_of(score).scale
    ends.append((shown(score, round(low * scale)), shown(score, round(high * scale))))
    notes = [
        {"x": k, "y": y, "text": escape(text), "showarrow": False, "yshift": shift}
        for k, pair in enumerate(ends)
        for y, text, shift in zip((0, 1), pair, (-12, 12), strict=True)
    ]
    titles = [*(escape(name) for name in names), label(score)]
    layout = {
        "xaxis": {
            "tickvals": list(range(len(titles))),
            "ticktext": titles,
            "side": "top",
            "range": [-0.3, len(names) + 0.3],
        },
        "yaxis": {"visible": False, "range": [-0.12, 1.12]},
        "annotations": notes,
        "showlegend": False,
        "margin": {"l": 16, "t": 60, "b": 10},
    }
    data = [
        lines(order[third:], LIGHT["muted"], "others") | {"opacity": 0.35},
        lines(order[:third], LIGHT["line"], "best third"),
    ]
    return figure("Values and scores", data, layout, "A line for each trial; the best third is strong.", 380)


def _key(value: Any) -> tuple[str, Any]:
    return type(value).__name__, value


def _table(trials: Sequence[Trial], request: Mapping[str, Any], score: str) -> Html:
    scores = [trial["score"] if trial["state"] == "done" else None for trial in trials]
    order = [k for k in order_of(scores, is_descending(score)) if scores[k] is not None][:TOP]
    top = formatting.largest_of([scores[k] for k in order])
    rows: list[list[Cell]] = [
        [
            f"{trials[k]['number']:,}",
            *(value_text(trials[k]["point"][name]) for name in request["space"]),
            shown(score, scores[k], largest=top),
            Html(f'<span class="mono">{escape(trials[k]["job_id"][:12])}</span>'),
        ]
        for k in order
    ]
    return table(["trial", *request["space"], label(score), "job"], rows, left=0)


def _what(spec: Spec, study: Mapping[str, Any], again: str) -> Html:
    request, space = study["request"], study["request"]["space"]
    rows: list[tuple[str, Cell]] = [
        ("symbol", spec.symbol),
        ("strategy", spec.strategy),
        ("range", range_text(spec)),
        *[(f"varies {name}", f"{value_text(v[0])} to {value_text(v[-1])}, {len(v):,}") for name, v in space.items()],
        *[(name, str(request[name]).replace("_", " ")) for name in ("sampler", "pruner", "seed", "score")],
    ]
    return Html(facts(rows) + facts(identity({"study": study["study_id"]})) + (command(again) if again else ""))
