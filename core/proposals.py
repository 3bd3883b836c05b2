"""A job and a dataset as the ledger names them, and whether a proposal on it says what the job is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedhouse.dataset import Dataset
from fedhouse.jobs import Job

if TYPE_CHECKING:
    from fedhouse.governance.families.jobs import JobRecord


def registration(dataset: Dataset) -> dict[str, Any]:
    """The body of `dataset.registered` for a table that keeps what `dataset` promises."""
    return {
        "name": dataset.name,
        "schema_digest": dataset.digest,
        "columns": list(dataset.columns),
        "suite": dataset.digest,
        "rows": f"{dataset.min_rows}-{max(dataset.max_rows, dataset.min_rows + 1)}",
    }


def proposal(job: Job, silos: Sequence[str]) -> dict[str, Any]:
    """The body of `job.proposed`."""
    spec = job.spec
    return {
        "job": job.digest,
        "name": spec.name,
        "bundle": job.bundle.digest,
        "dataset": job.dataset.name,
        "purpose": spec.purpose,
        "columns": sorted(spec.columns_read(job.dataset)),
        "silos": sorted(silos),
        "rounds": spec.rounds,
        "min_cohort": spec.sampling.min_cohort,
        "evaluated": spec.holdout is not None,
        "metric": spec.metric,
        "bounds": {
            "seconds": spec.bounds.seconds,
            "parameters": spec.bounds.parameters,
            "scratch_mib": spec.bounds.scratch_mib,
        },
    }


def terms(job: Job) -> dict[str, Any]:
    """What a proposal of `job` must say for a silo to work under it, by the names of `JobRecord`."""
    told = proposal(job, ())
    names = ("name", "bundle", "dataset", "purpose", "columns", "rounds", "min_cohort", "evaluated")
    return {name: tuple(told[name]) if name == "columns" else told[name] for name in names}


def untrue(record: JobRecord, expected: Mapping[str, Any]) -> list[str]:
    """The names of what a recorded proposal says otherwise than the job itself (`terms`)."""
    return [name for name, value in expected.items() if getattr(record, name) != value]
