"""A time axis: where a moment lies, and which moments are worth a label. UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_STEPS: Final = (
    *(1, 2, 5, 10, 15, 30),
    *(_MINUTE * n for n in (1, 2, 5, 10, 15, 30)),
    *(_HOUR * n for n in (1, 2, 3, 6, 12)),
    *(_DAY * n for n in (1, 2, 7, 14, 30, 90, 180, 365, 1825, 3650, 36500)),
)
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_LAST: Final = 253_402_300_799


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """Times from `start` to `end`, laid from `left` to `right`."""

    start: int
    end: int
    left: float
    right: float

    @property
    def span(self) -> int:
        """Seconds that it shows; at least one."""
        return max(1, self.end - self.start)

    def x(self, time: int) -> float:
        """Where a time lies; at an end, if it is beyond."""
        share = (min(max(time, self.start), self.end) - self.start) / self.span
        return self.left + share * (self.right - self.left)

    def ticks(self, most: int = 5) -> list[tuple[int, str]]:
        """Round times within the axis, at most so many, with their labels."""
        step = next((step for step in _STEPS if self.span / step <= most), _STEPS[-1])
        first = -(-self.start // step) * step
        times = [time for time in range(first, self.end + 1, step) if time <= _LAST][:most]
        return [(time, _label(time, step)) for time in times]


def short_time(time: int) -> str:
    """A moment for people, to the second: `21 Sep 2026, 14:13:20`; UTC."""
    if not 0 <= time <= _LAST:
        return short_date(time)
    return f"{short_date(time)}, {datetime.fromtimestamp(time, UTC):%H:%M:%S}"


def short_date(time: int) -> str:
    """The day of a moment: `21 Sep 2026`; UTC."""
    if not 0 <= time <= _LAST:
        return "beyond the calendar"
    moment = datetime.fromtimestamp(time, UTC)
    return f"{moment.day} {_MONTHS[moment.month - 1]} {moment.year:04}"


def _label(time: int, step: int) -> str:
    """A tick's label, as exact as the step between ticks."""
    moment = datetime.fromtimestamp(time, UTC)
    if step < _MINUTE:
        return f"{moment:%H:%M:%S}"
    day = f"{moment.day} {_MONTHS[moment.month - 1]}"
    return f"{day} {moment:%H:%M}" if step < _DAY else f"{day} {moment.year:04}"


def lasting(seconds: int) -> str:
    """A duration for people: `45 s`, `12 min`, `3 h 20 min`, `5 d 4 h`."""
    if seconds < 2 * _MINUTE:
        return f"{seconds} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE} min"
    large, small, names = (_HOUR, _MINUTE, ("h", "min")) if seconds < 2 * _DAY else (_DAY, _HOUR, ("d", "h"))
    rest = seconds % large // small
    return f"{seconds // large} {names[0]}" + (f" {rest} {names[1]}" if rest else "")
