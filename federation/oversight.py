"""Who watches a job: what agent and coordinator ask before they act, and tell after they did.

Two small contracts with two implementations each: on a ledger (`fedhouse.federation.governed`), and none
at all, for rehearsals and tests of the rounds alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from fedhouse.spark_jobs.contract import Admission


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a job: what is collected, in which round, from which base (a digest)."""

    purpose: str
    """`statistics`, `update` or `evaluation`."""
    round: int
    base: str


class SiloOversight(Protocol):
    """What a silo's agent asks and tells. Everything may be asked and told again."""

    def require_permitted(self) -> None:
        """Gate 1, before a row is read and before anything leaves.

        Raises
        ------
        PolicyRefusedError
            If the job may not run at this silo now: not approved, not permitted, stopped.
        """

    def attest(self, admission: Admission) -> None:
        """Record what the quality gate found, whether it passed or not; counts only."""

    def commit(self, step: Step, digest: str) -> None:
        """Record that the sealed contribution with this SHA-256 is the silo's for the step.

        Raises
        ------
        PolicyRefusedError
            If it does not count: the step is not open or of another base, or gate 2 refuses.
        """


class RoundOversight(Protocol):
    """What a coordinator asks and tells. Everything may be asked and told again."""

    def opened(self, step: Step, cohort: tuple[str, ...]) -> None:
        """Record that the step is open for these silos.

        Raises
        ------
        PolicyRefusedError
            If the job may not go on.
        """

    def check(self, step: Step, silo: str, digest: str) -> None:
        """Check that what a silo handed over is what it committed to.

        Raises
        ------
        IntegrityError
            If it is not.
        """

    def closed(self, step: Step, contributors: tuple[str, ...]) -> Mapping[str, str]:
        """Record that exactly these contributions are summed.

        Gives the contributors that no longer count, each with the reason; then nothing was recorded.
        """

    def published(self, step: Step, result: str, metrics: Mapping[str, float]) -> None:
        """Record what the step's sum gave."""

    def finished(self, reason: str, rounds: int, model: str | None) -> None:
        """Record that the job has ended, with the digest of its model."""


class Unwatched:
    """Nobody is asked and nothing recorded: rehearsals, and tests of the rounds alone."""

    def require_permitted(self) -> None:
        """Nothing forbids anything."""

    def attest(self, admission: Admission) -> None:
        """Nothing is recorded."""

    def commit(self, step: Step, digest: str) -> None:
        """Nothing is recorded."""

    def opened(self, step: Step, cohort: tuple[str, ...]) -> None:
        """Nothing is recorded."""

    def check(self, step: Step, silo: str, digest: str) -> None:
        """Nothing was committed to."""

    def closed(self, step: Step, contributors: tuple[str, ...]) -> Mapping[str, str]:
        """Everybody counts."""
        return {}

    def published(self, step: Step, result: str, metrics: Mapping[str, float]) -> None:
        """Nothing is recorded."""

    def finished(self, reason: str, rounds: int, model: str | None) -> None:
        """Nothing is recorded."""
