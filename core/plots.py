"""Pictures, drawn by matplotlib without a display."""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fedhouse.errors import EnvironmentUnfitError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fedhouse.history import History

# Colours that stay apart for colour-blind readers (Okabe and Ito, 2008).
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#8A8F98"


@functools.cache
def _picture() -> type[Figure]:
    """A figure that a notebook shows as it is, whether or not pyplot and a backend were set up."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EnvironmentUnfitError(
            "matplotlib is not installed in this environment.", mend="Install fedhouse[plot]."
        ) from error

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=110)
            return buffer.getvalue()

    return Picture


def _figure(width: float, height: float, panels: int = 1) -> tuple[Figure, Sequence[Axes]]:
    figure = _picture()(figsize=(width, height), layout="constrained")
    axes = [figure.add_subplot(1, panels, index + 1) for index in range(panels)]
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", color="#E5E7EB", linewidth=0.8)
        panel.set_axisbelow(True)
    return figure, axes


def metrics_by_round(history: History) -> Figure:
    """Every metric of `history` over its rounds, one panel each, the job's own metric first."""
    names = sorted(
        {name for item in history.rounds for name in item.metrics}, key=lambda n: (n != history.metric, n)
    )
    figure, axes = _figure(4.6 * max(1, len(names)), 3.2, max(1, len(names)))
    from matplotlib.ticker import MaxNLocator

    for panel, name in zip(axes, names, strict=False):
        points = [(item.number, item.metrics[name]) for item in history.rounds if name in item.metrics]
        panel.plot(*zip(*points, strict=True), color=BLUE, marker="o", markersize=4, linewidth=1.8)
        panel.set_xlabel("round")
        panel.set_title(name.upper() if name == "auc" else name, loc="left", fontsize=11)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    if not names:
        axes[0].text(0.5, 0.5, "no held-out rows, no metrics", ha="center", va="center", color=GREY)
    return figure


def silo_bars(
    single: Mapping[str, tuple[float, float]], pooled: tuple[float, float], federated: float
) -> Figure:
    """Each silo's own model as a bar; pooled and federated models as lines across (areas under the curve).

    Of two numbers the first is of the model as it came out, the second of the one stopped early.
    """
    figure, (panel,) = _figure(max(6.0, 0.55 * len(single) + 3), 3.6)
    order = sorted(single, key=lambda name: single[name][1])
    places = range(len(order))
    for index, (colour, label) in enumerate(((GREY, "own model"), ("#C9CDD4", "own model, stopped early"))):
        heights = [single[name][index] for name in order]
        panel.bar([x + 0.36 * index - 0.18 for x in places], heights, color=colour, width=0.34, label=label)
    panel.set_xticks(list(places), order)
    panel.axhline(federated, color=BLUE, linewidth=2, label=f"federated {federated:.3f}")
    panel.axhline(pooled[0], color=ORANGE, linewidth=2, linestyle="--", label=f"pooled {pooled[0]:.3f}")
    label = f"pooled, stopped early {pooled[1]:.3f}"
    panel.axhline(pooled[1], color=ORANGE, linewidth=1.4, linestyle=":", label=label)
    values = [federated, *pooled, *(value for pair in single.values() for value in pair)]
    panel.set_ylim(max(0.0, min(0.5, *values) - 0.02), max(values) + 0.02)
    panel.set_ylabel("AUC on everybody's held-out rows")
    panel.legend(loc="upper center", bbox_to_anchor=(0.5, 1.28), ncols=3, frameon=False, fontsize=9)
    return figure


def time_bars(seconds: Mapping[str, float]) -> Figure:
    """Where the time went, one horizontal bar a phase, seconds."""
    figure, (panel,) = _figure(7.0, 0.42 * len(seconds) + 0.9)
    order = list(seconds)[::-1]
    panel.barh(order, [seconds[name] for name in order], color=GREEN, height=0.6)
    for index, name in enumerate(order):
        panel.text(seconds[name], index, f" {seconds[name]:.1f} s", va="center", fontsize=9)
    panel.grid(visible=False)
    panel.margins(x=0.14)
    panel.set_xlabel("seconds")
    return figure


def svg(figure: Figure) -> str:
    """A figure as SVG text to stand in an HTML page, without dates or random identifiers."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "fedhouse", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
