"""`fedhouse.simulate`: a whole job in one process, by the code that silos and coordinator run.

All parties are in this process, and so are all rows that it is given: it is for development, tests
and benchmarks. Nothing in it protects one party from another.

The run's folder::

    RUN/job/            the job as files
    RUN/consortium/     ledger, journals and keys (see `local_consortium`)
    RUN/coordinator/    round state, encoder, models
    RUN/silos/AA/       that silo's admission and contributions
    RUN/prepared/       prepared rows, deleted at the job's end
    RUN/model/          the exported model
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedhouse.encoding import sha256
from fedhouse.errors import ConfigurationError, FedhouseError
from fedhouse.history import History, RoundRecord, Run
from fedhouse.jobs import Job
from fedhouse.local_consortium import LocalConsortium, SimulatedKeys
from fedhouse.types import require_name

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from fedhouse.connectors.connector import Connector, SourceRef
    from fedhouse.federation.agent import SiloAgent
    from fedhouse.federation.coordinator import Coordinator, Outcome, Progress
    from fedhouse.secure_agg.aggregator import Aggregator

log = logging.getLogger(__name__)

# Silos that run at a time: one a core of the machine that this is made for.
_PARALLEL = 2


def simulate(
    job: Job,
    silos: Mapping[str, Any],
    *,
    out: Path | str,
    spark: SparkSession | None = None,
    resume: bool = False,
    prepare: bool = True,
    progress: Progress | None = None,
    keep_prepared: bool = False,
    consortium: LocalConsortium | None = None,
) -> Run:
    """Run `job` across `silos`: each a Parquet folder's path, a pandas frame or a pyarrow table.

    With `resume`, a run that was stopped (killed, too) goes on where it was and ends with the same
    bits; without, `out` must hold no run. `prepare` allows prepared copies under `out`. Every event is
    recorded on the ledger of `consortium`, or of one that is made under `out` and approves everything.

    Raises
    ------
    ConfigurationError
        If `out` holds another run, or a silo's name or rows cannot be used.
    PolicyRefusedError
        If a stop is in force, or a permission was withdrawn.
    QuorumError
        If too few silos are left; or the error of all silos, where all failed alike.
    """
    folder = Path(out).resolve()
    _open_folder(folder, job, resume)
    with ExitStack() as stack:
        if consortium is None:
            place = folder / "consortium"
            keys = SimulatedKeys(place)
            consortium = stack.enter_context(LocalConsortium.open(place, tuple(silos), signers=keys))
        return _run(job, silos, folder, consortium, spark, prepare, progress, keep_prepared)


def _run(
    job: Job,
    silos: Mapping[str, Any],
    folder: Path,
    consortium: LocalConsortium,
    spark: SparkSession | None,
    prepare: bool,
    progress: Progress | None,
    keep_prepared: bool,
) -> Run:
    from fedhouse.federation.coordinator import Coordinator
    from fedhouse.secure_agg.reference import ReferenceAggregator
    from fedhouse.spark_jobs.session import SparkSettings, open_session

    began = time.monotonic()
    consortium.propose(job)
    session = spark or open_session(SparkSettings(master=f"local[{_PARALLEL}]"))
    aggregator = ReferenceAggregator()
    agents = {
        silo: _agent(job, silo, given, folder, session, aggregator, prepare, consortium)
        for silo, given in silos.items()
    }
    coordinator = Coordinator.open(
        job=job.digest,
        spec=job.spec,
        bundle=job.bundle,
        agents=agents,
        aggregator=aggregator,
        folder=folder / "coordinator",
        oversight=consortium.round_oversight(job),
        parallel=_PARALLEL,
        progress=progress,
    )
    try:
        outcome = coordinator.run()
    except FedhouseError:
        _close(agents)
        raise
    if not keep_prepared:
        _close(agents)
    return _finish(job, coordinator, outcome, folder, time.monotonic() - began)


def _open_folder(folder: Path, job: Job, resume: bool) -> None:
    """Make a run's folder, or check that the one to resume is this job's."""
    if (folder / "job" / "job.json").exists():
        if not resume:
            raise ConfigurationError(
                f"{folder} holds a run already.", mend="Resume it, or choose another folder."
            )
        if Job.load(folder / "job").digest != job.digest:
            raise ConfigurationError(f"{folder} holds a run of another job.", mend="Choose another folder.")
        return
    # A kill while the job was being written leaves files without job.json: nothing has run yet.
    shutil.rmtree(folder / "job", ignore_errors=True)
    job.save(folder / "job")


def _agent(
    job: Job,
    silo: str,
    given: Any,
    folder: Path,
    spark: SparkSession,
    aggregator: Aggregator,
    prepare: bool,
    consortium: LocalConsortium,
) -> SiloAgent:
    from fedhouse.federation.agent import SiloAgent
    from fedhouse.federation.plan import JobPlan
    from fedhouse.spark_jobs.prepared import PreparedPolicy
    from fedhouse.spark_jobs.runner import SparkSiloRunner

    require_name(silo, "silo name")
    own = folder / "silos" / silo
    connector, source = _source(silo, given, own)
    runner = SparkSiloRunner(
        silo=silo,
        job=job.digest,
        spec=job.spec,
        dataset=job.dataset,
        bundle=job.bundle,
        spark=spark,
        connector=connector,
        source=source,
        prepared=PreparedPolicy(allowed=prepare, uri=f"file://{folder}/prepared" if prepare else None),
    )
    plan = JobPlan(job.digest, job.spec, job.bundle)
    return SiloAgent(plan, silo, runner, aggregator, own, consortium.silo_oversight(job, silo))


def _source(silo: str, given: Any, own: Path) -> tuple[Connector, SourceRef]:
    """A connector on a Parquet folder; rows given as a frame are written to one first."""
    from fedhouse.connectors.connector import SourceRef
    from fedhouse.connectors.profiles import Profile
    from fedhouse.connectors.registry import open_connector

    path = Path(given).resolve() if isinstance(given, (str, Path)) else _write_rows(silo, given, own)
    profile = Profile(name="local", type="parquet", target="local", options={"root": str(path.parent)})
    return open_connector(profile), SourceRef(profile="local", table=path.name)


def _write_rows(silo: str, given: Any, own: Path) -> Path:
    import pyarrow.parquet as pq

    from fedhouse.local_rows import as_table

    try:
        table = as_table(given)
    except (TypeError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"The rows of silo {silo} are a {type(given).__name__}.",
            mend="Give a path, a pandas frame or a pyarrow table.",
        ) from error
    path = own / "warehouse" / "rows"
    if not path.exists():
        building = path.with_name("rows.building")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        pq.write_table(table, building / "part-0.parquet")
        building.rename(path)
    return path


def _close(agents: Mapping[str, SiloAgent]) -> None:
    for agent in agents.values():
        try:
            agent.close()
        except FedhouseError as error:
            log.warning("%s", error, extra={"silo": agent.silo})


def _finish(job: Job, coordinator: Coordinator, outcome: Outcome, folder: Path, seconds: float) -> Run:
    from fedhouse.scoring import ScoringModel
    from fedhouse.snapshot import snapshot_bytes
    from fedhouse.spark_jobs.task import model_seed

    weights = coordinator.store.model(outcome.exported_round)
    model = ScoringModel(coordinator.store.encoder(), job.bundle, weights, model_seed(job.spec))
    model.save(folder / "model")
    return Run(
        folder=folder,
        history=History(
            tuple(
                RoundRecord(item.number, item.updates.contributed, dict(item.metrics or {}))
                for item in outcome.state.rounds
            ),
            job.spec.metric,
        ),
        scoring=model,
        model_digest=sha256(snapshot_bytes(job.bundle.layout, weights)),
        exported_round=outcome.exported_round,
        stopped=outcome.state.end.detail if outcome.state.end else "",
        excluded=dict(outcome.state.excluded),
        rows=outcome.rows,
        bytes_uploaded=dict(outcome.bytes_uploaded),
        seconds={**outcome.seconds, "total": seconds},
    )
