"""`make bench`: a missed bar is shown and fails, a benchmark that breaks is shown and fails."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TRAINING = {
    "epochs": 3,
    "pairs": 9,
    "rows_per_second": {"spark_raw": 70_000.0, "spark_prepared": 110_000.0, "torch": 100_000.0},
    "ratio": 0.7,
    "ratio_prepared": 1.1,
    "iqr": {"ratio": [0.6, 0.8], "ratio_prepared": [1.0, 1.2]},
    "cold_seconds": {"spark": 30.0, "torch": 8.0},
    "loss": {"spark": 0.31, "torch": 0.3},
}
DEMO = {
    "auc": {"federated": 0.705, "pooled": 0.72, "best_single_silo": 0.66},
    "auc_stopped_early": {"pooled": 0.73, "best_single_silo": 0.69},
    "seconds": {"total": 200.0, "training": 90.0},
    "bytes_per_parameter": 2.01,
}


@pytest.fixture(scope="module")
def bench(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_run", root / "bench/run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_run"] = module
    spec.loader.exec_module(module)
    return module


def _run(bench: ModuleType, results: Path, told: Any, *, code: int = 0) -> int:
    program = f"import sys; print({json.dumps(told)!r}); sys.exit({code})"
    one = bench.Benchmark("training", "Training", (sys.executable, "-c", program), bench.training_figures)
    return int(bench.main([], (one,), results))


def test_bars_that_are_met_pass(bench: ModuleType, tmp_path: Path) -> None:
    assert _run(bench, tmp_path / "R.md", TRAINING) == 0
    text = (tmp_path / "R.md").read_text()
    assert "Every bar is met." in text
    assert (
        "| ratio to plain PyTorch, raw files | 0.700 | ≥ 0.6 | met | interquartile range 0.60 to 0.80 |"
        in text
    )
    assert "plain PyTorch 100,000 rows/s" in text
    assert "MISSED" not in text


@pytest.mark.parametrize(
    ("key", "value"), [("ratio", 0.59), ("ratio_prepared", 0.89), ("ratio", float("nan"))]
)
def test_a_missed_bar_is_shown_and_fails(bench: ModuleType, tmp_path: Path, key: str, value: float) -> None:
    assert _run(bench, tmp_path / "R.md", TRAINING | {key: value}) == 1
    assert (tmp_path / "R.md").read_text().count("**MISSED**") == 1


def test_a_benchmark_that_fails_is_shown_and_fails(bench: ModuleType, tmp_path: Path) -> None:
    assert _run(bench, tmp_path / "R.md", TRAINING, code=3) == 1
    assert "**FAILED**: exit code 3" in (tmp_path / "R.md").read_text()


def test_output_without_the_figures_is_a_failure(bench: ModuleType, tmp_path: Path) -> None:
    assert _run(bench, tmp_path / "R.md", {"ratio": 1.0}) == 1
    assert "**FAILED**" in (tmp_path / "R.md").read_text()


def test_the_sixteen_airlines_have_their_bars(bench: ModuleType) -> None:
    figures = {figure.name: figure for figure in bench.sixteen_airlines_figures(DEMO)}
    assert figures["AUC of the federated model"].met
    assert figures["AUC above the best airline's own model"].met
    aim = figures["AUC below the pooled model"]
    assert aim.aim
    assert not aim.met
    assert "aim not met" in aim.row()
    poor = DEMO | {"auc": {"federated": 0.69, "pooled": 0.72, "best_single_silo": 0.66}}
    assert sum(not figure.met for figure in bench.sixteen_airlines_figures(poor)) == 3


def test_the_default_demo_has_five_minutes(bench: ModuleType) -> None:
    assert all(figure.met for figure in bench.four_airlines_figures(DEMO))
    slow = DEMO | {"seconds": {"total": 301.0, "training": 90.0}}
    assert not all(figure.met for figure in bench.four_airlines_figures(slow))


def test_one_benchmark_alone_writes_nothing(bench: ModuleType, tmp_path: Path) -> None:
    program = f"print({json.dumps(TRAINING)!r})"
    command = (sys.executable, "-c", program)
    one = bench.Benchmark("one", "One", command, bench.training_figures)
    other = bench.Benchmark(
        "other", "Other", (sys.executable, "-c", "raise SystemExit(9)"), bench.training_figures
    )
    assert bench.main(["--only", "one"], (one, other), tmp_path / "R.md") == 0
    assert not (tmp_path / "R.md").exists()
