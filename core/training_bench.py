"""`fedhouse bench training`: rows a second into a trained model, beside plain PyTorch in the same run.

The same model, the same loop, the same rows on both sides: 30 doubles, a perceptron with 64 hidden
units, Adam, batches of 1,024, three epochs, every epoch shuffled by a seed.

* **fedhouse**: Spark on two cores, two partitions, one thread each, the user's code in its child
  process; timed from asking for the round to the merged weights in the driver. `spark_raw` reads,
  casts, shuffles and sorts the table's files again; `spark_prepared` reads the prepared copy.
* **torch**: pyarrow into one float32 tensor, batches sliced by index, with one or two threads,
  whichever is faster; timed from opening the file to the trained weights.

One untimed pass a side, then pairs in turn; the ratio is the median of the pairs' ratios, because
single pairs scatter. Starting up is not in it and is given beside it as `cold_seconds`.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

EPOCHS = 3
FEATURES = 30
_BATCH = 1024
_FILES = 8
_SOURCE = """
import torch


class Net(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.hidden = torch.nn.Linear(features, 64)
        self.out = torch.nn.Linear(64, 1)

    def forward(self, x):
        return self.out(torch.relu(self.hidden(x))).squeeze(-1)


def train(model, loader, *, epochs, lr):
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(epochs):
        for features, label in loader:
            optimizer.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(model(features), label).backward()
            optimizer.step()


def evaluate(model, loader):
    total, count = 0.0, 0
    with torch.no_grad():
        for features, label in loader:
            logits = model(features)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, label, reduction="sum")
            total, count = total + float(loss), count + len(label)
    return {"loss": total / count}
