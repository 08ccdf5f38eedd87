"""Curves and histograms as SVG text to stand inside the page, and the panels that hold them.

Axes only: names, numbers and the legend of a panel are the page's own text, so that they follow
its fonts and stay readable at any width. Colours are CSS variables (`--ink`, `--head-0` …), so
that one drawing serves light and dark. Files, tables and HTML are unknown here.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clare_cache import metrics
from clare_cache.types import FAKE, REAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Values = NDArray[np.float64]
Labelled = tuple[NDArray[np.int64], Values]
"""Labels (n,) and scores (n,) of one head, without NaN."""


@dataclass(frozen=True)
class Panel:
    """One drawing (SVG text) with its title and legend: (colour slot, name, number)."""

    svg: str
    title: str
    legend: tuple[tuple[int, str, str], ...] = ()
    tag: str = ""


MAX_POINTS = 400
N_BINS = 20

# Stand-ins that matplotlib accepts; `_finish` turns them into the page's variables.
_INK, _MUTED, _RULE, _REAL, _FAKE = "#010101", "#010102", "#010103", "#010104", "#010105"
_VARIABLES = {_INK: "ink", _MUTED: "muted", _RULE: "rule", _REAL: "real", _FAKE: "fake"}
_HEADS = [f"#0101{0x10 + slot:02x}" for slot in range(8)]
_DASHES = ("-", "--", ":")
_VARIABLES |= {colour: f"head-{slot}" for slot, colour in enumerate(_HEADS)}


def draw_roc(heads: Mapping[int, Labelled], *, name: str) -> str:
    """ROC curves in one panel, one line per head (keyed by colour slot)."""
    with _panel(name) as (axes, svg):
        axes.plot([0, 100], [0, 100], color=_RULE, linewidth=1)
        for slot, (labels, scores) in heads.items():
            fpr, tpr, _ = metrics.roc_points(labels, scores)
            axes.plot(*_thinned(100 * fpr, 100 * tpr), linewidth=1.8, **_line(slot))
        _label(axes, x="reals called fake, %", y="fakes caught, %")
        axes.set(xlim=(-1.5, 101.5), ylim=(-1.5, 101.5))
        axes.set_xticks(range(0, 101, 25))
        axes.set_yticks(range(0, 101, 25))
    return svg[0]


def draw_pr(heads: Mapping[int, Labelled], *, name: str) -> str:
    """Precision-recall curves in one panel; the thin line is the share of fakes (chance)."""
    with _panel(name) as (axes, svg):
        for slot, (labels, scores) in heads.items():
            axes.axhline(100 * float(np.mean(labels)), color=_RULE, linewidth=1)
            recall, precision, _ = metrics.pr_points(labels, scores)
            x, y = _thinned(100 * np.append(0, recall), 100 * np.append(precision[0], precision))
            axes.step(x, y, where="pre", linewidth=1.8, **_line(slot))
        _label(axes, x="fakes caught, %", y="precision, %")
        axes.set(xlim=(-1.5, 101.5), ylim=(-1.5, 101.5))
        axes.set_xticks(range(0, 101, 25))
        axes.set_yticks(range(0, 101, 25))
    return svg[0]


def draw_history(
    heads: Mapping[int, tuple[Values, Values]],
    *,
    best: Mapping[int, float],
    label: str,
    name: str,
) -> str:
    """One quantity by epoch, one line per head; a dot marks the epoch that was kept."""
    from matplotlib.ticker import MaxNLocator

    with _panel(name, width=5.0) as (axes, svg):
        for slot, (epochs, values) in heads.items():
            axes.plot(epochs, values, linewidth=1.8, **_line(slot))
            kept = epochs == best.get(slot)
            axes.plot(epochs[kept], values[kept], "o", markersize=5, color=_line(slot)["color"])
        _label(axes, x="epoch", y=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    return svg[0]


def draw_scores(labels: NDArray[np.int64], scores: Values, *, threshold: float, name: str) -> str:
    """Histograms of one head's scores, reals and fakes each as shares of their class.

    Raises ValueError for scores outside [0, 1], which a histogram would leave out unseen.
    """
    if len(scores) and not (0 <= scores.min() <= scores.max() <= 1):
        raise ValueError(
            f"scores from {scores.min():.3g} to {scores.max():.3g} are no probabilities"
        )
    with _panel(name, height=2.2) as (axes, svg):
        edges = np.linspace(0, 1, N_BINS + 1)
        for label, colour in ((REAL, _REAL), (FAKE, _FAKE)):
            mine = scores[labels == label]
            shares = 100 * np.histogram(mine, edges)[0] / max(len(mine), 1)
            axes.stairs(shares, edges, fill=True, color=colour, alpha=0.35, linewidth=0)
            axes.stairs(shares, edges, color=colour, linewidth=1.4)
        axes.axvline(threshold, color=_INK, linewidth=1.2, dashes=(3, 2))
        _label(axes, x="probability of fake", y="share of class, %")
        axes.set(xlim=(-0.01, 1.01), ylim=(0, None))
    return svg[0]


def draw_effect(
    x: Values, y: Values, means: Sequence[float], *, ticks: Sequence[str], label: str, name: str
) -> str:
    """Members as dots over the places 0, 1, … of a setting's values, and a line through the means.

    `y` is validation AUC in percent. Dots of one place are spread a little, the same every time.
    """
    with _panel(name) as (axes, svg):
        spread = np.linspace(-0.18, 0.18, 7)[np.arange(len(x)) % 7] if len(x) > len(ticks) else 0
        axes.plot(x + spread, y, "o", markersize=3.2, color=_HEADS[0], alpha=0.45)
        axes.plot(range(len(means)), means, color=_INK, linewidth=1.6, marker="o", markersize=4)
        _label(axes, x=label, y="validation AUC, %")
        axes.set_xticks(range(len(ticks)), _shortened(ticks))
        axes.set_xlim(-0.5, len(ticks) - 0.5)
    return svg[0]


def draw_spread(groups: Sequence[Values], *, ticks: Sequence[str], name: str) -> str:
    """One column of dots for each configuration, its seeds; the bar is their mean."""
    with _panel(name, width=5.0) as (axes, svg):
        for place, values in enumerate(groups):
            axes.plot(np.full(len(values), place), values, "o", markersize=4, color=_HEADS[0])
            axes.plot([place - 0.25, place + 0.25], [values.mean()] * 2, color=_INK, linewidth=1.6)
        _label(axes, x="rank", y="validation AUC, %")
        axes.set_xticks(range(len(ticks)), list(ticks))
    return svg[0]


def draw_bars(values: Values, *, x: str, y: str, name: str) -> str:
    """One bar for each value, counted from 1; the line is what equal shares would be."""
    from matplotlib.ticker import MaxNLocator

    with _panel(name, width=5.0) as (axes, svg):
        axes.bar(np.arange(1, len(values) + 1), values, color=_HEADS[0], width=0.7)
        axes.axhline(float(values.mean()), color=_INK, linewidth=1.2, dashes=(3, 2))
        _label(axes, x=x, y=y)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    return svg[0]


def _shortened(ticks: Sequence[str]) -> list[str]:
    """As many letters as have room below the axis."""
    room = max(28 // max(len(ticks), 1), 4)
    return [tick if len(tick) <= room else f"{tick[: room - 1]}…" for tick in ticks]


@contextmanager
def _panel(
    name: str, *, width: float = 3.3, height: float = 2.9
) -> Iterator[tuple["Axes", list[str]]]:
    """Axes to draw on; on leaving, the list holds the finished SVG. Sizes in inches."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: dict[str, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 9.5,
        "text.color": _INK,
        "axes.labelcolor": _MUTED,
        "axes.edgecolor": _RULE,
        "axes.linewidth": 1,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": _RULE,
        "grid.linewidth": 0.6,
        "grid.alpha": 0.7,
        "axes.axisbelow": True,
        "xtick.color": _RULE,
        "ytick.color": _RULE,
        "xtick.labelcolor": _MUTED,
        "ytick.labelcolor": _MUTED,
        "axes.unicode_minus": True,
    }
    with rc_context(style):  # type: ignore[arg-type]
        figure = Figure(figsize=(width, height))
        figure.patch.set_visible(False)
        # Fixed margins in inches: the page's font is not the one a layout engine would measure.
        axes = figure.add_axes((0.62 / width, 0.52 / height, 1 - 0.74 / width, 1 - 0.62 / height))
        axes.patch.set_visible(False)
        svg: list[str] = []
        yield axes, svg
        file = io.StringIO()
        empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=empty)
        svg.append(_finish(file.getvalue(), name))


def _line(slot: int) -> dict[str, Any]:
    """A head's line: eight colours, then the same colours dashed, then dotted."""
    again, colour = divmod(slot, len(_HEADS))
    return {"color": _HEADS[colour], "linestyle": _DASHES[again % len(_DASHES)]}


def _label(axes: "Axes", *, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _thinned(x: Values, y: Values) -> tuple[Values, Values]:
    """At most MAX_POINTS points, always with both ends: more cannot be told apart on the page."""
    if len(x) <= MAX_POINTS:
        return x, y
    kept = np.unique(np.linspace(0, len(x) - 1, MAX_POINTS).astype(int))
    return x[kept], y[kept]


def _finish(svg: str, name: str) -> str:
    """The drawing as an element of the page: own ids, the page's colours and fonts, no links."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\s+xmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    # A style element would reach the whole page, which sets the same two properties for svg.
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r"font-family: [^;\"]*;", "", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return re.sub(r"\s*\n\s*", " ", svg).strip()
