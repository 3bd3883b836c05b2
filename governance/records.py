"""Frozen records of the reducer's state, and their digests.

A state is a tree of frozen records and persistent maps; a change makes new records along one path and
shares the rest. A record remembers its digest, so that hashing a state again costs what has changed, and
not what is there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, Self, TypeAlias, TypeVar

import immutables

Value = TypeVar("Value")
# A persistent map: `map.set(key, value)` gives a new one and shares what did not change.
Map: TypeAlias = immutables.Map[str, Value]


class Record:
    """Base of the state's frozen dataclasses: compared by value, hashed by `digest`.

    Fields are records, maps from text to such, tuples, texts, integers, booleans and None.
    """

    def digest(self) -> str:
        """SHA-256 of the record's canonical form, 64 hexadecimal digits."""
        known: str | None = self.__dict__.get("_digest")
        if known is None:
            told = {item.name: _plain(getattr(self, item.name)) for item in fields(self)}  # type: ignore[arg-type]
            known = _hash([type(self).__name__, told])
            # Frozen for everybody else; the digest is a function of the frozen fields.
            object.__setattr__(self, "_digest", known)
        return known

    def changed(self, **fields: Any) -> Self:
        """A copy with other values in these fields: `dataclasses.replace`, several times as fast.

        For the rules that every event of a round passes through; elsewhere `replace`, which the type
        checker follows. No record checks its fields when it is made, so nothing is passed over here.

        Raises
        ------
        TypeError
            If a record of this kind has no such field.
        """
        values = self.__dict__ | fields
        values.pop("_digest", None)
        if len(values) != len(type(self).__dataclass_fields__):  # type: ignore[attr-defined]
            raise TypeError(f"{type(self).__name__} has no such field: {', '.join(fields)}")
        copy = object.__new__(type(self))
        copy.__dict__.update(values)
        return copy


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.digest()
    if isinstance(value, Mapping):
        return {_text(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (str, int)):
        return value
    raise TypeError(f"{type(value).__name__} cannot be part of the state")


def _text(key: Any) -> str:
    if not isinstance(key, str):  # JSON would write 1 and "1" as one key
        raise TypeError(f"{type(key).__name__} cannot be a key in the state")
    return key


def _hash(value: Any) -> str:
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(b"fedhouse-state/1\0" + data.encode()).hexdigest()


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """`names` once each, sorted: the only form in which a set enters a state."""
    return tuple(sorted(set(names)))