"""


def bench_training(rows: int, pairs: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the benchmark on `rows` rows with `pairs` pairs; `say` hears of its progress.

    Returns
    -------
    dict
        `rows_per_second` counts every row once an epoch; `ratio` and `ratio_prepared` are medians of
        fedhouse over torch, `iqr` their quartiles; `loss` is on held-out rows.
    """
    with tempfile.TemporaryDirectory(prefix="fedhouse-bench-") as name:
        folder = Path(name)
        _write_table(folder / "rows", rows, seed=1)
        _write_table(folder / "held", max(1000, rows // 10), seed=2)
        (folder / "bench.py").write_text(_SOURCE)
        say("cold starts")
        cold = {kind: _cold(folder, kind) for kind in ("spark", "torch")}
        with _peer(folder) as torch_once:
            threads = min((1, 2), key=lambda count: (torch_once(count), torch_once(count))[1])
            say(f"plain PyTorch is faster with {threads} thread(s)")
            return _pairs(folder, rows, pairs, lambda: torch_once(threads), say) | {"cold_seconds": cold}


def _pairs(
    folder: Path, rows: int, pairs: int, torch_once: Callable[[], float], say: Callable[[str], None]
) -> dict[str, Any]:
    raw, prepared, runners = _spark_sides(folder)
    for once in (raw, prepared, torch_once):
        once()
    seconds: dict[str, list[float]] = {"spark_raw": [], "spark_prepared": [], "torch": []}
    for index in range(pairs):
        sides = [("spark_raw", raw), ("spark_prepared", prepared), ("torch", torch_once)]
        for side, once in sides if index % 2 == 0 else sides[::-1]:
            seconds[side].append(once())
        say(f"pair {index + 1} of {pairs}: " + ", ".join(f"{k} {v[-1]:.2f} s" for k, v in seconds.items()))
    ratios = {
        key: sorted(peer / ours for ours, peer in zip(seconds[side], seconds["torch"], strict=True))
        for key, side in (("ratio", "spark_raw"), ("ratio_prepared", "spark_prepared"))
    }
    losses = {"spark": _spark_loss(runners), "torch": json.loads((folder / "peer.json").read_text())["loss"]}
    for runner in runners:
        runner.close()
    return {
        "rows": rows,
        "epochs": EPOCHS,
        "pairs": pairs,
        "rows_per_second": {k: round(rows * EPOCHS / statistics.median(v)) for k, v in seconds.items()},
        "ratio": round(statistics.median(ratios["ratio"]), 3),
        "ratio_prepared": round(statistics.median(ratios["ratio_prepared"]), 3),
        "iqr": {key: _quartiles(values) for key, values in ratios.items()},
        "loss": losses,
    }


def _quartiles(values: list[float]) -> list[float]:
    if len(values) < 2:
        return [round(values[0], 3)] * 2
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return [round(low, 3), round(high, 3)]


def _write_table(folder: Path, rows: int, *, seed: int) -> None:
    """A Parquet table of `_FILES` files: `id`, the features x0 …, and a label that depends on them."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    generator = np.random.default_rng(seed)
    direction = np.random.default_rng(0).normal(size=FEATURES)
    for part, ids in enumerate(np.array_split(np.arange(rows), _FILES)):
        x = generator.normal(size=(len(ids), FEATURES))
        score = x @ direction / math.sqrt(FEATURES) + np.sin(2 * x[:, 0])
        label = (generator.random(len(ids)) < 1 / (1 + np.exp(-2 * score))).astype("int64")
        columns = {"id": ids, "label": label} | {f"x{index}": x[:, index] for index in range(FEATURES)}
        pq.write_table(pa.table(columns), folder / f"part-{part}.parquet")


def _bench_job(folder: Path) -> Any:
    from fedhouse.dataset import Dataset
    from fedhouse.jobs import job

    names = [f"x{index}" for index in range(FEATURES)]
    dataset = Dataset.model_validate(
        {
            "name": "bench",
            "key": ["id"],
            "columns": {"id": {"type": "integer"}, "label": {"type": "integer"}}
            | {name: {"type": "number"} for name in names},
        }
    )
    return job(
        data=dataset,
        directory=folder,
        name="bench-training",
        columns=names,
        label="label",
        model="bench:Net",
        train="bench:train",
        evaluate="bench:evaluate",
        train_args={"epochs": EPOCHS, "lr": 0.001},
        batch_size=_BATCH,
        partitions=2,
        rounds=1,
    )


def _runner(folder: Path, spark: Any, job: Any, *, table: str, prepared: bool) -> Any:
    from fedhouse.connectors.connector import SourceRef
    from fedhouse.connectors.profiles import Profile
    from fedhouse.connectors.registry import open_connector
    from fedhouse.spark_jobs.prepared import PreparedPolicy
    from fedhouse.spark_jobs.runner import SparkSiloRunner

    profile = Profile(name="bench", type="parquet", target="local", options={"root": str(folder)})
    return SparkSiloRunner(
        silo=table,
        job=job.digest,
        spec=job.spec,
        dataset=job.dataset,
        bundle=job.bundle,
        spark=spark,
        connector=open_connector(profile),
        source=SourceRef(profile="bench", table=table),
        prepared=PreparedPolicy(allowed=prepared, uri=f"file://{folder}/prepared"),
    )


def _spark_sides(folder: Path) -> tuple[Callable[[], float], Callable[[], float], list[Any]]:
    """One timed round from raw files, one from prepared rows, and their runners."""
    from fedhouse.snapshot import snapshot_vector
    from fedhouse.spark_jobs.session import SparkSettings, open_session

    job = _bench_job(folder)
    spark = open_session(SparkSettings(master="local[2]", driver_memory="2g"))
    base = snapshot_vector(job.bundle.layout, job.bundle.weights)
    encoder = _identity_encoder()
    runners = [_runner(folder, spark, job, table="rows", prepared=flag) for flag in (False, True)]
    for runner in runners:
        runner.admit()
        runner.statistics()
        runner.trained = base

    def once(runner: Any) -> float:
        began = time.perf_counter()
        update = runner.train(1, base, encoder)
        runner.trained = (base + update.delta).astype("float32")
        return time.perf_counter() - began

    return lambda: once(runners[0]), lambda: once(runners[1]), runners


def _identity_encoder() -> Any:
    from fedhouse.encoder import Encoder, NumberEncoding

    return Encoder(tuple(NumberEncoding(f"x{index}", 0.0, 1.0) for index in range(FEATURES)), "label")


def _spark_loss(runners: list[Any]) -> float:
    """Loss of the merged weights on the held-out table, by the same code as the peer's."""
    first = runners[0]
    folder = Path(first.connector.profile.options["root"])
    return _loss(folder, first.trained)


def _loss(folder: Path, weights: Any) -> float:
    import torch

    code = _load_source(folder)
    model = code["Net"](FEATURES)
    torch.nn.utils.vector_to_parameters(torch.from_numpy(weights.copy()), model.parameters())
    return round(float(code["evaluate"](model, _Batches(_read_rows(folder / "held"), seed=None))["loss"]), 5)


# --- the peer: plain PyTorch ------------------------------------------------------------------------


class _Batches:
    """Index-sliced batches of one tensor, a seeded permutation each epoch."""

    def __init__(self, rows: Any, seed: int | None) -> None:
        self.features, self.label, self.seed, self.passes = rows[:, :-1].contiguous(), rows[:, -1], seed, 0

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        import torch

        count = len(self.label)
        order = torch.arange(count)
        if self.seed is not None:
            order = torch.randperm(count, generator=torch.Generator().manual_seed(self.seed + self.passes))
        self.passes += 1
        for start in range(0, count, _BATCH):
            chosen = order[start : start + _BATCH]
            yield self.features[chosen], self.label[chosen]


def _read_rows(folder: Path) -> Any:
    """The table as one float32 tensor [N, F + 1], the label last."""
    import numpy as np
    import pyarrow.parquet as pq
    import torch

    names = [*(f"x{index}" for index in range(FEATURES)), "label"]
    table = pq.read_table(folder, columns=names)
    rows = np.empty((table.num_rows, len(names)), dtype=np.float32)
    for index, name in enumerate(names):
        rows[:, index] = table.column(name).to_numpy()
    return torch.from_numpy(rows)


def _load_source(folder: Path) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile((folder / "bench.py").read_text(), "bench.py", "exec"), names)  # noqa: S102 - our own text
    return names


def _torch_round(folder: Path, threads: int) -> tuple[float, Any]:
    import torch

    torch.set_num_threads(threads)
    code = _load_source(folder)
    torch.manual_seed(0)
    model = code["Net"](FEATURES)
    began = time.perf_counter()
    code["train"](model, _Batches(_read_rows(folder / "rows"), seed=1), epochs=EPOCHS, lr=0.001)
    seconds = time.perf_counter() - began
    return seconds, torch.nn.utils.parameters_to_vector(model.parameters()).detach().numpy()


@contextmanager
def _peer(folder: Path) -> Iterator[Callable[[int], float]]:
    """A warm process of plain PyTorch; called with a number of threads it gives seconds."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fedhouse.training_bench", "peer", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def once(threads: int) -> float:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{threads}\n")
        process.stdin.flush()
        return float(process.stdout.readline())

    try:
        yield once
    finally:
        process.kill()
        process.wait()


def _serve_peer(folder: Path, orders: IO[str]) -> None:
    for line in orders:
        seconds, weights = _torch_round(folder, int(line))
        (folder / "peer.json").write_text(json.dumps({"loss": _loss(folder, weights)}))
        sys.stdout.write(f"{seconds}\n")
        sys.stdout.flush()


def _cold(folder: Path, kind: str) -> float:
    """Seconds of a whole process, from its start to trained weights."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "fedhouse.training_bench", f"cold-{kind}", str(folder)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return round(time.perf_counter() - began, 2)


def main(kind: str, folder: Path) -> None:
    """One side in a process of its own."""
    if kind == "peer":
        _serve_peer(folder, sys.stdin)
    elif kind == "cold-torch":
        _torch_round(folder, 2)
    else:
        _spark_sides(folder)[0]()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
