"""Digests of records: against a slow oracle without caches, and no two different states with one digest."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import immutables
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fedhouse.governance.families.retention import KeptPayload
from fedhouse.governance.records import Map, Record, ordered
from fedhouse.governance.sandbox import named


@dataclass(frozen=True)
class Leaf(Record):
    """A record of one value."""

    value: Any


@dataclass(frozen=True)
class Other(Record):
    """A record of one value, with another name."""

    value: Any


@dataclass(frozen=True)
class Pair(Record):
    """A record of a value and a map."""

    value: Any = None
    map: Map[Any] = field(default_factory=Map)


def oracle(record: Record) -> str:
    """The digest, written down anew from the description: nothing is remembered."""

    def plain(value: Any) -> Any:
        if isinstance(value, Record):
            return oracle(value)
        if isinstance(value, immutables.Map):
            return {key: plain(value[key]) for key in sorted(value)}
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    told = {name: plain(getattr(record, name)) for name in sorted(item.name for item in fields(record))}
    text = json.dumps([type(record).__name__, told], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(b"fedhouse-state/1\x00" + text.encode()).hexdigest()


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
scalars = st.none() | st.booleans() | st.integers() | texts
values = st.recursive(
    scalars,
    lambda inner: (
        st.builds(Leaf, inner)
        | st.builds(Other, inner)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(texts, inner, max_size=3).map(immutables.Map)
    ),
    max_leaves=8,
)
records = st.builds(Pair, values, st.dictionaries(texts, values, max_size=4).map(immutables.Map))


@given(records)
def test_a_digest_is_that_of_the_oracle(record: Pair) -> None:
    assert record.digest() == oracle(record)
    assert record.digest() == oracle(record), "remembered"
    assert copy.copy(record).digest() == oracle(record)


@given(records, values, texts)
def test_a_change_is_seen_though_the_digest_was_remembered(record: Pair, value: Any, key: str) -> None:
    before = record.digest()
    changed = replace(record, map=record.map.set(key, value))
    assert changed.digest() == oracle(changed)
    assert replace(record, value=value).digest() == oracle(replace(record, value=value))
    assert replace(changed, map=record.map).digest() == before


@given(st.lists(st.tuples(texts, scalars), max_size=8), st.randoms(use_true_random=False))
def test_the_order_in_which_a_map_was_filled_leaves_no_trace(
    pairs: list[tuple[str, Any]], random: Any
) -> None:
    pairs = list(dict(pairs).items())
    shuffled = random.sample(pairs, len(pairs))
    filled, other = Map[Any](), Map[Any]().set("gone", 1).delete("gone")
    for key, value in pairs:
        filled = filled.set(key, value)
    for key, value in shuffled:
        other = other.set(key, value)
    assert Leaf(filled).digest() == Leaf(other).digest()


def form(value: Any) -> Any:
    """A value with its types, to compare by: Python finds 1, 1.0 and True the same."""
    if isinstance(value, Record):
        return type(value).__name__, tuple(form(getattr(value, item.name)) for item in fields(value))
    if isinstance(value, immutables.Map):
        return "map", tuple((key, form(value[key])) for key in sorted(value))
    if isinstance(value, tuple):
        return "tuple", tuple(form(item) for item in value)
    return type(value).__name__, value


@given(records, records)
def test_different_records_have_different_digests(one: Pair, other: Pair) -> None:
    assume(form(one) != form(other))
    assert one.digest() != other.digest()


CONFUSABLE: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    "",
    "0",
    "1",
    "null",
    "true",
    "[]",
    "{}",
    (),
    ((),),
    (None,),
    ("",),
    (1,),
    (True,),
    ("1",),
    ("a", "b"),
    ("a,b",),
    ('a","b',),
    ("b", "a"),
    Map(),
    Map({"": None}),
    Map({"a": "b"}),
    Map({"a": ("b",)}),
    Map({"a": Map({"b": ""})}),
    (("a", "b"),),
    Leaf(None),
    Leaf(Leaf(None)),
    Other(None),
    "é",
    "e\u0301",
    "\\u00e9",
    2**53,
    2**53 + 1,
    -(2**200),
]


def test_no_two_values_of_different_types_are_confused() -> None:
    digests = [Leaf(value).digest() for value in CONFUSABLE]
    assert len(set(digests)) == len(CONFUSABLE)


def test_the_name_of_a_record_and_of_a_field_are_part_of_it() -> None:
    assert Leaf(1).digest() != Other(1).digest()
    assert Leaf(Map()).digest() != Pair().digest()


@pytest.mark.parametrize(
    "value", [1.0, float("nan"), b"x", [1], {1}, frozenset(), object(), 1j, Map({1: "a"}), Map({None: 1})]
)
def test_what_has_no_one_form_is_no_part_of_a_state(value: object) -> None:
    with pytest.raises(TypeError):
        Leaf(value).digest()
    with pytest.raises(TypeError):
        Leaf((value,)).digest()


def test_an_order_is_by_code_points_and_without_repetition() -> None:
    assert ordered(["b", "a", "b", "B", "é", "z"]) == ("B", "a", "b", "z", "é")
    assert ordered([]) == ()


def test_every_part_of_a_real_state_enters_its_digest(new_world: Callable[..., Any]) -> None:
    world = new_world().start()
    job = world.run()
    world.play(world.sandbox.step("late", 0, "statistics", named("late bundle"), named("encoder")))
    world.must("B6/officer", "stop.declared", {"scope": "job", "subject": job})
    assert world.state.digest() == oracle(world.state)
    places = list(_places(world.state))
    assert len(places) > 200
    for place, change in places:
        assert oracle(change) != world.state.digest(), place
        assert change.digest() == oracle(change), place


def _places(record: Any) -> Any:
    """Every record that differs from this one in one leaf, with a name for the place."""
    for item in fields(record):
        for place, value in _changes(getattr(record, item.name)):
            yield f"{item.name}{place}", replace(record, **{item.name: value})


def _changes(value: Any) -> Any:
    if isinstance(value, Record):
        yield from ((f".{place}", changed) for place, changed in _places(value))
    elif isinstance(value, immutables.Map):
        yield " added", value.set("added", "")
        for key in sorted(value):
            yield f"[{key}] gone", value.delete(key)
            yield from ((f"[{key}]{place}", value.set(key, new)) for place, new in _changes(value[key]))
    elif isinstance(value, tuple):
        yield " longer", (*value, "")
        if len(set(value)) > 1:
            yield " reversed", tuple(reversed(value))
    elif isinstance(value, bool):
        yield "", not value
    elif isinstance(value, int):
        yield "", value + 1
    else:
        yield "", "x" if value is None else f"{value}x"


def test_changed_is_replace_and_forgets_the_digest() -> None:
    one = KeptPayload("AA", "years-7")
    one.digest()
    other = one.changed(held_by=("B6",))
    assert other == replace(one, held_by=("B6",))
    assert other.digest() == replace(one, held_by=("B6",)).digest() != one.digest()
    assert one.held_by == ()
    with pytest.raises(TypeError, match="KeptPayload has no such field: heldby"):
        one.changed(heldby=("B6",))
