"""`fedhouse bench …`: benchmarks that run their peer in the same run."""

from __future__ import annotations

import json
import sys


def training(*, rows: int, pairs: int, json_output: bool) -> None:
    """Run the training benchmark and print its figures."""
    from fedhouse.training_bench import bench_training

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")

    told = bench_training(rows, pairs, say)
    if json_output:
        sys.stdout.write(json.dumps(told) + "\n")
        return
    for name, value in told.items():
        sys.stdout.write(f"{name}: {value}\n")
