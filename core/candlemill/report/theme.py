"""Colours and layout of all figures; the only module that imports plotly."""

from typing import Any

from candlemill.engine.candles import DAY_MS
from candlemill.errors import BadInput

try:
    import plotly.graph_objects as go
except ModuleNotFoundError:
    raise BadInput("reports and figures need plotly: pip install candlemill[report]") from None

# Figures are made in light colours; for the dark theme the page replaces each by its exact text.
LIGHT = {
    "ink": "#1d2630",
    "muted": "#5f6c7a",
    "grid": "#e4e8ed",
    "paper": "#ffffff",
    "line": "#2563c9",
    "other": "#a66a00",
    "up": "#0b7d6b",
    "down": "#c7362f",
    "band": "rgba(37,99,201,0.16)",
    "loss": "rgba(199,54,47,0.20)",
    "fold": "rgba(95,108,122,0.10)",
    "rise": "#4fa194",  # behind text
    "fall": "#d76e69",
}
DARK = {
    "ink": "#dde3ea",
    "muted": "#98a5b3",
    "grid": "#2c353f",
    "paper": "#181e25",
    "line": "#6aa5ff",
    "other": "#e3b355",
    "up": "#41c7ac",
    "down": "#ff8177",
    "band": "rgba(106,165,255,0.20)",
    "loss": "rgba(255,129,119,0.24)",
    "fold": "rgba(152,165,179,0.12)",
    "rise": "#2b6c63",
    "fall": "#824c4b",
}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"
DIVERGING = [[0.0, LIGHT["fall"]], [0.5, LIGHT["paper"]], [1.0, LIGHT["rise"]]]

# Of an axis of times: as fine as it has to be.
DATES = {
    "type": "date",
    "hoverformat": "%Y-%m-%d %H:%M",
    "tickformatstops": [
        {"dtickrange": [None, DAY_MS - 1], "value": "%H:%M\n%-d %b %Y"},
        {"dtickrange": [DAY_MS, "M1"], "value": "%-d %b\n%Y"},
        {"dtickrange": ["M1", "M12"], "value": "%b\n%Y"},
        {"dtickrange": ["M12", None], "value": "%Y"},
    ],
}

_AXIS = {
    "gridcolor": LIGHT["grid"],
    "linecolor": LIGHT["grid"],
    "zeroline": False,
    "automargin": True,
    "title": {"standoff": 8},  # distance from the labels, of any length
    "ticklabelstandoff": 5,  # labels of two axes do not overlap in the corner
    "separatethousands": True,
    "exponentformat": "none",  # not 30µ for a price of 0.00003
}
TEMPLATE = {
    "layout": {
        "font": {"family": FONT, "size": 12, "color": LIGHT["ink"]},
        "paper_bgcolor": LIGHT["paper"],
        "plot_bgcolor": LIGHT["paper"],
        "colorway": [LIGHT["line"], LIGHT["other"], LIGHT["up"], LIGHT["down"], LIGHT["muted"]],
        "margin": {"l": 56, "r": 16, "t": 44, "b": 36},
        "hoverlabel": {"font": {"family": FONT}, "align": "left"},
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1.0,
            "yanchor": "bottom",
            "bgcolor": "rgba(0,0,0,0)",
            "itemsizing": "constant",  # marks as large as they can be seen
        },
        "xaxis": _AXIS,
        "yaxis": _AXIS,
    }
}


def figure(title: str, data: list[dict[str, Any]], layout: dict[str, Any], note: str = "", height: int = 360) -> Any:
    """Make a plotly Figure; the page shows its title and its note (layout.meta) as text around it."""
    return go.Figure(
        {
            "data": data,
            "layout": {
                "template": TEMPLATE,
                "title": {"text": title, "x": 0, "xref": "paper", "y": 0.98, "yanchor": "top"},
                "meta": {"note": note},
                "height": height,
                **layout,
            },
        }
    )


def upright(x: float, color: str, dash: str) -> dict[str, Any]:
    """A vertical line at `x`, over the whole height."""
    line = {"color": color, "width": 1.4, "dash": dash}
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": line}


def level(y: float) -> dict[str, Any]:
    """A horizontal line at `y`, over the whole width."""
    line = {"color": LIGHT["ink"], "width": 1.2, "dash": "dash"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line}
