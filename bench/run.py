"""`make bench`: runs every benchmark and writes RESULTS.md beside this file.

Each figure stands beside its bar and beside its peer or floor from the same run, because figures of
different runs or machines do not compare. A missed bar and a benchmark that fails are shown, and make
the exit code 1. A new benchmark is one entry of `BENCHMARKS`.

    python bench/run.py                  all of them; writes RESULTS.md
    python bench/run.py --only training  one of them; prints its part and writes nothing
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedhouse.encoding import write_atomic
from fedhouse.spark_jobs.session import java_version

RESULTS = Path(__file__).with_name("RESULTS.md")
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Figure:
    """One number, its bar if it has one, and what it is to be seen beside."""

    name: str
    value: float
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    aim: bool = False  # an aim is shown and does not fail the run
    beside: str = ""

    @property
    def met(self) -> bool:
        """Whether the value is within its bar. A figure that is not a number meets none."""
        low = self.at_least is None or self.value >= self.at_least
        high = self.at_most is None or self.value <= self.at_most
        return low and high

    @property
    def has_bar(self) -> bool:
        """Whether there is anything to meet."""
        return self.at_least is not None or self.at_most is not None

    def row(self) -> str:
        """A line of the table."""
        bar = f"≥ {self.at_least:g}" if self.at_least is not None else ""
        bar = f"≤ {self.at_most:g}" if self.at_most is not None else bar
        verdict = ("met" if self.met else "aim not met" if self.aim else "**MISSED**") if self.has_bar else ""
        value = f"{self.value:,.0f}" if abs(self.value) >= 1000 else f"{self.value:.3f}"
        told = f"{value} {self.unit}".rstrip()
        return f"| {self.name} | {told} | {'aim ' if self.aim else ''}{bar} | {verdict} | {self.beside} |"


@dataclass(frozen=True)
class Benchmark:
    """A command that prints one JSON object, and the figures that are read out of it.

    `{out}` in the command becomes an empty temporary folder.
    """

    name: str
    title: str
    command: Sequence[str]
    figures: Callable[[Mapping[str, Any]], list[Figure]]
    limit_seconds: int = 3600


@dataclass(frozen=True)
class Outcome:
    """What running a benchmark gave: figures, or the line that it failed with."""

    benchmark: Benchmark
    figures: tuple[Figure, ...] = ()
    failure: str = ""

    @property
    def passed(self) -> bool:
        """Whether it ran and every bar is met."""
        return not self.failure and all(figure.met or figure.aim for figure in self.figures)

    def section(self) -> str:
        """Its part of RESULTS.md."""
        shown = " ".join(["fedhouse", *self.benchmark.command[1:]])
        if self.benchmark.command[0] == sys.executable:
            shown = " ".join(["python", *self.benchmark.command[1:]]).replace(f"{ROOT}/", "")
        lines = [f"## {self.benchmark.title}", "", f"`{shown}`".replace("{out}", "DIR"), ""]
        if self.failure:
            return "\n".join([*lines, f"**FAILED**: {self.failure}", ""])
        lines += ["| figure | value | bar | | beside it, from the same run |", "|---|---:|---|---|---|"]
        return "\n".join([*lines, *(figure.row() for figure in self.figures), ""])


def training_figures(told: Mapping[str, Any]) -> list[Figure]:
    """Of `fedhouse bench training --json`."""
    rate, spread, cold, loss = (told[name] for name in ("rows_per_second", "iqr", "cold_seconds", "loss"))
    peer = f"plain PyTorch {rate['torch']:,.0f} rows/s; {told['pairs']} pairs, {told['epochs']} epochs"
    return [
        Figure("rows a second from raw files", rate["spark_raw"], "rows/s", beside=peer),
        Figure("rows a second from prepared rows", rate["spark_prepared"], "rows/s", beside=peer),
        Figure(
            "ratio to plain PyTorch, raw files", told["ratio"], at_least=0.6, beside=_spread(spread["ratio"])
        ),
        Figure(
            "ratio to plain PyTorch, prepared rows",
            told["ratio_prepared"],
            at_least=0.9,
            beside=_spread(spread["ratio_prepared"]),
        ),
        Figure(
            "cold start to trained model", cold["spark"], "s", beside=f"plain PyTorch {cold['torch']:.1f} s"
        ),
        Figure("held-out loss", loss["spark"], beside=f"plain PyTorch {loss['torch']:.4f}"),
    ]


def _spread(quartiles: Sequence[float]) -> str:
    return f"interquartile range {quartiles[0]:.2f} to {quartiles[1]:.2f}"


def sixteen_airlines_figures(told: Mapping[str, Any]) -> list[Figure]:
    """Of the report of all sixteen airlines: the areas under the curve, on everybody's held-out days."""
    federated, pooled, single = (told["auc"][name] for name in ("federated", "pooled", "best_single_silo"))
    stopped = told["auc_stopped_early"]
    return [
        Figure("AUC of the federated model", federated, at_least=0.700, beside=f"pooled {pooled:.4f}"),
        Figure(
            "AUC above the best airline's own model",
            federated - single,
            at_least=0.035,
            beside=f"its own model {single:.4f}",
        ),
        Figure(
            "AUC below the pooled model",
            pooled - federated,
            at_most=0.010,
            aim=True,
            beside=f"pooled {pooled:.4f}",
        ),
        Figure(
            "AUC above the best airline's own model, that one stopped early",
            federated - stopped["best_single_silo"],
            beside=f"its own model, stopped early {stopped['best_single_silo']:.4f}",
        ),
        Figure(
            "AUC below the pooled model, that one stopped early",
            stopped["pooled"] - federated,
            beside=f"pooled, stopped early {stopped['pooled']:.4f}",
        ),
        _total(told),
    ]


