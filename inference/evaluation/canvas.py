"""A figure as print wants it: size, type, colours that colour-blind readers tell apart, PNG and SVG. No global state.

matplotlib is imported here and in `plots`, and only when something is drawn.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Okabe and Ito, Color Universal Design, 2008.
BLUE, ORANGE, GREEN, VERMILION, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9"
INK, GREY, PALE = "#1a1a1a", "#6b6b6b", "#d9d9d9"
PNG_DOTS_PER_INCH = 300
MANY_POINTS = 2500  # beyond, points are a picture inside the SVG, so that it stays small
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "text.color": INK,
    "svg.fonttype": "path",
    "text.parse_math": False,  # a scanner's name may hold dollar signs
    "figure.dpi": 100,
}


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One figure, both ways, with its caption and what a screen reader says of it."""

    name: str  # of its files
    title: str
    caption: str
    png: bytes
    svg: str


def draw(
    name: str, title: str, caption: str, footer: str, size_inches: tuple[float, float], paint: Callable[[Figure], None]
) -> Drawn:
    """Paint a figure and keep it as PNG and SVG. The same content gives the same bytes.

    `footer` names the model and "research use only"; it stands inside the picture, wherever that is copied to.
    """
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size_inches, layout="constrained")
        paint(figure)
        figure.get_layout_engine().set(rect=(0.0, 0.035, 1.0, 0.965))  # type: ignore[union-attr,call-arg]
        figure.text(0.995, 0.006, footer, ha="right", va="bottom", fontsize=6.5, color=GREY)
        png, svg = io.BytesIO(), io.StringIO()
        said = {"Title": title}
        FigureCanvasAgg(figure).print_figure(
            png, format="png", dpi=PNG_DOTS_PER_INCH, metadata={**said, "Software": None}
        )
        FigureCanvasSVG(figure).print_figure(svg, format="svg", metadata={**said, "Date": None, "Creator": None})
    return Drawn(name=name, title=title, caption=caption, png=png.getvalue(), svg=svg.getvalue())
