"""How long payloads of each retention class are kept, and which of them have had their time.

A policy is a member's own; the ledger carries the classes, not the days. Nothing is erased by itself: what is
due is proposed to an officer, who records the erasure, and then every keeper follows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from fedhouse.errors import ConfigurationError
from fedhouse.governance.envelope import parse_envelope
from fedhouse.governance.event import ACCEPTED
from fedhouse.governance.ledger import Entry
from fedhouse.governance.state import State

UNTIL_ERASED: Final = "until-erased"
MAX_DAYS: Final = 36_525

_DAY = 86_400
_CLASS = re.compile(r"[a-z]+(?:-[a-z]+)*")


@dataclass(frozen=True, slots=True)
class DuePayload:
    """A payload whose class has run out, and that nobody holds."""

    digest: str
    member: str
    """Whose event named it, and whose officer may erase it."""
    retention: str
    since: int
    """When the ledger first named it: whole seconds since 1970."""


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """For each class the days that its payloads are kept, or `until-erased`.

    Raises
    ------
    ConfigurationError
        If a class is no label, or its time neither 1 to 36,525 days nor `until-erased`.
    """

    days: Mapping[str, int | Literal["until-erased"]]

    def __post_init__(self) -> None:
        for label, days in self.days.items():
            if not isinstance(label, str) or _CLASS.fullmatch(label) is None:
                raise ConfigurationError(
                    f"{str(label)[:80]!r} is no retention class.", mend="Use lower-case words and hyphens."
                )
            if days != UNTIL_ERASED and not (type(days) is int and 1 <= days <= MAX_DAYS):
                raise ConfigurationError(
                    f"Retention class {label} has no time.",
                    mend=f"Give 1 to {MAX_DAYS} days, or '{UNTIL_ERASED}'.",
                )

    def due(self, state: State, named: Mapping[str, int], now: int) -> tuple[DuePayload, ...]:
        """What may be erased by `now`, the oldest first.

        A class that this policy does not name is never due: see `unknown`.

        Parameters
        ----------
        named
            When the ledger first named each payload, from `first_named`.
        """
        found = []
        for digest, kept in state.retention.payloads.items():
            days = self.days.get(kept.retention, UNTIL_ERASED)
            if days == UNTIL_ERASED or kept.erased or holders(state, digest) or digest not in named:
                continue
            if named[digest] + days * _DAY <= now:
                found.append(DuePayload(digest, kept.member, kept.retention, named[digest]))
        return tuple(sorted(found, key=lambda payload: (payload.since, payload.digest)))

    def unknown(self, state: State) -> tuple[str, ...]:
        """Classes on the ledger for which this policy has no time, sorted."""
        used = {kept.retention for kept in state.retention.payloads.values() if not kept.erased}
        return tuple(sorted(used - set(self.days)))


def holders(state: State, digest: str) -> tuple[str, ...]:
    """The members whose hold keeps a payload from being erased, sorted; a hold ends with its membership."""
    kept = state.retention.payloads.get(digest)
    held_by = () if kept is None else kept.held_by
    return tuple(member for member in held_by if state.consortium.status(member) != "left")


def first_named(entries: Iterable[Entry]) -> dict[str, int]:
    """When an event that counts first named each payload: whole seconds since 1970, by digest."""
    found: dict[str, int] = {}
    for entry in entries:
        if entry.outcome.verdict == ACCEPTED:
            for payload in parse_envelope(entry.envelope).statement.payloads:
                found.setdefault(payload.digest, entry.outcome.time)
    return found
