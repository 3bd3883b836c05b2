"""`fedhouse demo`: airlines' own warehouses, one job across them, and a report."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedhouse.errors import ConfigurationError

if TYPE_CHECKING:
    from fedhouse.demo.report import LedgerRecord
    from fedhouse.demo.witnesses import Witnesses
    from fedhouse.federation.coordinator import ProgressEvent
    from fedhouse.history import Run
    from fedhouse.jobs import Job
    from fedhouse.local_consortium import LocalConsortium

# Witnesses look once a second, and start beside Spark on two cores.
_SETTLE_SECONDS = 90
_JOB_FILES = ("job.yaml", "late.py", "flights.dataset.yaml")
_PHASES = {
    "admission": "pin and quality gate",
    "statistics": "federated statistics",
    "update": "training",
    "evaluation": "evaluation",
}


class _Screen:
    """Progress bars on a terminal, nothing elsewhere."""

    def __init__(self, stack: ExitStack) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self.console = Console(stderr=True)
        self._bars: dict[tuple[str, int], Any] = {}
        self._progress: Progress | None = None
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description:<34}"),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TextColumn("silos"),
                TimeElapsedColumn(),
                console=self.console,
            )
            stack.enter_context(self._progress)

    def say(self, text: str) -> None:
        """One line, on a terminal only."""
        if self._progress is not None:
            self._progress.console.print(text, style="dim")

    def __call__(self, event: ProgressEvent) -> None:
        """Show that one more silo has done its part."""
        if self._progress is None:
            return
        key = (event.phase, event.round)
        if key not in self._bars:
            prefix = f"round {event.round}: " if event.round else ""
            text = prefix + _PHASES.get(event.phase, event.phase)
            self._bars[key] = self._progress.add_task(text, total=event.total)
        self._progress.update(self._bars[key], completed=event.done, total=event.total)


def demo(
    *,
    silos: int,
    rounds: int | None,
    in_process: bool,
    resume: bool,
    out: Path,
    seed: int | None,
    json_output: bool,
) -> None:
    """Run the demo and leave its results in `out`.

    `in_process` is accepted and changes nothing yet: all parties run in this process as it is.
    """
    from fedhouse.demo.flights import CARRIERS, build_warehouses
    from fedhouse.demo.witnesses import Witnesses
    from fedhouse.jobs import load_job
    from fedhouse.local_consortium import KeyFolder, LocalConsortium
    from fedhouse.simulation import simulate
    from fedhouse.spark_jobs.session import SparkSettings, open_session

    began = time.monotonic()
    out = out.resolve()
    _prepare_folder(out, resume=resume)
    carriers = CARRIERS[:silos]
    overrides = {key: value for key, value in (("rounds", rounds), ("seed", seed)) if value is not None}
    with ExitStack() as stack:
        screen = _Screen(stack)
        screen.say("starting Spark, and building the airlines' warehouses (once)")
        spark = open_session(SparkSettings(master="local[2]"), app_name="fedhouse demo")
        warehouses = build_warehouses(spark, out / "airlines", carriers)
        job = load_job(out / "job" / "job.yaml", overrides)
        tables = {carrier: warehouses[carrier].table for carrier in carriers}
        screen.say(
            "founding the consortium: keys, ledger, a witness in a process of its own for each airline"
        )
        keys = KeyFolder(out / "consortium" / "keys")
        place = out / "consortium"
        consortium = stack.enter_context(LocalConsortium.open(place, carriers, signers=keys))
        witnesses = stack.enter_context(Witnesses(consortium, keys))
        run = simulate(
            job,
            tables,
            out=out / "run",
            spark=spark,
            resume=resume,
            progress=screen,
            consortium=consortium,
        )
        spark.stop()
        screen.say("waiting until the ledger is final, and packing the evidence")
        record = _evidence(consortium, witnesses, job, out)
        screen.say("comparing with a model of all rows pooled, and with each airline's own")
        values = _report(job, run, tables, out, began, record)
    _tell(values, run, out, json_output)


def _prepare_folder(out: Path, *, resume: bool) -> None:
    """Job files in `out/job`, no older run beside them unless it is to be resumed."""
    here = Path(__file__).resolve().parent.parent / "demo"
    (out / "job").mkdir(parents=True, exist_ok=True)
    for name in _JOB_FILES:
        if not resume or not (out / "job" / name).exists():
            shutil.copyfile(here / name, out / "job" / name)
    if resume:
        if not (out / "run" / "job" / "job.json").exists():
            raise ConfigurationError(f"{out} holds no run to resume.", mend="Start one without --resume.")
        return
    for name in ("run", "consortium"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("report.json", "report.html", "evidence.zip", "trust.keys"):
        (out / name).unlink(missing_ok=True)


def _evidence(consortium: LocalConsortium, witnesses: Witnesses, job: Job, out: Path) -> LedgerRecord:
    """Wait for finality; leave `evidence.zip` and `trust.keys`, verified; say what is on the ledger."""
    from fedhouse.demo.report import LedgerRecord
    from fedhouse.encoding import write_atomic
    from fedhouse.governance.evidence import build_pack, verify_pack

    witnesses.settle(_SETTLE_SECONDS)
    ledger, trust = consortium.ledger, consortium.trust
    write_atomic(out / "trust.keys", trust.render())
    folder = consortium.folder / "jobs" / job.digest / "bundle"
    build_pack(ledger, job=job.digest, bundle_folder=folder, out=out / "evidence.zip", trust=trust)
    told = verify_pack(out / "evidence.zip", trust)
    return LedgerRecord(
        kind=ledger.kind,
        entries=told.entries,
        head=told.head.root.hex(),
        verified=told.origin_checked,
        processes=1 + len(witnesses),
    )


def _report(
    job: Job, run: Run, tables: Mapping[str, Path], out: Path, began: float, record: LedgerRecord
) -> dict[str, Any]:
    from dataclasses import replace

    from fedhouse.demo.flights import AIRLINES
    from fedhouse.demo.oracle import pooled_and_single
    from fedhouse.demo.report import write_report

    started = time.monotonic()
    comparison = pooled_and_single(job, run.scoring.encoder, tables)
    run = replace(run, seconds={**run.seconds, "comparison": time.monotonic() - started})
    return write_report(
        out, job, run, comparison, record, wall_seconds=time.monotonic() - began, names=AIRLINES
    )


def _tell(values: dict[str, Any], run: Run, out: Path, json_output: bool) -> None:
    if json_output:
        sys.stdout.write(json.dumps(values) + "\n")
        return
    auc, stopped = values["auc"], values["auc_stopped_early"]
    lines = [
        f"{values['silos']} airlines, {values['rounds']} rounds, {values['rows']:,} training rows, "
        f"{values['seconds']['total']:.0f} s. {run.stopped}",
        "",
        f"  federated model         AUC {auc['federated']:.3f}",
        f"  best airline's own      AUC {auc['best_single_silo']:.3f}   stopped early"
        f" {stopped['best_single_silo']:.3f}",
        f"  all rows pooled         AUC {auc['pooled']:.3f}   stopped early {stopped['pooled']:.3f}",
        "",
        *(f"  took no part: {silo}. {reason}" for silo, reason in run.excluded.items()),
        f"{values['ledger']['entries']:,} events on the ledger, replayed and cosigned by "
        f"{values['processes'] - 1} witnesses; to check them yourself:",
        f"  fedhouse audit verify {out / 'evidence.zip'} --trust {out / 'trust.keys'}",
        "Aggregation is the insecure reference: updates are added up in the clear.",
        f"Look at {out / 'report.html'}; the model is in {run.folder / 'model'}, its job in {out / 'job'}.",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
