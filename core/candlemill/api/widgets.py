"""Figures in notebooks: interactive widgets where anywidget is installed, else figures that show themselves as HTML."""

import sys
from importlib.util import find_spec
from typing import Any


def shown(figure: Any) -> Any:
    """Return a plotly figure as a widget in a notebook with anywidget, else unchanged."""
    if "ipykernel" not in sys.modules or find_spec("anywidget") is None:
        return figure
    import plotly.graph_objects as go

    return go.FigureWidget(figure)
