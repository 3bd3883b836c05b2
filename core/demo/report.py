"""What the demo leaves behind: `report.json` for machines, `report.html` for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from fedhouse.demo.oracle import Comparison
from fedhouse.encoding import canonical_json, write_atomic
from fedhouse.history import Run
from fedhouse.jobs import Job

_PHASES = {
    "admission": "Pin and quality gate",
    "statistics": "Federated statistics",
    "training": "Training",
    "aggregation": "Aggregation",
    "evaluation": "Evaluation",
}


@dataclass(frozen=True)
class LedgerRecord:
    """What the ledger holds in the end. `processes` counts this one and the witnesses."""

    kind: str
    entries: int
    head: str
    verified: bool
    processes: int


def report_values(
    job: Job, run: Run, comparison: Comparison, record: LedgerRecord, *, wall_seconds: float
) -> dict[str, Any]:
    """The content of `report.json`. What does not exist yet is null, never invented."""
    metrics = run.history.rounds[run.exported_round - 1].metrics
    uploaded = list(run.bytes_uploaded.values())
    return {
        "silos": len(comparison.single),
        "silos_excluded": dict(run.excluded),
        "rounds": len(run.history.rounds),
        "rows": run.rows,
        "processes": record.processes,
        "aggregation": "reference (insecure)",
        "model_digest": run.model_digest,
        "auc": {
            "federated": metrics["auc"],
            "pooled": comparison.pooled.final,
            "best_single_silo": comparison.best_single.final,
        },
        "auc_stopped_early": {
            "pooled": comparison.pooled.stopped,
            "best_single_silo": comparison.best_single.stopped,
        },
        "auc_single_silo": {silo: asdict(judged) for silo, judged in comparison.single.items()},
        "seconds": {
            "total": wall_seconds,
            # A run that had ended before it was resumed trained nothing here.
            "training": run.seconds.get("training"),
            "encryption": None,
            "aggregation": run.seconds.get("aggregation"),
            "decryption": None,
        },
        "bytes_per_parameter": max(uploaded) / job.bundle.layout.size if uploaded else None,
        "ledger": {
            "kind": record.kind,
            "entries": record.entries,
            "head": record.head,
            "verified": record.verified,
        },
        "payouts": None,
        "bounty": None,
        "history": run.history.to_json(),
    }


def write_report(
    folder: Path,
    job: Job,
    run: Run,
    comparison: Comparison,
    record: LedgerRecord,
    *,
    wall_seconds: float,
    names: Mapping[str, str],
) -> dict[str, Any]:
    """Write both reports into `folder`; returns the values of `report.json`."""
    values = report_values(job, run, comparison, record, wall_seconds=wall_seconds)
    write_atomic(folder / "report.html", _page(job, run, comparison, values, names).encode())
    write_atomic(folder / "report.json", canonical_json(values) + b"\n")
    return values


def _page(
    job: Job, run: Run, comparison: Comparison, values: Mapping[str, Any], names: Mapping[str, str]
) -> str:
    from jinja2 import Environment
    from markupsafe import Markup

    from fedhouse import plots

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("fedhouse.demo").joinpath("report.html.j2").read_text())
    federated = values["auc"]["federated"]
    phases = {label: run.seconds[key] for key, label in _PHASES.items() if key in run.seconds}
    phases["Comparison with pooled and own models"] = run.seconds.get("comparison", 0.0)
    pictures = {
        "rounds": plots.metrics_by_round(run.history),
        "silos": plots.silo_bars(
            {silo: (judged.final, judged.stopped) for silo, judged in comparison.single.items()},
            (comparison.pooled.final, comparison.pooled.stopped),
            federated,
        ),
        "time": plots.time_bars(phases),
    }
    return template.render(
        job=job,
        run=run,
        values=values,
        names=names,
        single=sorted(comparison.single.items(), key=lambda item: -item[1].stopped),
        pictures={name: Markup(plots.svg(figure)) for name, figure in pictures.items()},  # noqa: S704
    )
