"""A job on a ledger: every event once whatever dies, gate 1 in the silo, gate 2 in the rules."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedhouse import encoding
from fedhouse.bundle import Bundle, Entries
from fedhouse.chain_adapters.merkle_log.log import MerkleLog
from fedhouse.encoder import Encoder
from fedhouse.encoding import derive_seed
from fedhouse.errors import FedhouseError, IntegrityError, PolicyRefusedError, QuorumError
from fedhouse.federation import agent as agent_module
from fedhouse.federation import journal as journal_module
from fedhouse.federation import store as store_module
from fedhouse.federation.agent import SiloAgent
from fedhouse.federation.coordinator import Coordinator
from fedhouse.federation.governed import LedgerRounds, LedgerSilo, decimal_text
from fedhouse.federation.journal import Journal
from fedhouse.federation.plan import JobPlan
from fedhouse.governance.envelope import parse_envelope
from fedhouse.governance.sandbox import DATASET, SandboxClock, SandboxConsortium, named
from fedhouse.jobspec import JobSpec
from fedhouse.secure_agg.reference import ReferenceAggregator
from fedhouse.snapshot import snapshot_bytes
from fedhouse.spark_jobs.contract import (
    SCORE_BINS,
    Admission,
    LocalEvaluation,
    LocalStatistics,
    LocalUpdate,
    NumberStatistics,
)
from fedhouse.types import ParameterLayout, TensorSpec

MEMBERS = ("AA", "B6", "DL")
LAYOUT = ParameterLayout((TensorSpec("w", (5,), "float32"),))
JOB = named("job")
TERMS: dict[str, Any] = {
    "name": "job",
    "dataset": DATASET,
    "purpose": "delay-forecast",
    "columns": ("carrier", "delay", "distance", "late"),
    "rounds": 2,
    "min_cohort": 2,
    "evaluated": True,
}
CHECK = {"expectation": "not-null", "column": "late", "passed": True, "found": None}
GATE = {"checks": [CHECK | {"counts": {"element_count": 90, "null_count": 0}}]}


def _spec() -> JobSpec:
    return JobSpec.model_validate(
        {
            "name": "job",
            "data": DATASET,
            "columns": ["x"],
            "label": "y",
            "model": "job:Net",
            "train": "job:train",
            "evaluate": "job:evaluate",
            "rounds": 2,
            "holdout": {"column": "day", "modulo": 5},
        }
    )


def _bundle() -> Bundle:
    return Bundle(
        sources={"job.py": ""},
        entries=Entries("job:Net", "job:train", "job:evaluate"),
        weights=snapshot_bytes(LAYOUT, np.zeros(5, np.float32)),
        layout=LAYOUT,
        model_args={},
        train_args={},
        bounds={},
    )


class PretendRunner:
    """A `SiloRunner` whose figures follow from its name and the round; it counts how often rows were read."""

    def __init__(self, silo: str, before: Callable[[str, int], None] = lambda step, number: None) -> None:
        self.silo, self.before = silo, before
        self.reads = self.closings = 0
        self.gate_failure = ""

    def _read(self, step: str, number: int = 0) -> np.random.Generator:
        self.reads += 1
        self.before(step, number)
        return np.random.default_rng(derive_seed(step, self.silo, number))

    def admit(self, earlier: Admission | None = None) -> Admission:
        self._read("admit")
        check = CHECK | {"counts": {"element_count": 90, "null_count": 9 * bool(self.gate_failure)}}
        gate = {"checks": [check | {"passed": not self.gate_failure}]}
        return earlier or Admission({}, named(self.silo), gate, self.gate_failure)

    def statistics(self) -> LocalStatistics:
        rows = int(self._read("statistics").integers(10, 100))
        return LocalStatistics(rows, 5, {"x": NumberStatistics(rows, rows << 16, rows << 32)}, {})

    def train(self, round_number: int, weights: np.ndarray, encoder: Encoder) -> LocalUpdate:
        generator = self._read("train", round_number)
        delta = generator.normal(size=5) * 0.1
        return LocalUpdate(delta, int(generator.integers(10, 100)), {0: 1}, 0.1, "AVX2")

    def evaluate(self, round_number: int, weights: np.ndarray, encoder: Encoder) -> LocalEvaluation:
        self._read("evaluate", round_number)
        counts = np.zeros((2, SCORE_BINS), np.int64)
        counts[0, 600] = counts[1, 500] = 1
        return LocalEvaluation(2, {"loss": 1 / round_number}, counts[0], counts[1], 0.1)

    def close(self) -> None:
        """Nothing was kept; it is counted."""
        self.closings += 1


class World:
    """A consortium of three with an approved job, on a Merkle log in `folder`; opened anew by `reopen`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = SandboxClock()
        self.parties = SandboxConsortium(MEMBERS, clock=self.clock)
        self.bundle = _bundle()
        place = folder / "ledger"
        if not place.exists():
            MerkleLog.create(place, self.parties.founding(), clock=self.clock).close()
            self.ledger = MerkleLog.open(place, clock=self.clock)
            self.ledger.append(self.parties.bootstrap())
            self.ledger.append(self._job())
        else:
            self.ledger = MerkleLog.open(place, clock=self.clock)
        self.runners: dict[str, Any] = {silo: PretendRunner(silo) for silo in MEMBERS}
        self.silos = {silo: self.silo(silo) for silo in MEMBERS}

    def _job(self) -> list[bytes]:
        sign = self.parties.sign
        body = {
            "job": JOB,
            "name": "job",
            "bundle": self.bundle.digest,
            "dataset": DATASET,
            "purpose": "delay-forecast",
            "columns": ["carrier", "delay", "distance", "late"],
            "silos": sorted(MEMBERS),
            "rounds": 2,
            "min_cohort": 2,
            "evaluated": True,
            "metric": "auc",
            "bounds": {"seconds": 600, "parameters": 10**6, "scratch_mib": 64},
        }
        approval = {"job": JOB, "bundle": self.bundle.digest}
        return [
            sign("AA/owner", "job.proposed", body),
            *(sign(f"{silo}/steward", "job.approved", approval) for silo in MEMBERS),
        ]

    def journal(self, actor: str) -> Journal:
        return Journal(
            self.folder / "journals" / actor,
            actor,
            self.parties.signer(actor),
            self.ledger,
            self.parties.id,
            self.clock,
        )

    def silo(self, silo: str) -> LedgerSilo:
        return LedgerSilo(
            journal=self.journal(f"{silo}/agent"),
            job=JOB,
            terms=TERMS | {"bundle": self.bundle.digest},
            member=silo,
            suite=named("suite"),
            clock=self.clock,
            notices=self.folder / "notices" / silo,
        )

    def person(self, actor: str, event: str, body: Mapping[str, Any]) -> str:
        """A person says something; its digest. By the journal, which knows the sequence after a restart."""
        answer = self.journal(actor).require(f"said-{self.ledger.size}", event, body)
        return answer.digest

    def withdraw(self, silo: str) -> None:
        (permission,) = self.ledger.state.permissions.of_member[silo]
        self.person(f"{silo}/steward", "permission.withdrawn", {"permission": permission})

    def coordinator(self) -> Coordinator:
        aggregator = ReferenceAggregator()
        plan = JobPlan(JOB, _spec(), self.bundle)
        agents = {
            silo: SiloAgent(
                plan, silo, self.runners[silo], aggregator, self.folder / "silos" / silo, self.silos[silo]
            )
            for silo in MEMBERS
        }
        return Coordinator.open(
            job=JOB,
            spec=_spec(),
            bundle=self.bundle,
            agents=agents,
            aggregator=aggregator,
            folder=self.folder / "coordinator",
            oversight=LedgerRounds(self.journal(self.parties.operator), JOB, self.clock),
        )

    def events(self) -> list[tuple[str, str, str]]:
        """Signer, type and verdict of every entry."""
        entries = self.ledger.read(0, self.ledger.size)
        told = [(parse_envelope(entry.envelope).statement, entry.outcome.verdict) for entry in entries]
        return [(statement.signer, statement.event, verdict) for statement, verdict in told]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.ledger.close()


