"""A small writer of SVG: marks on a sheet, in units of about a pixel. No scripts, nothing loaded.

Every text goes through `markupsafe.escape`. Numbers are rounded to a tenth, so that the same findings give
the same bytes everywhere. A mark may have a `title`, which browsers show to whoever points at it and programs
that read aloud speak.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from markupsafe import Markup, escape

# Colours that stay apart for colour-blind readers (Okabe and Ito, 2008).
BLUE: Final = "#0072B2"
ORANGE: Final = "#E69F00"
GREEN: Final = "#009E73"
RED: Final = "#D55E00"
INK: Final = "#1f2430"
SOFT: Final = "#5b6270"
LINE: Final = "#e3e6eb"
PALE: Final = "#f1f3f6"

Anchor = Literal["start", "middle", "end"]


class Sheet:
    """A picture of a size, to which marks are added; later ones lie above earlier ones.

    Parameters
    ----------
    label
        What the picture shows, for those who do not see it.
    """

    def __init__(self, width: float, height: float, label: str) -> None:
        self.width, self.height = width, height
        self._label = label
        self._marks: list[str] = []

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str,
        *,
        stroke: str = "none",
        radius: float = 2,
        opacity: float = 1,
        title: str = "",
    ) -> None:
        """A rectangle whose corner above and left is at (x, y)."""
        seen = "" if opacity == 1 else f' fill-opacity="{_number(opacity)}"'
        self._add(
            f'<rect x="{_number(x)}" y="{_number(y)}" width="{_number(width)}" height="{_number(height)}" '
            f'rx="{_number(radius)}" fill="{fill}" stroke="{stroke}"{seen}',
            "rect",
            title,
        )

    def circle(
        self, x: float, y: float, radius: float, fill: str, *, stroke: str = "none", title: str = ""
    ) -> None:
        """A disc with its centre at (x, y)."""
        self._add(
            f'<circle cx="{_number(x)}" cy="{_number(y)}" r="{_number(radius)}" fill="{fill}" '
            f'stroke="{stroke}" stroke-width="1.6"',
            "circle",
            title,
        )

    def line(self, points: Sequence[tuple[float, float]], colour: str, *, width: float = 1) -> None:
        """A line through points."""
        path = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
        self._add(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{_number(width)}"',
            "polyline",
            "",
        )

    def cross(self, x: float, y: float, size: float, colour: str, *, title: str = "") -> None:
        """A cross with its centre at (x, y)."""
        a, b, c, d = (_number(value) for value in (x - size, x + size, y - size, y + size))
        self._add(
            f'<path d="M{a} {c}L{b} {d}M{a} {d}L{b} {c}" fill="none" stroke="{colour}" stroke-width="2"',
            "path",
            title,
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        colour: str = INK,
        size: float = 12,
        anchor: Anchor = "start",
        bold: bool = False,
        title: str = "",
    ) -> None:
        """A text whose base line is at y."""
        weight = ' font-weight="600"' if bold else ""
        told = f"<title>{escape(title)}</title>" if title else ""
        self._marks.append(
            f'<text x="{_number(x)}" y="{_number(y)}" fill="{colour}" font-size="{_number(size)}" '
            f'text-anchor="{anchor}"{weight}>{told}{escape(text)}</text>'
        )

    def render(self) -> Markup:
        """The picture, to stand in a page."""
        size = f"{_number(self.width)} {_number(self.height)}"
        return Markup(  # noqa: S704 - every text in it is escaped
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" role="img" '
            f'aria-label="{escape(self._label)}">'
            f"{''.join(self._marks)}</svg>"
        )

    def _add(self, opening: str, tag: str, title: str) -> None:
        self._marks.append(f"{opening}><title>{escape(title)}</title></{tag}>" if title else f"{opening}/>")


def shortened(text: str, length: int) -> str:
    """`text`, with its end left out if it is longer than so many characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