def four_airlines_figures(told: Mapping[str, Any]) -> list[Figure]:
    """Of the report of the default demo: the time is what counts."""
    federated, single = told["auc"]["federated"], told["auc"]["best_single_silo"]
    return [
        _total(told, at_most=300),
        Figure(
            "AUC above the best airline's own model",
            federated - single,
            beside=f"federated {federated:.4f}, its own model {single:.4f}",
        ),
        Figure("bytes uploaded a parameter", told["bytes_per_parameter"], "B", beside="float32: 4 B"),
    ]


def _total(told: Mapping[str, Any], *, at_most: float | None = None) -> Figure:
    beside = f"training {told['seconds']['training']:.0f} s of it"
    return Figure("wall time", told["seconds"]["total"], "s", at_most=at_most, beside=beside)


def ledger_figures(told: Mapping[str, Any]) -> list[Figure]:
    """Of bench/ledger.py."""
    found = []
    bars = {
        "append": ("append", 0.4),
        "audit": ("full audit on two cores", 0.8),
        "replay": ("replay, verified before", 2.0),
    }
    for key, (name, bar) in bars.items():
        rate = told[key]
        beside = f"bare Ed25519 verification on one core {rate['floor']:,}/s"
        found.append(Figure(f"{name}, events a second", rate["per_second"], "/s", beside=beside))
        found.append(
            Figure(f"{name}, ratio to bare verification", rate["ratio"], at_least=bar, beside=beside)
        )
    times, pack = told["milliseconds"], told["pack"]
    whole = f"whole proof file with cosignatures {times['receipt']} ms"
    inside = f"{pack['entries']:,} entries"
    return [
        *found,
        Figure("inclusion proof verified", times["inclusion"], "ms", at_most=1.0, beside=whole),
        Figure("evidence pack, 10 rounds, 16 silos", pack["megabytes"], "MB", at_most=5.0, beside=inside),
        Figure("its verification, process included", pack["verify_seconds"], "s", at_most=3.0, beside=inside),
    ]


FEDHOUSE = str(Path(sys.executable).with_name("fedhouse"))
BENCHMARKS = (
    Benchmark(
        "training",
        "Training inside Spark against plain PyTorch",
        (FEDHOUSE, "bench", "training", "--rows", "1000000", "--json"),
        training_figures,
    ),
    Benchmark(
        "ledger",
        "The ledger against bare signature verification",
        (sys.executable, str(ROOT / "bench" / "ledger.py"), "--events", "100000", "--json"),
        ledger_figures,
    ),
    Benchmark(
        "demo-4",
        "The default demo: four airlines",
        (FEDHOUSE, "demo", "--out", "{out}", "--json"),
        four_airlines_figures,
    ),
    Benchmark(
        "demo-16",
        "All sixteen airlines, ten rounds",
        (FEDHOUSE, "demo", "--silos", "16", "--rounds", "10", "--out", "{out}", "--json"),
        sixteen_airlines_figures,
    ),
)


def measure(benchmark: Benchmark) -> Outcome:
    """Run one benchmark in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="fedhouse-bench-") as out:
        command = [part.replace("{out}", out) for part in benchmark.command]
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, text=True, timeout=benchmark.limit_seconds, check=False
            )
        except subprocess.TimeoutExpired:
            return Outcome(benchmark, failure=f"took longer than {benchmark.limit_seconds} s")
    if done.returncode != 0:
        return Outcome(benchmark, failure=f"exit code {done.returncode}")
    try:
        return Outcome(benchmark, tuple(benchmark.figures(json.loads(done.stdout))))
    except (ValueError, KeyError, TypeError) as error:
        return Outcome(benchmark, failure=f"its output does not hold what is read from it ({error!r})")


def machine() -> str:
    """One paragraph: on what the figures were measured, and of which source."""
    text = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("pyspark", "torch", "pyarrow")
    )
    return (
        f"{model.group(1) if model else 'unknown processor'}, {len(os.sched_getaffinity(0))} cores, "
        f"{memory:.0f} GiB; Python {sys.version.split()[0]}, Java {java_version()}, {packages}; "
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; source {_commit()}."
    )


def _commit() -> str:
    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/RESULTS.md")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" with local changes" if changed else "")


def page(outcomes: Sequence[Outcome], where: str) -> str:
    """The whole of RESULTS.md."""
    missed = [outcome.benchmark.name for outcome in outcomes if not outcome.passed]
    verdict = f"Not all is well: {', '.join(missed)}." if missed else "Every bar is met."
    head = ["# Benchmarks", "", "Written by `make bench`; not edited by hand.", "", where, "", verdict, ""]
    return "\n".join([*head, *(outcome.section() for outcome in outcomes)])


def main(
    arguments: Sequence[str] | None = None,
    benchmarks: Sequence[Benchmark] = BENCHMARKS,
    results: Path = RESULTS,
) -> int:
    """Run what is asked for; the exit code is 1 if a bar is missed or a benchmark fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=[benchmark.name for benchmark in benchmarks])
    only = parser.parse_args(arguments).only
    where = machine()
    outcomes = []
    for benchmark in benchmarks:
        if only in (None, benchmark.name):
            sys.stderr.write(f"== {benchmark.title}\n")
            outcomes.append(measure(benchmark))
    text = page(outcomes, where)
    if only is None:
        write_atomic(results, text.encode())
    sys.stdout.write(text)
    return 0 if all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
