"""The driver's side of `partition`: collecting chunks, believing nothing, adding updates up in integers.

Partition updates are summed as integers in units of 2^-24, each times its number of examples, so that
the order in which partitions finish cannot change a bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedhouse import errors
from fedhouse.encoding import parse_json
from fedhouse.errors import FedhouseError, IntegrityError, UpdateRejectedError, UserCodeError
from fedhouse.spark_jobs.contract import SCORE_BINS, LocalEvaluation, LocalUpdate

if TYPE_CHECKING:
    from numpy.typing import NDArray

_UNIT = float(2**24)
# A parameter that moves further than this in one round has diverged, and would not fit the integers.
_LARGEST_MOVE = float(2**10)


@dataclass(frozen=True, slots=True)
class PartitionResult:
    """One partition's answer, whole and checked against what was asked."""

    partition: int
    attempt: int
    examples: int
    header: Mapping[str, Any]
    payload: bytes


def assemble(
    rows: Iterable[Mapping[str, Any]], *, digest: str, expected: Mapping[int, int] | int
) -> list[PartitionResult]:
    """Whole results from chunk rows, by partition number.

    `expected` is the number of examples of each partition where it is known, else of all together.

    Raises
    ------
    IntegrityError
        If a chunk is missing or doubled, a partition is, or the examples do not add up; if other code ran.
    UserCodeError, UpdateRejectedError, TimeLimitError
        What the first failing partition reported.
    """
    chunks: dict[int, dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        found = chunks.setdefault(row["partition"], {})
        if row["chunk"] in found:
            raise IntegrityError(
                f"Partition {row['partition']} came twice.",
                mend="Its rows were split between tasks; run anew.",
            )
        found[row["chunk"]] = row
    results = [_whole(partition, found) for partition, found in sorted(chunks.items())]
    for result in results:
        if "error" in result.header:
            _raise_reported(result)
        if result.header.get("digest") != digest:
            raise IntegrityError(f"Partition {result.partition} ran other code than was asked.")
    counts = {result.partition: result.examples for result in results if result.examples}
    whole = sum(counts.values())
    if counts != expected if isinstance(expected, Mapping) else whole != expected:
        wanted = sum(expected.values()) if isinstance(expected, Mapping) else expected
        raise IntegrityError(
            f"The partitions report {whole} rows in {len(counts)} partitions, and {wanted} were expected.",
            mend="If the table did not change, look for killed executors and give the driver more memory.",
        )
    return results


def _whole(partition: int, found: Mapping[int, Mapping[str, Any]]) -> PartitionResult:
    first = found.get(0)
    if first is None or set(found) != set(range(first["chunks"])):
        raise IntegrityError(
            f"Chunks of partition {partition} are missing.", mend="Give the driver more memory and run anew."
        )
    payload = b"".join(bytes(found[index]["payload"]) for index in range(first["chunks"]))
    header = parse_json(first["header"], "A partition's header")
    return PartitionResult(partition, first["attempt"], first["examples"], header, payload)


def _raise_reported(result: PartitionResult) -> None:
    kind = getattr(errors, str(result.header["error"]), UserCodeError)
    if not (isinstance(kind, type) and issubclass(kind, FedhouseError)):
        kind = UserCodeError
    raise kind(f"Partition {result.partition}: {result.header['what']}", mend=str(result.header["mend"]))


def sum_updates(results: list[PartitionResult], base: NDArray[np.float32]) -> LocalUpdate:
    """The silo's update: local minus base, averaged over partitions by examples.

    Raises
    ------
    UpdateRejectedError
        If a partition's parameters are of the wrong number, not finite, or have diverged.
    """
    total = np.zeros(len(base), dtype=np.int64)
    examples = sum(result.examples for result in results)
    for result in results:
        if not result.examples:
            continue
        if len(result.payload) != 4 * len(base):
            raise UpdateRejectedError(
                f"Partition {result.partition} returned {len(result.payload) // 4} parameters, "
                f"and the model has {len(base)}."
            )
        local = np.frombuffer(result.payload, dtype="<f4").astype(np.float64)
        move = local - base.astype(np.float64)
        if not np.isfinite(move).all():
            raise UpdateRejectedError(
                f"Training on partition {result.partition} gave parameters that are not finite.",
                mend="Lower the learning rate, or look for a loss that becomes NaN.",
            )
        if np.abs(move).max(initial=0.0) > _LARGEST_MOVE:
            raise UpdateRejectedError(
                f"Training on partition {result.partition} moved a parameter by more than {_LARGEST_MOVE:g}.",
                mend="Lower the learning rate.",
            )
        total += np.rint(move * _UNIT).astype(np.int64) * result.examples
    return LocalUpdate(
        delta=total / (_UNIT * max(examples, 1)),
        examples=examples,
        partitions={result.partition: result.examples for result in results if result.examples},
        seconds=sum(result.header["milliseconds"] for result in results) / 1000,
        cpu_class=common_cpu_class(results),
    )


def common_cpu_class(results: list[PartitionResult]) -> str:
    """The instruction set that all partitions ran on, or `mixed`."""
    classes = {str(result.header["cpu_class"]) for result in results}
    return classes.pop() if len(classes) == 1 else "mixed" if classes else "none"


def sum_evaluations(results: list[PartitionResult], report: tuple[str, ...]) -> LocalEvaluation:
    """The silo's evaluation: histograms added up, metrics averaged over partitions by examples.

    Raises
    ------
    UserCodeError
        If a partition's counts are impossible.
    """
    counts = np.zeros((2, SCORE_BINS), dtype=np.int64)
    sums = dict.fromkeys(report, 0.0)
    examples = sum(result.examples for result in results)
    for result in results:
        if not result.examples:
            continue
        part = np.frombuffer(result.payload, dtype="<i8")
        if part.size != counts.size or (part < 0).any() or part.sum() != result.examples:
            raise UserCodeError(f"Partition {result.partition} returned impossible score counts.")
        counts += part.reshape(counts.shape)
        for name in report:
            sums[name] += float.fromhex(result.header["metrics"][name]) * result.examples
    return LocalEvaluation(
        examples=examples,
        metrics={name: value / max(examples, 1) for name, value in sums.items()},
        positives=counts[0],
        negatives=counts[1],
        seconds=sum(result.header["milliseconds"] for result in results) / 1000,
    )
