"""The contract of an aggregation: silos seal integer vectors, and only their sum is opened.

Everything that leaves a silo goes through it, statistics and evaluations as well as updates, so that
replacing the implementation changes who can read what, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class AggregationContext:
    """What is being summed: bound into every sealed vector, so that none serves twice.

    `length` elements of `bits` bits each (8 to 24), from at most `max_contributors` silos.
    """

    job: str
    """Digest of the job."""
    round: int
    purpose: str
    """`statistics`, `update` or `evaluation`."""
    length: int
    bits: int
    max_contributors: int = 32

    def to_json(self) -> dict[str, Any]:
        """The context as a JSON value."""
        return {
            "job": self.job,
            "round": self.round,
            "purpose": self.purpose,
            "length": self.length,
            "bits": self.bits,
            "max_contributors": self.max_contributors,
        }


class Aggregator(Protocol):
    """One way to add integer vectors of several silos up."""

    name: str
    secure: bool
    """Whether anything hides one silo's vector from who collects them."""

    def seal(self, context: AggregationContext, silo: str, values: NDArray[np.uint32]) -> bytes:
        """A silo's contribution: `values` (length `context.length`, each below 2^bits) as bytes.

        Raises
        ------
        UpdateRejectedError
            If `values` does not fit the context.
        """
        ...

    def open_sum(self, context: AggregationContext, sealed: Mapping[str, bytes]) -> NDArray[np.int64]:
        """The element-wise sum of the contributions, by silo; exact.

        Raises
        ------
        IntegrityError
            If a contribution is malformed or belongs to another context or silo; names the silo.
        QuorumError
            If there are no contributions, or more than the context allows.
        """
        ...
