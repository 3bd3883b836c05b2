"""Canonical bytes, digests, seeds, and files that are whole or absent."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedhouse.encoding import (
    canonical_json,
    derive_seed,
    digest_of,
    parse_json,
    read_json,
    require_digest,
    write_atomic,
    write_json,
)
from fedhouse.errors import IntegrityError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_canonical_json_reads_back_and_is_stable(value: object) -> None:
    data = canonical_json(value)
    assert parse_json(data, "it") == value
    assert canonical_json(json.loads(data)) == data


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, -(2**60), {1: 2}])
def test_what_json_cannot_carry_is_refused(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        canonical_json(value)


def test_digests_of_two_kinds_never_meet() -> None:
    assert digest_of("a", {"x": 1}) != digest_of("b", {"x": 1})
    assert digest_of("a", {"x": 1, "y": 2}) == digest_of("a", {"y": 2, "x": 1})


def test_canonical_digest_is_the_published_one() -> None:
    # The key order and number forms of RFC 8785, section 3.2.3.
    assert canonical_json({"€": 1, "\r": 2, "1": 3, "ö": 4}) == '{"\\r":2,"1":3,"ö":4,"€":1}'.encode()


@pytest.mark.parametrize("text", ["", "ab", "A" * 64, "g" * 64, "0" * 63, "0" * 65, "0" * 64 + "\n"])
def test_a_digest_has_one_spelling(text: str) -> None:
    with pytest.raises(IntegrityError, match="the model is not a SHA-256 digest"):
        require_digest(text, "the model")


def test_seeds_depend_on_every_part_and_fit_63_bits() -> None:
    seeds = {
        derive_seed("train", "job", number, silo, partition)
        for number in range(3)
        for silo in ("AA", "UA")
        for partition in range(3)
    }
    assert len(seeds) == 18
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed("a", "bc") != derive_seed("ab", "c")


@pytest.mark.parametrize(
    "data", [b'{"a":1,"a":2}', b"NaN", b"[Infinity]", b"{", b"\xff", b"[" * 100_000], ids=range(6)
)
def test_json_is_read_strictly(data: bytes) -> None:
    with pytest.raises(IntegrityError, match="a thing is not valid JSON"):
        parse_json(data, "a thing")


def test_files_are_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "file.json"
    write_json(path, {"a": 1})

    def fail(descriptor: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk is full"):
        write_atomic(path, b"half")
    monkeypatch.undo()
    assert read_json(path) == {"a": 1}
    assert [item.name for item in path.parent.iterdir()] == ["file.json"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"gone.json cannot be read: No such file"):
        read_json(tmp_path / "gone.json")