# --- the journal ------------------------------------------------------------------------------------


def test_recording_twice_signs_once(world: World) -> None:
    body = {"scope": "consortium", "subject": ""}
    first = world.journal("DL/officer").record("stop-1", "stop.declared", body)
    again = world.journal("DL/officer").record("stop-1", "stop.declared", body)
    assert first.accepted
    assert (again.index, again.digest) == (first.index, first.digest)
    assert [event for _, event, _ in world.events()].count("stop.declared") == 1


def test_what_was_signed_before_a_kill_is_delivered_first_and_unchanged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = world.journal("DL/officer")
    with monkeypatch.context() as patch:
        patch.setattr(journal, "_deliver", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            journal.record("stop-1", "stop.declared", {"scope": "member", "subject": "AA"})
    (signed,) = (world.folder / "journals" / "DL" / "officer").glob("*.envelope")
    world.journal("DL/officer").require("stop-2", "stop.declared", {"scope": "member", "subject": "B6"})
    recorded = [entry.envelope for entry in world.ledger.read(0, world.ledger.size)]
    assert recorded.index(signed.read_bytes()) == len(recorded) - 2
    assert [verdict for _, event, verdict in world.events() if event == "stop.declared"] == ["accepted"] * 2


def test_a_refused_event_may_be_tried_again_with_the_next_number(world: World) -> None:
    stop = world.person("DL/officer", "stop.declared", {"scope": "consortium", "subject": ""})
    step = {"job": JOB, "round": 0, "purpose": "statistics"}
    body = step | {"base": world.bundle.digest, "cohort": sorted(MEMBERS)}
    journal = world.journal(world.parties.operator)
    with pytest.raises(PolicyRefusedError, match=r"refused round.opened by AA/operator: stopped") as caught:
        journal.require("opened", "round.opened", body)
    assert caught.value.exit_code == 5
    for silo in ("AA", "B6"):
        world.person(f"{silo}/officer", "stop.lifted", {"stop": stop})
    assert journal.require("opened", "round.opened", body).accepted
    assert [verdict for _, event, verdict in world.events() if event == "round.opened"] == [
        "stopped",
        "accepted",
    ]


def test_saying_something_else_under_the_same_name_is_refused(world: World) -> None:
    journal = world.journal("DL/officer")
    journal.require("stop", "stop.declared", {"scope": "member", "subject": "AA"})
    with pytest.raises(IntegrityError, match="has recorded another event"):
        journal.require("stop", "stop.declared", {"scope": "member", "subject": "B6"})


# --- a whole job ------------------------------------------------------------------------------------


def test_a_job_leaves_one_event_for_every_step_of_everybody(world: World) -> None:
    outcome = world.coordinator().run()
    counted = Counter((signer, event) for signer, event, verdict in world.events())
    assert {verdict for _, _, verdict in world.events()} == {"accepted"}
    # Statistics, then two rounds of update and evaluation.
    assert counted["AA/operator", "round.opened"] == 5
    assert all(counted[f"{silo}/agent", "round.committed"] == 5 for silo in MEMBERS)
    assert all(counted[f"{silo}/agent", "quality.attested"] == 1 for silo in MEMBERS)
    state = world.ledger.state
    assert state.jobs.jobs[JOB].status == "closed"
    assert state.jobs.jobs[JOB].model == outcome.state.rounds[-1].model
    model = (world.folder / "coordinator" / "rounds" / "0002" / "model.safetensors").read_bytes()
    assert encoding.sha256(model) == state.jobs.jobs[JOB].model


def test_a_failing_gate_is_on_the_ledger_and_the_silo_is_out(world: World) -> None:
    world.runners["DL"].gate_failure = "Silo DL: 1 of 1 quality checks failed."
    outcome = world.coordinator().run()
    assert set(outcome.state.excluded) == {"DL"}
    quality = world.ledger.state.data.quality
    assert not quality[f"{JOB}/DL"].passed
    assert quality[f"{JOB}/AA"].passed
    assert ("DL/agent", "round.committed") not in {event[:2] for event in world.events()}


def _die(folder: Path, at: int, monkeypatched: tuple[Any, ...]) -> bool:
    """Run in a process that kills itself at its `at`-th durable write or append; whether it did."""
    pid = os.fork()
    if pid == 0:
        done = 0

        def count() -> None:
            nonlocal done
            done += 1
            if done == at:
                os.kill(os.getpid(), signal.SIGKILL)

        real = encoding.write_atomic

        def counted(path: Path, data: bytes, *, mode: int = 0o644) -> None:
            count()
            real(path, data, mode=mode)

        appended = MerkleLog.append

        def counted_append(self: MerkleLog, envelopes: Any) -> Any:
            count()
            answer = appended(self, envelopes)
            count()  # recorded, and nobody has heard of it
            return answer

        for module in monkeypatched:
            module.write_atomic = counted
        MerkleLog.append = counted_append  # type: ignore[method-assign]
        try:
            World(folder).coordinator().run()
        except BaseException:  # noqa: BLE001 - reported by the exit code
            os._exit(3)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize(
    "stride", [pytest.param(5, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.full)]
)
def test_killed_anywhere_and_resumed_no_event_is_lost_or_doubled(tmp_path: Path, stride: int) -> None:
    calm = World(tmp_path / "calm")
    model = calm.coordinator().run().state.rounds[-1].model
    expected = sorted(calm.events())
    calm.ledger.close()
    modules = (encoding, agent_module, store_module, journal_module)
    # Every fifth place gives some thirty deaths over all kinds of places; make test-full dies at each.
    at = 1
    while True:
        folder = tmp_path / f"run{at}"
        World(folder).ledger.close()
        if not _die(folder, at, modules):
            break
        resumed = World(folder)
        assert resumed.coordinator().run().state.rounds[-1].model == model
        assert sorted(resumed.events()) == expected
        resumed.ledger.close()
        at += stride
    assert at > 100, f"only {at} places were seen"


# --- the gates --------------------------------------------------------------------------------------


def test_gate_one_refuses_before_a_row_is_read(world: World) -> None:
    world.withdraw("DL")
    outcome = world.coordinator().run()
    assert world.runners["DL"].reads == 0
    assert "not-permitted" in outcome.state.excluded["DL"]
    assert "fedhouse permission give" not in outcome.state.excluded["DL"]  # the reason, not the advice


@pytest.mark.parametrize(
    ("event", "body", "code"),
    [
        ("stop.declared", {"scope": "member", "subject": "DL"}, "stopped"),
        ("job.declined", {"job": JOB}, "declined"),
    ],
)
def test_gate_one_heeds_stops_and_refusals(world: World, event: str, body: dict[str, str], code: str) -> None:
    world.person("DL/officer", event, body)
    with pytest.raises(PolicyRefusedError, match=f"may not run at silo DL: {code}") as caught:
        world.silos["DL"].require_permitted()
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("columns", ("carrier", "delay", "distance", "late", "name")),
        ("purpose", "other"),
        ("bundle", "0" * 64),
    ],
)
def test_gate_one_compares_the_proposal_with_the_job_itself(world: World, name: str, value: Any) -> None:
    """The owner told the ledger of fewer columns, another purpose or code than the job has."""
    terms = dict(world.silos["DL"].terms) | {name: value}
    honest = replace(world.silos["DL"], terms=terms)
    with pytest.raises(PolicyRefusedError, match=f"its proposal is untrue about {name}"):
        honest.require_permitted()


