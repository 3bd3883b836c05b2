"""What a finished job gave: its rounds, its model, its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedhouse.scoring import ScoringModel

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class RoundRecord:
    """One round: who contributed, and the metrics of the model after it (empty without a holdout)."""

    number: int
    contributors: tuple[str, ...]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class History:
    """The rounds of a job, in order."""

    rounds: tuple[RoundRecord, ...]
    metric: str

    def to_json(self) -> list[dict[str, Any]]:
        """The rounds as a JSON value."""
        return [
            {"round": item.number, "contributors": list(item.contributors), "metrics": dict(item.metrics)}
            for item in self.rounds
        ]

    def plot(self) -> Figure:
        """Every metric over the rounds, one panel each; a matplotlib figure, shown by a notebook as is."""
        from fedhouse.plots import metrics_by_round

        return metrics_by_round(self)


@dataclass(frozen=True)
class Run:
    """A finished job: its folder, history, exported model, and where the time went (seconds)."""

    folder: Path
    history: History
    scoring: ScoringModel
    model_digest: str
    exported_round: int
    """The round whose model was exported: the last, or with a patience the best."""
    stopped: str
    """Why it ended: all rounds done, target reached, or no better metric for the patience given."""
    excluded: Mapping[str, str]
    """Silos that took no part, each with the reason."""
    rows: int
    bytes_uploaded: Mapping[str, int]
    """For each silo, the bytes of its last update."""
    seconds: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def model(self) -> torch.nn.Module:
        """The trained model as a plain `torch.nn.Module`."""
        return self.scoring.module
