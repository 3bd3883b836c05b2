"""The driver's checks of what partitions returned, and the integer sum of their updates."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedhouse.encoder import CategoryEncoding, Encoder, NumberEncoding
from fedhouse.encoding import canonical_json
from fedhouse.errors import FedhouseError, IntegrityError, TimeLimitError, UpdateRejectedError, UserCodeError
from fedhouse.spark_jobs.contract import SCORE_BINS
from fedhouse.spark_jobs.partition import CHUNK_BYTES, _by_partition, _chunks
from fedhouse.spark_jobs.results import assemble, sum_evaluations, sum_updates
from fedhouse.spark_jobs.rows import compact_width, expand
from fedhouse.spark_jobs.spool import Spool

DIGEST = "cd" * 32


def _rows(partition: int, examples: int, payload: bytes, **header: Any) -> list[dict[str, Any]]:
    told = {"digest": DIGEST, "cpu_class": "AVX2", "metrics": {}, "milliseconds": 5, **header}
    status = "error" if "error" in header else "ok"
    return [
        row for batch in _chunks(partition, 0, status, examples, told, payload) for row in batch.to_pylist()
    ]


def test_large_payloads_travel_in_chunks_and_come_back_whole() -> None:
    payload = random.Random(1).randbytes(2 * CHUNK_BYTES + 17)
    rows = _rows(0, 3, payload) + _rows(1, 4, b"x")
    random.Random(2).shuffle(rows)
    assert max(len(row["payload"]) for row in rows) <= CHUNK_BYTES
    first, second = assemble(rows, digest=DIGEST, expected={0: 3, 1: 4})
    assert first.payload == payload
    assert second.payload == b"x"


def test_a_missing_chunk_is_noticed_whichever_it_is() -> None:
    rows = _rows(0, 3, bytes(2 * CHUNK_BYTES + 1))
    for gone in range(3):
        with pytest.raises(IntegrityError, match="Chunks of partition 0 are missing"):
            assemble([row for row in rows if row["chunk"] != gone], digest=DIGEST, expected=3)


def test_nothing_at_all_is_noticed() -> None:
    with pytest.raises(IntegrityError, match="report 0 rows in 0 partitions, and 7 were expected"):
        assemble([], digest=DIGEST, expected=7)


@pytest.mark.parametrize("expected", [6, {0: 3, 1: 3}, {0: 3}])
def test_rows_that_do_not_add_up_are_noticed(expected: Any) -> None:
    with pytest.raises(IntegrityError, match="were expected"):
        assemble(_rows(0, 3, b"") + _rows(1, 4, b""), digest=DIGEST, expected=expected)


def test_a_partition_that_comes_twice_is_noticed() -> None:
    with pytest.raises(IntegrityError, match="Partition 0 came twice"):
        assemble(_rows(0, 3, b"") + _rows(0, 3, b""), digest=DIGEST, expected=6)


def test_other_code_is_noticed() -> None:
    with pytest.raises(IntegrityError, match="ran other code"):
        assemble(_rows(0, 3, b"", digest="00" * 32), digest=DIGEST, expected=3)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("UserCodeError", UserCodeError),
        ("TimeLimitError", TimeLimitError),
        ("UpdateRejectedError", UpdateRejectedError),
        ("re", UserCodeError),
        ("annotations", UserCodeError),
    ],
)
def test_a_partitions_error_keeps_its_kind(name: str, kind: type[FedhouseError]) -> None:
    rows = _rows(2, 3, b"", error=name, what="It broke.", mend="Mend it.")
    with pytest.raises(kind, match=r"Partition 2: It broke. Mend it.") as caught:
        assemble(rows, digest=DIGEST, expected=3)
    assert type(caught.value) is kind


@given(
    st.lists(
        st.tuples(st.integers(1, 1000), st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3)),
        min_size=1,
        max_size=4,
    )
)
@settings(deadline=None, max_examples=60)
def test_the_sum_does_not_depend_on_the_order_and_is_the_weighted_mean(
    parts: list[tuple[int, list[float]]],
) -> None:
    base = np.array([1, -2, 0.5], np.float32)
    rows = [
        row
        for number, (examples, local) in enumerate(parts)
        for row in _rows(number, examples, np.array(local, "<f4").tobytes())
    ]
    total = sum(examples for examples, _ in parts)
    deltas = [
        sum_updates(assemble(order, digest=DIGEST, expected=total), base).delta.tobytes()
        for order in itertools.islice(itertools.permutations(rows), 6)
    ]
    assert len(set(deltas)) == 1
    slow = sum(n * (np.array(local, np.float32).astype(float) - base) for n, local in parts) / total
    np.testing.assert_allclose(np.frombuffer(deltas[0]), slow, atol=2**-24)


@pytest.mark.parametrize(
    ("local", "words"),
    [
        ([np.nan, 0, 0], "not finite"),
        ([np.inf, 0, 0], "not finite"),
        ([2000, 0, 0], "moved a parameter"),
        ([0, 0], "returned 2 parameters, and the model has 3"),
    ],
)
def test_impossible_updates_are_refused(local: list[float], words: str) -> None:
    results = assemble(_rows(0, 1, np.array(local, "<f4").tobytes()), digest=DIGEST, expected=1)
    with pytest.raises(UpdateRejectedError, match=words):
        sum_updates(results, np.zeros(3, np.float32))


def test_empty_partitions_are_normal() -> None:
    rows = _rows(0, 2, np.array([1, 1], "<f4").tobytes()) + _rows(1, 0, b"")
    update = sum_updates(assemble(rows, digest=DIGEST, expected={0: 2}), np.zeros(2, np.float32))
    assert update.delta.tolist() == [1, 1]
    assert update.partitions == {0: 2}


def test_evaluations_add_up() -> None:
    counts = np.zeros((2, SCORE_BINS), "<i8")
    counts[0, 3], counts[1, 5] = 1, 2
    rows = [
        row
        for number, loss in enumerate((0.5, 0.75))
        for row in _rows(number, 3, counts.tobytes(), metrics={"loss": loss.hex()})
    ]
    told = sum_evaluations(assemble(rows, digest=DIGEST, expected=6), ("loss",))
    assert told.metrics == {"loss": 0.625}
    assert (told.positives[3], told.negatives[5], told.examples) == (2, 4, 6)


@pytest.mark.parametrize("change", [b"", b"\x00" * 8, np.full((2, SCORE_BINS), -1, "<i8").tobytes()])
def test_impossible_score_counts_are_refused(change: bytes) -> None:
    results = assemble(_rows(0, 3, change, metrics={"loss": "0x0p+0"}), digest=DIGEST, expected=3)
    with pytest.raises(UserCodeError, match="impossible score counts"):
        sum_evaluations(results, ("loss",))


ENCODER = Encoder(
    (
        NumberEncoding("a", 0, 1, flag_missing=True),
        CategoryEncoding("c", ("x", "y")),
        NumberEncoding("b", 0, 1),
    ),
    "label",
)


def test_compact_rows_expand_to_features() -> None:
    compact = np.array([[1.5, 0, 0, 7, 1], [0, 1, 2, 8, 0]], np.float32)
    assert compact_width(ENCODER) == 5
    assert expand(compact, ENCODER).tolist() == [[1.5, 0, 1, 0, 0, 7, 1], [0, 1, 0, 0, 1, 8, 0]]
    assert expand(compact[:0], ENCODER).shape == (0, 7)


@pytest.mark.parametrize("place", [-1, 3, np.nan])
def test_an_impossible_category_is_refused(place: float) -> None:
    with pytest.raises(IntegrityError, match="impossible category in column c"):
        expand(np.array([[0, 0, place, 0, 0]], np.float32), ENCODER)


def _batch(partitions: list[int], rows: list[list[float]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {"partition": pa.array(partitions, pa.int32()), "row": pa.array(rows, pa.list_(pa.float32()))}
    )


def test_the_size_of_batches_does_not_change_a_partition() -> None:
    rows = [[float(n), 0, 0, 0, 1] for n in range(7)]
    partitions = [0, 0, 0, 2, 2, 5, 5]
    whole = {}
    for cuts in ([7], [1] * 7, [2, 3, 2], [3, 0, 4]):
        batches, at = [], 0
        for size in cuts:
            batches.append(_batch(partitions[at : at + size], rows[at : at + size]))
            at += size
        found = {
            number: np.concatenate(list(parts)).tolist() for number, parts in _by_partition(batches, ENCODER)
        }
        whole[tuple(cuts)] = found
    assert len({canonical_json({str(k): v for k, v in found.items()}) for found in whole.values()}) == 1
    assert list(whole[(7,)]) == [0, 2, 5]


def test_rows_of_another_width_are_refused() -> None:
    with pytest.raises(IntegrityError, match="not of the encoder's width"):
        list(_by_partition([_batch([0], [[1.0, 2.0]])], ENCODER))


def test_a_spool_is_private_and_read_only_to_its_reader() -> None:
    import os

    with Spool(2) as spool:
        spool.append(np.ones((3, 2), np.float32))
        spool.append(np.zeros((0, 2), np.float32))
        reader = spool.read_only()
        assert os.fstat(reader).st_nlink == 0
        assert os.fstat(reader).st_mode & 0o777 == 0o600
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(reader, b"x")
        assert len(os.pread(reader, 1000, 0)) == spool.size == 24
    with pytest.raises(FedhouseError, match="width 2 was given"), Spool(2) as spool:
        spool.append(np.ones((3, 3), np.float32))
