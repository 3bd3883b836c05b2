"""Small warehouses, a dataset and a job that the end-to-end tests share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

CODE = """
import torch


class Net(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.hidden = torch.nn.Linear(features, 8)
        self.norm = torch.nn.BatchNorm1d(8)
        self.out = torch.nn.Linear(8, 1)

    def forward(self, x):
        return self.out(torch.relu(self.norm(self.hidden(x)))).squeeze(-1)


def train(model, loader, *, epochs, lr):
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    model.train()
    for _ in range(epochs):
        for features, label in loader:
            optimizer.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(model(features), label).backward()
            optimizer.step()


def evaluate(model, loader):
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for features, label in loader:
            logits = model(features)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, label, reduction="sum")
            total, count = total + float(loss), count + len(label)
    return {"loss": total / max(count, 1)}
"""

DATASET = """
name: rows
key: [id]
min_rows: 50
columns:
  id: {type: integer}
  day: {type: integer, minimum: 1, maximum: 31}
  amount: {type: number, minimum: -1000, maximum: 1000, max_null_fraction: 0.2}
  age: {type: integer, minimum: 0, maximum: 120}
  colour: {type: string, max_null_fraction: 0.1}
  late: {type: integer, allowed: [0, 1]}
"""

JOB = """
name: small
data: rows
columns: [{name: amount, flag_missing: true}, age, {name: colour, vocabulary: [red, green]}]
label: late
model: small:Net
train: small:train
evaluate: small:evaluate
train_args: {epochs: 2, lr: 0.01}
batch_size: 64
partitions: 2
rounds: 2
holdout: {column: day, modulo: 5}
"""


def make_rows(seed: int, count: int = 600) -> pa.Table:
    """Rows of one silo: the label depends on amount and colour."""
    generator = np.random.default_rng(seed)
    amount = generator.normal(size=count) * 30
    colour = generator.choice(["red", "green", "blue"], count)
    late = (amount / 30 + (colour == "red") + generator.normal(size=count) > 0.5).astype("int64")
    return pa.table(
        {
            "id": pa.array(range(seed * 10_000, seed * 10_000 + count), pa.int64()),
            "day": pa.array(generator.integers(1, 32, count)),
            "amount": pa.array(amount, mask=generator.random(count) < 0.05),
            "age": pa.array(generator.integers(0, 100, count)),
            "colour": pa.array(colour, mask=generator.random(count) < 0.03),
            "late": pa.array(late),
        }
    )


def write_table(folder: Path, table: pa.Table, files: int = 2) -> Path:
    """A Parquet table of some files."""
    folder.mkdir(parents=True, exist_ok=True)
    step = max(1, -(-table.num_rows // files))
    for number in range(files):
        pq.write_table(table.slice(number * step, step), folder / f"part-{number}.parquet")
    return folder


@dataclass(frozen=True)
class Workplace:
    """A job's folder and three silos' warehouses."""

    folder: Path
    tables: Mapping[str, Path]

    @property
    def job_file(self) -> Path:
        """`job.yaml`."""
        return self.folder / "job.yaml"

    def job(self, **overrides: Any) -> Any:
        """The job, with some of its keys changed."""
        import fedhouse

        return fedhouse.load_job(self.job_file, overrides)

    def silo_file(self, silo: str, **changes: Any) -> Path:
        """A silo's own configuration, and its profile."""
        import yaml

        (self.folder / "profiles.yaml").write_text(
            yaml.safe_dump(
                {
                    name: {"target": "t", "outputs": {"t": {"type": "parquet", "root": str(table.parent)}}}
                    for name, table in self.tables.items()
                }
            )
        )
        path = self.folder / f"{silo}.yaml"
        config = {
            "silo": silo,
            "profiles": "profiles.yaml",
            "datasets": {"rows": {"profile": silo, "table": "rows"}},
            "spark": {"master": "local[2]", "conf": {"spark.sql.shuffle.partitions": "2"}},
            **changes,
        }
        path.write_text(yaml.safe_dump(config))
        return path


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    """A fresh job and three silos of 600 rows."""
    (tmp_path / "small.py").write_text(CODE)
    (tmp_path / "rows.dataset.yaml").write_text(DATASET)
    (tmp_path / "job.yaml").write_text(JOB)
    tables = {
        silo: write_table(tmp_path / "warehouses" / silo / "rows", make_rows(seed))
        for seed, silo in enumerate(("alpha", "beta", "gamma"), 1)
    }
    return Workplace(tmp_path, tables)


@pytest.fixture
def rows() -> Callable[..., pa.Table]:
    """`make_rows`."""
    return make_rows


@pytest.fixture
def write() -> Callable[..., Path]:
    """`write_table`."""
    return write_table
