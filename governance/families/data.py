"""Families `dataset` and `quality`: what members have, and that it passed its gate. Counts, never values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from fedhouse.governance.event import (
    Body,
    Count,
    Digest,
    Event,
    EventType,
    Label,
    Result,
    require,
    require_kind,
    require_role,
)
from fedhouse.governance.records import Map, Record

if TYPE_CHECKING:
    from fedhouse.governance.state import State

_RANGE = r"^(0|[1-9][0-9]{0,15})-([1-9][0-9]{0,15})$"


@dataclass(frozen=True)
class DatasetRecord(Record):
    """A member's table behind a dataset's name, as last registered."""

    schema: str
    columns: tuple[str, ...]
    suite: str
    rows: str
    lineage: tuple[str, ...]


@dataclass(frozen=True)
class QualityRecord(Record):
    """What a silo's gate found for a job, once."""

    pin: str
    suite: str
    passed: bool
    rows: int
    failed_checks: tuple[str, ...]


@dataclass(frozen=True)
class DataState(Record):
    """Datasets by `MEMBER/NAME`, gate results by `JOB/MEMBER`."""

    datasets: Map[DatasetRecord] = field(default_factory=Map)
    quality: Map[QualityRecord] = field(default_factory=Map)


class Registered(Body):
    """A member has a table that keeps what the dataset promises."""

    name: Label
    schema_digest: Digest
    columns: Annotated[tuple[Label, ...], Field(min_length=1, max_length=2000, strict=False)]
    suite: Digest
    """Digest of the quality suite that the table is held to."""
    rows: Annotated[str, Field(pattern=_RANGE)]
    """A range, `10000-99999`: the catalogue does not tell a member's exact size."""
    lineage: Annotated[tuple[Digest, ...], Field(max_length=64, strict=False)] = ()

    def subjects(self) -> tuple[tuple[str, str], ...]:
        """The schema."""
        return (("dataset", self.schema_digest),)


class Check(Body):
    """One expectation of a suite: how many rows it looked at, and how many it did not hold for."""

    expectation: Label
    column: Label | None = None
    looked_at: Count
    unexpected: Count
    passed: bool


class QualityAttested(Body):
    """A silo's agent has pinned a table and held it to its suite, for one job."""

    job: Digest
    dataset: Label
    pin: Digest
    suite: Digest
    passed: bool
    rows: Count
    checks: Annotated[tuple[Check, ...], Field(max_length=512, strict=False)]

    def subjects(self) -> tuple[tuple[str, str], ...]:
        """The job, and the pinned table."""
        return (("job", self.job), ("pin", self.pin))


def registered(state: State, event: Event[Registered], _: int) -> Result:
    """By a steward; a later registration replaces the earlier."""
    require_role(event, "steward")
    body = event.body
    require(len(set(body.columns)) == len(body.columns), "columns")
    low, high = (int(text) for text in body.rows.split("-"))
    require(low < high, "rows")
    record = DatasetRecord(body.schema_digest, body.columns, body.suite, body.rows, body.lineage)
    datasets = state.data.datasets.set(f"{event.member}/{body.name}", record)
    return replace(state, data=replace(state.data, datasets=datasets)), ()


def quality_attested(state: State, event: Event[QualityAttested], time: int) -> Result:
    """By the silo's agent, once a job, where it may take part, for the suite that its dataset is held to."""
    require_kind(event, "agent")
    body = event.body
    job = state.jobs.known(body.job)
    require(body.dataset == job.dataset, "other-dataset")
    state.may_take_part(body.job, event.member, time)
    place = f"{body.job}/{event.member}"
    require(place not in state.data.quality, "already-attested")
    require(body.suite == state.data.datasets[f"{event.member}/{body.dataset}"].suite, "other-suite")
    # A gate that looked at nothing has passed nothing.
    require(bool(body.checks) and body.passed == all(check.passed for check in body.checks), "checks")
    failed = tuple(
        check.expectation if check.column is None else f"{check.expectation} {check.column}"
        for check in body.checks
        if not check.passed
    )
    record = QualityRecord(body.pin, body.suite, body.passed, body.rows, failed)
    return replace(state, data=replace(state.data, quality=state.data.quality.set(place, record))), ()


EVENTS = {
    "dataset.registered": EventType(Registered, registered),
    "quality.attested": EventType(QualityAttested, quality_attested),
}