def test_a_patched_agent_that_skips_gate_one_makes_nothing_count(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.withdraw("DL")
    monkeypatch.setattr(
        LedgerSilo,
        "require_permitted",
        lambda self: None if self.member == "DL" else _real_gate(self),
    )
    outcome = world.coordinator().run()
    assert world.runners["DL"].reads > 0, "the patched agent read its rows"
    assert set(outcome.state.excluded) == {"DL"}
    assert all(item.updates.contributed == ("AA", "B6") for item in outcome.state.rounds)
    assert {v for s, e, v in world.events() if s == "DL/agent"} == {"not-permitted"}


_real_gate = LedgerSilo.require_permitted


def test_a_patched_agent_that_attests_to_nothing_makes_nothing_count(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LedgerSilo, "attest", lambda self, admission: None)
    with pytest.raises((QuorumError, PolicyRefusedError), match="quality-gate"):
        world.coordinator().run()


def test_a_permission_withdrawn_between_commit_and_closing_takes_the_silo_out_alone(world: World) -> None:
    real = world.silos["DL"].commit
    done: list[bool] = []

    def commit(step: Any, digest: str) -> None:
        real(step, digest)
        if step.purpose == "update" and step.round == 2 and not done:
            done.append(True)
            world.withdraw("DL")

    object.__setattr__(world.silos["DL"], "commit", commit)
    outcome = world.coordinator().run()
    assert world.runners["DL"].closings == 1, "prepared rows are deleted at the next refusal"
    assert outcome.state.rounds[1].updates.contributed == ("AA", "B6")
    assert outcome.state.rounds[1].updates.failed == {"DL": "not-permitted"}
    assert outcome.state.rounds[0].updates.contributed == MEMBERS


def test_bytes_that_were_not_committed_to_are_left_out(world: World) -> None:
    real = world.silos["B6"].commit

    def commit(step: Any, digest: str) -> None:
        lie = step.purpose == "update" and step.round == 1
        real(step, named("something else") if lie else digest)

    object.__setattr__(world.silos["B6"], "commit", commit)
    outcome = world.coordinator().run()
    assert outcome.state.rounds[0].updates.contributed == ("AA", "DL")
    assert "is not what it committed to" in outcome.state.rounds[0].updates.failed["B6"]


def test_a_stop_in_the_middle_halts_the_job_and_lifting_lets_it_end_with_the_same_bits(
    tmp_path: Path,
) -> None:
    calm = World(tmp_path / "calm")
    model = calm.coordinator().run().state.rounds[-1].model
    world = World(tmp_path / "stopped")
    stops: list[str] = []

    def pull(step: str, number: int) -> None:
        if (step, number) == ("train", 2) and not stops:
            stops.append(world.person("DL/officer", "stop.declared", {"scope": "consortium", "subject": ""}))

    world.runners["AA"].before = pull
    with pytest.raises(FedhouseError, match="stopped") as caught:
        world.coordinator().run()
    assert caught.value.exit_code == 5
    for silo in ("AA", "B6"):
        world.person(f"{silo}/officer", "stop.lifted", {"stop": stops[0]})
    assert world.coordinator().run().state.rounds[-1].model == model


# --- notices ----------------------------------------------------------------------------------------


def _notice(world: World, silo: str, data: bytes) -> None:
    folder = world.folder / "notices" / silo
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{len(list(folder.iterdir()))}.json").write_bytes(data)


def test_a_signed_stop_by_any_channel_is_obeyed_at_once(world: World) -> None:
    stop = world.parties.sign("B6/officer", "stop.declared", {"scope": "job", "subject": JOB})
    _notice(world, "DL", stop)
    with pytest.raises(PolicyRefusedError, match=r"a notice, [0-9a-f]{16}, says so"):
        world.silos["DL"].require_permitted()
    world.silos["AA"].require_permitted()  # it has not heard of it


def test_a_withdrawal_by_any_channel_is_obeyed_at_once(world: World) -> None:
    (permission,) = world.ledger.state.permissions.of_member["DL"]
    body = {"permission": permission}
    _notice(world, "DL", world.parties.sign("DL/steward", "permission.withdrawn", body))
    with pytest.raises(PolicyRefusedError, match="a notice"):
        world.silos["DL"].require_permitted()


def test_notices_that_prove_nothing_stop_nothing(world: World) -> None:
    sign = world.parties.sign
    stop = {"scope": "consortium", "subject": ""}
    stranger = world.parties.signer("XX/officer")
    _notice(world, "DL", b"stop everything!")
    _notice(world, "DL", sign("B6/officer", "stop.declared", stop, signer=stranger, sequence=1))
    _notice(world, "DL", sign("B6/officer", "stop.declared", stop, consortium=named("other"), sequence=1))
    _notice(world, "DL", sign("B6/agent", "stop.declared", stop, sequence=9))  # no person
    _notice(
        world, "DL", sign("B6/officer", "stop.declared", {"scope": "member", "subject": "AA"}, sequence=1)
    )
    (permission,) = world.ledger.state.permissions.of_member["DL"]
    _notice(world, "DL", sign("B6/steward", "permission.withdrawn", {"permission": permission}, sequence=9))
    world.silos["DL"].require_permitted()


def test_a_notice_that_the_ledger_has_ordered_and_lifted_stops_no_longer(world: World) -> None:
    stop = world.parties.sign("B6/officer", "stop.declared", {"scope": "consortium", "subject": ""})
    _notice(world, "DL", stop)
    world.ledger.append([stop])
    for silo in ("AA", "DL"):
        body = {"stop": parse_envelope(stop).digest}
        world.person(f"{silo}/officer", "stop.lifted", body)
    world.silos["DL"].require_permitted()


# --- metrics as text --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.7287299377920159, "0.728729937792"),
        (1.0, "1"),
        (0.0, "0"),
        (-0.0, "0"),
        (1e-13, "0"),
        (-2.5, "-2.5"),
        (1e20, "100000000000000000000"),
        (123.456, "123.456"),
    ],
)
def test_a_metric_becomes_decimal_text(value: float, text: str) -> None:
    assert decimal_text(value) == text
