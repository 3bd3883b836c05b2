"""The coordinator with silos that only pretend to train: order, failures, and death at every write."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedhouse import encoding
from fedhouse.bundle import Bundle, Entries
from fedhouse.encoder import Encoder
from fedhouse.encoding import derive_seed
from fedhouse.errors import (
    ConfigurationError,
    FedhouseError,
    IntegrityError,
    QualityGateError,
    QuorumError,
    UserCodeError,
)
from fedhouse.federation import agent as agent_module
from fedhouse.federation import store as store_module
from fedhouse.federation.agent import SiloAgent
from fedhouse.federation.coordinator import Coordinator, Outcome
from fedhouse.federation.plan import JobPlan
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

JOB = "ab" * 32
LAYOUT = ParameterLayout((TensorSpec("w", (5,), "float32"),))
SILOS = ("AA", "B6", "DL", "UA")


def _spec(**changes: Any) -> JobSpec:
    return JobSpec.model_validate(
        {
            "name": "job",
            "data": "rows",
            "columns": ["x"],
            "label": "y",
            "model": "job:Net",
            "train": "job:train",
            "evaluate": "job:evaluate",
            "rounds": 3,
            "holdout": {"column": "day", "modulo": 5},
            **changes,
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


@dataclass
class PretendRunner:
    """A `SiloRunner` whose figures follow from its name, the round and the weights."""

    silo: str
    fail_in: Callable[[str, int], FedhouseError | None] = lambda step, number: None
    closed: bool = False

    def _may_fail(self, step: str, number: int = 0) -> np.random.Generator:
        error = self.fail_in(step, number)
        if error is not None:
            raise error
        return np.random.default_rng(derive_seed(step, self.silo, number))

    def admit(self, earlier: Admission | None = None) -> Admission:
        self._may_fail("admit")
        return earlier or Admission({}, "", {})

    def statistics(self) -> LocalStatistics:
        rows = int(self._may_fail("statistics").integers(10, 100))
        return LocalStatistics(rows, 5, {"x": NumberStatistics(rows, rows << 16, rows << 32)}, {})

    def train(self, round_number: int, weights: np.ndarray, encoder: Encoder) -> LocalUpdate:
        generator = self._may_fail("train", round_number)
        delta = generator.normal(size=5) * 0.1 - 0.01 * weights
        return LocalUpdate(delta, int(generator.integers(10, 100)), {0: 1}, 0.1, "AVX2")

    def evaluate(self, round_number: int, weights: np.ndarray, encoder: Encoder) -> LocalEvaluation:
        self._may_fail("evaluate", round_number)
        counts = np.zeros((2, SCORE_BINS), np.int64)
        counts[0, 600 + round_number] = counts[1, 500] = 1
        counts[1, 700] = 1
        return LocalEvaluation(3, {"loss": 1 / round_number}, counts[0], counts[1], 0.1)

    def close(self) -> None:
        self.closed = True


def _open(
    folder: Path, *, spec: JobSpec | None = None, runners: Mapping[str, PretendRunner] | None = None
) -> Coordinator:
    spec = spec or _spec()
    runners = runners or {silo: PretendRunner(silo) for silo in SILOS}
    aggregator = ReferenceAggregator()
    plan = JobPlan(JOB, spec, _bundle())
    agents = {
        silo: SiloAgent(plan, silo, runner, aggregator, folder / "silos" / silo)
        for silo, runner in runners.items()
    }
    return Coordinator.open(
        job=JOB,
        spec=spec,
        bundle=_bundle(),
        agents=agents,
        aggregator=aggregator,
        folder=folder / "coordinator",
        parallel=2,
    )


def _models(outcome: Outcome) -> list[str]:
    return [item.model for item in outcome.state.rounds]


def test_a_job_runs_to_its_end_and_averages_exactly(tmp_path: Path) -> None:
    coordinator = _open(tmp_path)
    outcome = coordinator.run()
    assert len(outcome.state.rounds) == 3
    assert outcome.exported_round == 3
    assert set(outcome.bytes_uploaded) == set(SILOS)
    updates = [PretendRunner(silo).train(1, np.zeros(5, np.float32), None) for silo in SILOS]  # type: ignore[arg-type]
    weights = np.array([update.examples for update in updates], np.float64)
    expected = sum(w * u.delta for w, u in zip(weights, updates, strict=True)) / weights.sum()
    # Four roundings of one step each: 2/2^16 of the range, scaled back by the silos' small weights.
    tolerance = 4 * (2 / 2**16) * 100_000 / weights.sum()
    np.testing.assert_allclose(coordinator.store.model(1), expected, atol=tolerance)
    metrics = outcome.state.rounds[1].metrics
    assert metrics is not None
    assert metrics["loss"] == pytest.approx(0.5)
    assert metrics["auc"] == 0.5


def test_the_order_and_parallelism_of_silos_do_not_change_a_bit(tmp_path: Path) -> None:
    one = _open(tmp_path / "1")
    two = _open(tmp_path / "2", runners={silo: PretendRunner(silo) for silo in reversed(SILOS)})
    two.parallel = 4
    assert _models(one.run()) == _models(two.run())


def test_a_silo_that_fails_its_gate_is_out_and_the_others_go_on(tmp_path: Path) -> None:
    runners = {silo: PretendRunner(silo) for silo in SILOS}
    runners["DL"].fail_in = lambda step, _: (
        QualityGateError("rows: 3 of 9 null.") if step == "admit" else None
    )
    outcome = _open(tmp_path, runners=runners).run()
    assert outcome.state.excluded == {"DL": "rows: 3 of 9 null."}
    assert outcome.state.rounds[0].updates.contributed == ("AA", "B6", "UA")
    assert not (tmp_path / "silos" / "DL").exists()


def test_a_silo_that_fails_in_a_round_is_out_of_that_round(tmp_path: Path) -> None:
    runners = {silo: PretendRunner(silo) for silo in SILOS}
    runners["AA"].fail_in = lambda step, n: UserCodeError("It broke.") if (step, n) == ("train", 2) else None
    outcome = _open(tmp_path, runners=runners).run()
    assert [item.updates.contributed for item in outcome.state.rounds] == [
        SILOS,
        ("B6", "DL", "UA"),
        SILOS,
    ]


def test_too_few_silos_stop_the_job_and_a_resume_ends_with_the_same_bits(tmp_path: Path) -> None:
    undisturbed = _models(_open(tmp_path / "calm").run())
    runners = {silo: PretendRunner(silo) for silo in SILOS}
    for silo in ("AA", "B6", "DL"):
        runners[silo].fail_in = lambda step, n: (
            IntegrityError("Disk trouble.") if (step, n) == ("train", 2) else None
        )
    with pytest.raises(QuorumError, match=r"Round 2, update: 1 of 4 silos contributed, and 2 are needed"):
        _open(tmp_path / "run", runners=runners).run()
    assert _models(_open(tmp_path / "run").run()) == undisturbed


def test_where_all_silos_fail_alike_their_error_is_told(tmp_path: Path) -> None:
    runners = {
        silo: PretendRunner(silo, lambda *_: UserCodeError("ValueError at job.py:3.")) for silo in SILOS
    }
    with pytest.raises(UserCodeError, match=r"All 4 silos failed. ValueError at job.py:3"):
        _open(tmp_path, runners=runners).run()


def test_a_programming_error_is_not_a_silo_failure(tmp_path: Path) -> None:
    runners = {silo: PretendRunner(silo) for silo in SILOS}
    runners["AA"].statistics = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(ZeroDivisionError):
        _open(tmp_path, runners=runners).run()


def test_early_stop_by_target_and_by_patience(tmp_path: Path) -> None:
    by_target = _open(tmp_path / "1", spec=_spec(metric="loss", target=0.5, rounds=9)).run()
    assert len(by_target.state.rounds) == 2
    # The pretended AUC is 0.5 in every round: the first is the best, two more are waited for.
    by_patience = _open(tmp_path / "2", spec=_spec(patience=2, rounds=9)).run()
    assert len(by_patience.state.rounds) == 3
    assert by_patience.exported_round == 1


@pytest.mark.parametrize("optimizer", ["fedavg", "fedavgm", "fedadam"])
def test_every_server_optimizer_resumes_from_every_round(tmp_path: Path, optimizer: str) -> None:
    spec = _spec(server={"optimizer": optimizer, "learning_rate": 0.5})
    whole = _models(_open(tmp_path / "whole", spec=spec).run())
    for rounds in (1, 2):
        folder = tmp_path / f"cut{rounds}"
        runners = {silo: PretendRunner(silo, _dies_after(rounds)) for silo in SILOS}
        with pytest.raises(QuorumError):
            _open(folder, spec=spec, runners=runners).run()
        assert _models(_open(folder, spec=spec).run()) == whole


def _dies_after(rounds: int) -> Callable[[str, int], FedhouseError | None]:
    return lambda step, n: QuorumError("Away.") if step == "train" and n > rounds else None


def test_a_second_contribution_from_another_base_is_refused(tmp_path: Path) -> None:
    plan = JobPlan(JOB, _spec(), _bundle())
    agent = SiloAgent(plan, "AA", PretendRunner("AA"), ReferenceAggregator(), tmp_path)
    base = np.zeros(5, np.float32)
    encoder = Encoder((), "y")
    first = agent.update(1, base, encoder)
    assert agent.update(1, base, encoder) == first
    with pytest.raises(IntegrityError, match="from another base model"):
        agent.update(1, base + 1, encoder)


def test_a_changed_contribution_is_noticed(tmp_path: Path) -> None:
    plan = JobPlan(JOB, _spec(), _bundle())
    agent = SiloAgent(plan, "AA", PretendRunner("AA"), ReferenceAggregator(), tmp_path)
    agent.statistics()
    path = next(tmp_path.rglob("*.sealed"))
    assert path.stat().st_mode & 0o777 == 0o600
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="is not what silo AA stored"):
        agent.statistics()


def test_too_few_silos_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="has 1 silos, and it needs 2"):
        _open(tmp_path, runners={"AA": PretendRunner("AA")})


def _run_and_die(folder: Path, at: int) -> bool:
    """Run in a process that kills itself just before its `at`-th durable write; whether it was killed."""
    pid = os.fork()
    if pid == 0:
        written = 0
        real = encoding.write_atomic

        def counted(path: Path, data: bytes, *, mode: int = 0o644) -> None:
            nonlocal written
            written += 1
            if written == at:
                os.kill(os.getpid(), signal.SIGKILL)
            real(path, data, mode=mode)

        for module in (encoding, agent_module, store_module):
            module.write_atomic = counted  # type: ignore[attr-defined]
        try:
            coordinator = _open(folder)
            coordinator.parallel = 1  # so that the writes have one order
            coordinator.run()
        except BaseException:  # noqa: BLE001 - reported by the exit code
            os._exit(3)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.slow
def test_killed_before_any_durable_write_a_resumed_job_ends_with_the_same_bits(tmp_path: Path) -> None:
    undisturbed = _models(_open(tmp_path / "calm").run())
    at = 1
    while _run_and_die(tmp_path / f"run{at}", at):
        folder = tmp_path / f"run{at}"
        before = {
            path: path.read_bytes() for path in folder.rglob("*.sealed") if path.with_suffix(".json").exists()
        }
        outcome = _open(folder).run()
        assert _models(outcome) == undisturbed
        assert not [path for path, data in before.items() if path.read_bytes() != data]
        at += 1
    # 4 admissions; 4 silos with two files each in 7 collections; the coordinator's own states and models.
    assert at > 60, f"only {at} writes were seen"
