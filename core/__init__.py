"""fedhouse: federated learning that runs inside each enterprise's data warehouse.

The public names load on first use (PEP 562), so that `import fedhouse` needs neither Spark nor torch.

Example::

    import fedhouse

    job = fedhouse.load_job("job.yaml")
    job.rehearse()
    run = fedhouse.simulate(job, {"AA": "warehouses/AA/flights", "UA": frame}, out="run")
    run.history.plot()
    scores = fedhouse.score(frame, model=run.scoring)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedhouse.dataset import Dataset
    from fedhouse.errors import FedhouseError
    from fedhouse.history import History, Run
    from fedhouse.jobs import Job, job, load_job
    from fedhouse.scoring import ScoringModel, score
    from fedhouse.simulation import simulate
    from fedhouse.spark_jobs.trainer import Trainer

_PLACES = {
    "Dataset": "fedhouse.dataset",
    "FedhouseError": "fedhouse.errors",
    "History": "fedhouse.history",
    "Job": "fedhouse.jobs",
    "Run": "fedhouse.history",
    "ScoringModel": "fedhouse.scoring",
    "Trainer": "fedhouse.spark_jobs.trainer",
    "job": "fedhouse.jobs",
    "load_job": "fedhouse.jobs",
    "score": "fedhouse.scoring",
    "simulate": "fedhouse.simulation",
}

__all__ = [
    "Dataset",
    "FedhouseError",
    "History",
    "Job",
    "Run",
    "ScoringModel",
    "Trainer",
    "job",
    "load_job",
    "score",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'fedhouse' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
