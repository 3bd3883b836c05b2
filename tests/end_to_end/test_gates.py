"""Gate 1 on real warehouses: after a refusal no process opens a file of the silo's table."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fedhouse.encoding import sha256
from fedhouse.errors import PolicyRefusedError
from fedhouse.local_consortium import LocalConsortium, SimulatedKeys

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.slow]

_IN_OPEN, _IN_NONBLOCK = 0x20, 0o4000


@contextmanager
def _watching(folder: Path) -> Iterator[list[bytes]]:
    """What the kernel tells of files opened below `folder` (one level), by whatever process: inotify(7)."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(_IN_NONBLOCK)
    assert descriptor >= 0
    assert libc.inotify_add_watch(descriptor, os.fsencode(folder), _IN_OPEN) >= 0
    seen: list[bytes] = []
    try:
        yield seen
        try:
            while data := os.read(descriptor, 2**16):
                seen.append(data)
        except BlockingIOError:
            return
    finally:
        os.close(descriptor)


@pytest.fixture
def consortium(workplace: Any) -> Iterator[LocalConsortium]:
    place = workplace.folder / "consortium"
    with LocalConsortium.open(place, tuple(workplace.tables), signers=SimulatedKeys(place)) as opened:
        opened.propose(workplace.job())
        yield opened


def _simulate(workplace: Any, spark: SparkSession, consortium: LocalConsortium, **options: Any) -> Any:
    from fedhouse.simulation import simulate

    return simulate(
        workplace.job(),
        workplace.tables,
        out=workplace.folder / "run",
        spark=spark,
        consortium=consortium,
        **options,
    )


def _withdraw(consortium: LocalConsortium, silo: str) -> None:
    (permission,) = consortium.ledger.state.permissions.of_member[silo]
    officer = consortium.journal(f"{silo}/officer-1")
    officer.require("withdrawn", "permission.withdrawn", {"permission": permission})


def test_without_permission_no_file_is_opened(
    spark: SparkSession, workplace: Any, consortium: LocalConsortium
) -> None:
    _withdraw(consortium, "beta")
    with _watching(workplace.tables["alpha"]) as alpha, _watching(workplace.tables["beta"]) as beta:
        run = _simulate(workplace, spark, consortium)
    assert alpha, "the watch sees what is read"
    assert not beta
    assert "not-permitted" in run.excluded["beta"]
    assert run.history.rounds[-1].contributors == ("alpha", "gamma")
    state = consortium.ledger.state
    assert f"{workplace.job().digest}/beta" not in state.data.quality


def test_while_stopped_no_file_is_opened_and_nothing_is_half_done(
    spark: SparkSession, workplace: Any, consortium: LocalConsortium
) -> None:
    stop = consortium.journal("gamma/officer-1").require(
        "stop", "stop.declared", {"scope": "consortium", "subject": ""}
    )
    with _watching(workplace.tables["alpha"]) as alpha, pytest.raises(PolicyRefusedError, match="stopped"):
        _simulate(workplace, spark, consortium)
    assert not alpha
    assert not list((workplace.folder / "run").rglob("*.sealed"))
    for silo in ("alpha", "beta"):
        consortium.journal(f"{silo}/officer-1").require("lift", "stop.lifted", {"stop": stop.digest})
    run = _simulate(workplace, spark, consortium, resume=True)
    assert len(run.history.rounds) == 2


def test_a_job_that_nobody_approved_opens_no_file(
    spark: SparkSession, workplace: Any, consortium: LocalConsortium
) -> None:
    from fedhouse.federation.governed import LedgerSilo

    other = workplace.job(seed=7)
    with pytest.raises(PolicyRefusedError, match="unknown-job"):
        consortium.silo_oversight(other, "alpha").require_permitted()
    consortium.journal("alpha/owner-1").require("proposed-other", "job.proposed", _body(other, consortium))
    watched: LedgerSilo = consortium.silo_oversight(other, "alpha")
    with (
        _watching(workplace.tables["alpha"]) as alpha,
        pytest.raises(PolicyRefusedError, match="not-approved"),
    ):
        watched.require_permitted()
    assert not alpha


def _body(job: Any, consortium: LocalConsortium) -> dict[str, Any]:
    from fedhouse.proposals import proposal

    return proposal(job, consortium.silos)


def test_the_scheduled_command_obeys_the_ledger_of_its_silo(spark: SparkSession, workplace: Any) -> None:
    from fedhouse.cli.train import train
    from fedhouse.local_consortium import KeyFolder

    place = workplace.folder / "governed"
    keys = KeyFolder(place / "keys")
    silos = tuple(workplace.tables)
    files = {"key": "governed/keys/alpha/agent.key", "password_file": "governed/keys/password"}
    governance = {"ledger": "governed", **files}
    path = workplace.silo_file("alpha", governance=governance)

    def run() -> None:
        train(
            job=workplace.job_file,
            silo=path,
            run=workplace.folder / "scheduled",
            round_number=0,
            dry_run=False,
            json_output=True,
        )

    job = workplace.job()
    with LocalConsortium.open(place, silos, signers=keys) as consortium:
        with _watching(workplace.tables["alpha"]) as seen, pytest.raises(PolicyRefusedError) as caught:
            run()
        assert (caught.value.exit_code, seen) == (5, [])
        consortium.propose(job)
        operator = consortium.journal(consortium.operator)
        step = {"job": job.digest, "round": 0, "purpose": "statistics"}
        body = step | {"base": job.bundle.digest, "cohort": sorted(silos)}
        operator.require("opened", "round.opened", body)
        run()
        committed = consortium.ledger.state.rounds.of(job.digest).commitments
        (sealed,) = (workplace.folder / "scheduled").rglob("statistics-*.sealed")
        assert dict(committed) == {"alpha": sha256(sealed.read_bytes())}
        size = consortium.ledger.size
        run()
        assert consortium.ledger.size == size, "running it again changes nothing"
