"""One look for every figure, and figures as PNG bytes without a display."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

INK, MUTED, GRID = "#1f2733", "#667080", "#e4e8ee"
ACCENT, SECOND = "#2b5fd9", "#c2410c"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 6,
    "axes.edgecolor": "#b8c0cc",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}
PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.3g} %")
_DPI = 120


def png(figure: Figure) -> bytes:
    """Draw a figure.

    Args:
        figure (`Figure`): made inside `rc_context(STYLE)`.

    Returns:
        `bytes`: a PNG image; equal figures give equal bytes.
    """
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    # No software name or date inside, so that equal input gives equal bytes.
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()
