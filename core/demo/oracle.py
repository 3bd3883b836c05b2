"""The comparison that exists in the demo alone: models of all rows pooled, and of each airline's own.

No consortium can compute it: it reads everybody's rows. The demo can, and so shows what federating
costs against pooling, and gains against staying alone. Everything is judged on everybody's held-out
rows, by the exact area under the ROC curve.

Every model gets the same code, encoder and first weights, and as many passes over its rows as a silo
made in the federated job (rounds times the epochs of a round), each pass shuffled by a seed. An airline
alone overfits in so many passes, so each model is judged twice: as it came out, and as it was after the
round that was best on its owner's own held-out rows. The pooled model and the airlines' own are trained
in two processes, one thread each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedhouse.encoder import Encoder
from fedhouse.encoding import canonical_json, read_json
from fedhouse.errors import FedhouseError
from fedhouse.jobs import Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Judged:
    """Areas under the curve, on everybody's held-out rows, of one model trained without federation."""

    final: float
    """After as many passes as the federated job made."""
    stopped: float
    """After the round that was best on its owner's own held-out rows."""


@dataclass(frozen=True)
class Comparison:
    """A model of all rows pooled, and each silo's own."""

    pooled: Judged
    single: Mapping[str, Judged]

    @property
    def best_single(self) -> Judged:
        """The best of the silos' own models, each way of judging for itself."""
        return Judged(
            max(judged.final for judged in self.single.values()),
            max(judged.stopped for judged in self.single.values()),
        )


def pooled_and_single(job: Job, encoder: Encoder, tables: Mapping[str, Path]) -> Comparison:
    """Train the pooled model and each silo's own, and judge them.

    Raises
    ------
    FedhouseError
        If a process fails; its own words are on standard error.
    """
    with tempfile.TemporaryDirectory(prefix="fedhouse-oracle-") as name:
        folder = Path(name)
        job.save(folder / "job")
        order = {"encoder": encoder.to_json(), "tables": {silo: str(path) for silo, path in tables.items()}}
        (folder / "order.json").write_bytes(canonical_json(order))
        command = [sys.executable, "-m", "fedhouse.demo.oracle", name]
        sides = [subprocess.Popen([*command, side]) for side in ("pooled", "single")]
        if [side.wait() for side in sides] != [0, 0]:
            raise FedhouseError("The comparison with pooled rows failed.", mend="Its error is above.")
        pooled, single = (
            {owner: Judged(**judged) for owner, judged in read_json(folder / f"{side}.json").items()}
            for side in ("pooled", "single")
        )
        return Comparison(pooled["everybody"], single)


def exact_auc(scores: NDArray[np.float32], labels: NDArray[np.float32]) -> float:
    """Area under the ROC curve by ranks, ties counted half (Mann and Whitney, 1947)."""
    import numpy as np

    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    positive = labels > 0.5
    wins = ranks[positive].sum() - positive.sum() * (positive.sum() + 1) / 2
    return float(wins / (positive.sum() * (~positive).sum()))


def _rows(job: Job, encoder: Encoder, path: str) -> tuple[Any, Any]:
    """Training and held-out rows of a table, float32 [N, F + 1], the label last."""
    import numpy as np
    import pyarrow as pa

    from fedhouse.local_rows import as_table, split
    from fedhouse.scoring import encode_table

    found = []
    for part in split(as_table(path), job.spec, job.dataset):
        label = part.column(job.spec.label).cast(pa.float64()).to_numpy()
        found.append(np.column_stack([encode_table(encoder, part), label]).astype(np.float32))
    return found[0], found[1]


def _main(folder: Path, side: str) -> None:
    import numpy as np
    import torch

    from fedhouse.snapshot import snapshot_vector
    from fedhouse.spark_jobs import usercode
    from fedhouse.spark_jobs.task import model_seed

    torch.set_num_threads(1)
    order = json.loads((folder / "order.json").read_bytes())
    job = Job.load(folder / "job")
    encoder = Encoder.from_json(order["encoder"])
    rows = {silo: _rows(job, encoder, path) for silo, path in order["tables"].items()}
    held = torch.from_numpy(np.concatenate([part for _, part in rows.values()]))
    code = usercode.UserCode(job.bundle.digest, job.bundle.sources, job.bundle.entries)
    base = torch.from_numpy(snapshot_vector(job.bundle.layout, job.bundle.weights).copy())

    def judged(training: NDArray[np.float32], own: NDArray[np.float32]) -> dict[str, float]:
        model = usercode.build_model(code, job.bundle.model_args, model_seed(job.spec))
        usercode.load_state(model, job.bundle.layout, base)
        loader = usercode.PartitionLoader(
            torch.from_numpy(training), job.spec.batch_size, job.spec.seed, shuffle=True
        )

        def auc(rows: torch.Tensor) -> float:
            return exact_auc(usercode.score_rows(code, model, rows[:, :-1]).numpy(), rows[:, -1].numpy())

        by_round = []
        for _ in range(job.spec.rounds):
            code.train(model, loader, **job.bundle.train_args)
            by_round.append((auc(torch.from_numpy(own)), auc(held)))
        return {"final": by_round[-1][1], "stopped": max(by_round)[1]}

    if side == "pooled":
        told = {"everybody": judged(np.concatenate([part for part, _ in rows.values()]), held.numpy())}
    else:
        told = {silo: judged(*parts) for silo, parts in rows.items()}
    (folder / f"{side}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2])
