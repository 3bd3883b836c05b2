"""`fedhouse train`: one silo's part of one round, as a scheduled Spark job calls it.

Round 0 is the admission and the statistics; round R trains from the model after round R - 1, which the
coordinator has left in the run's folder. The contribution is stored there and found again, so running a
round twice changes nothing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fedhouse.errors import JobError, QuorumError
from fedhouse.jobs import Job, open_job
from fedhouse.silo import SiloConfig


def train(*, job: Path, silo: Path, run: Path, round_number: int, dry_run: bool, json_output: bool) -> None:
    """Train, or with `dry_run` only check; prints what was done.

    Raises
    ------
    FedhouseError
        With the exit code of what stopped it; `QuorumError` (retry) if the round is not open yet.
    """
    from fedhouse.logs import log_to_stderr

    log_to_stderr("info" if not sys.stderr.isatty() else "warning")
    config = SiloConfig.load(silo)
    folder = run.resolve()
    stored = open_job(job, folder / "job")
    if round_number > stored.spec.rounds:
        raise JobError(
            f"Job {stored.name} has {stored.spec.rounds} rounds, and round {round_number} was asked for."
        )
    connector = config.connector(stored.spec.data)
    if dry_run:
        _tell(
            {"silo": config.silo, "round": round_number, "job": stored.digest, "dry_run": True}, json_output
        )
        return
    told = _run(stored, config, connector, folder, round_number)
    _tell(told, json_output)


def _run(job: Job, config: SiloConfig, connector: Any, folder: Path, number: int) -> dict[str, Any]:
    from fedhouse.encoding import sha256
    from fedhouse.federation.agent import SiloAgent
    from fedhouse.federation.plan import JobPlan
    from fedhouse.federation.store import CoordinatorStore
    from fedhouse.secure_agg.reference import ReferenceAggregator
    from fedhouse.spark_jobs.runner import SparkSiloRunner
    from fedhouse.spark_jobs.session import open_session

    store = CoordinatorStore(folder / "coordinator", job.bundle.layout)
    if number > 0 and not store.has_round(number - 1):
        raise QuorumError(
            f"Round {number} is not open: there is no model of round {number - 1} in {folder}.",
            mend="Run it again when the coordinator has closed that round.",
        )
    own = folder / "silos" / config.silo
    spark = open_session(config.spark, app_name=f"fedhouse {job.name}", static_conf=connector.spark_conf())
    runner = SparkSiloRunner(
        silo=config.silo,
        job=job.digest,
        spec=job.spec,
        dataset=job.dataset,
        bundle=job.bundle,
        spark=spark,
        connector=connector,
        source=config.source(job.spec.data),
        prepared=config.prepared,
    )
    plan = JobPlan(job.digest, job.spec, job.bundle)
    with config.oversight(job) as oversight:
        agent = SiloAgent(plan, config.silo, runner, ReferenceAggregator(), own, oversight)
        agent.admit()
        if number == 0:
            sealed, context = agent.statistics(), plan.statistics_context()
        else:
            sealed = agent.update(number, store.model(number - 1), store.encoder())
            context = plan.update_context(number)
    return {
        "silo": config.silo,
        "round": number,
        "job": job.digest,
        "purpose": context.purpose,
        "bytes": len(sealed),
        "digest": sha256(sealed),
    } | dict(agent.facts(context))


def _tell(told: dict[str, Any], json_output: bool) -> None:
    if json_output:
        sys.stdout.write(json.dumps(told) + "\n")
        return
    for name, value in told.items():
        sys.stdout.write(f"{name}: {value}\n")
