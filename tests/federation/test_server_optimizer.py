"""The server's step against closed forms and a slow oracle of one parameter at a time."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedhouse.errors import IntegrityError, UpdateRejectedError
from fedhouse.federation.server_optimizer import OptimizerState, ServerOptimizer
from fedhouse.jobspec import Server

OPTIMIZERS = ("fedavg", "fedavgm", "fedadam")


def run(server: Server, weights: list[float], deltas: list[list[float]]) -> list[np.ndarray[Any, Any]]:
    """The model before and after every round."""
    optimizer = ServerOptimizer(server)
    models = [np.array(weights, dtype=np.float32)]
    state = optimizer.initial(len(weights))
    for delta in deltas:
        following, state = optimizer.step(models[-1], np.array(delta), state)
        models.append(following)
    return models


def test_fedavg_adds_the_mean() -> None:
    models = run(Server(optimizer="fedavg", learning_rate=0.5), [1.0, -2.0], [[0.5, 1.0], [0.25, -4.0]])
    assert [model.tolist() for model in models[1:]] == [[1.25, -1.5], [1.375, -3.5]]


def test_fedavgm_sums_a_geometric_series() -> None:
    """Under a constant Δ, momentum after n rounds is Δ·(1 - β^n) / (1 - β)."""
    models = run(Server(optimizer="fedavgm", learning_rate=0.25, momentum=0.5), [0.0], [[1.0]] * 12)
    steps = [float(after[0] - before[0]) for before, after in pairwise(models)]
    assert steps == pytest.approx([0.25 * (1 - 0.5**n) / 0.5 for n in range(1, 13)], rel=1e-6)


def test_fedavgm_without_momentum_is_fedavg() -> None:
    deltas = [[0.3, -0.1], [0.2, 0.7], [-1.0, 0.0]]
    plain = run(Server(optimizer="fedavg", learning_rate=0.7), [1.0, 2.0], deltas)
    without = run(Server(optimizer="fedavgm", learning_rate=0.7, momentum=0.0), [1.0, 2.0], deltas)
    assert [model.tobytes() for model in plain] == [model.tobytes() for model in without]


def test_fedadam_under_a_constant_update_has_a_closed_form() -> None:
    """m_n = Δ·(1 - β₁^n) and v_n = β₂^n·τ² + Δ²·(1 - β₂^n): no bias correction, v from τ²."""
    server = Server(optimizer="fedadam", learning_rate=0.1, beta1=0.9, beta2=0.99, epsilon=1e-3)
    models = run(server, [0.0], [[0.02]] * 20)
    steps = [float(after[0]) - float(before[0]) for before, after in pairwise(models)]
    expected = [
        0.1 * 0.02 * (1 - 0.9**n) / (math.sqrt(0.99**n * 1e-6 + 0.02**2 * (1 - 0.99**n)) + 1e-3)
        for n in range(1, 21)
    ]
    assert steps == pytest.approx(expected, rel=1e-4)


def slow_step(
    server: Server, x: float, delta: float, memory: dict[str, float]
) -> tuple[float, dict[str, float]]:
    """One parameter in plain Python floats, as the papers write it."""
    if server.optimizer == "fedavg":
        return x + server.learning_rate * delta, {}
    if server.optimizer == "fedavgm":
        m = server.momentum * memory.get("momentum", 0.0) + delta
        return x + server.learning_rate * m, {"momentum": m}
    m = server.beta1 * memory.get("first_moment", 0.0) + (1 - server.beta1) * delta
    v = server.beta2 * memory.get("second_moment", server.epsilon**2) + (1 - server.beta2) * (delta * delta)
    step = server.learning_rate * (m / (math.sqrt(v) + server.epsilon))
    return x + step, {"first_moment": m, "second_moment": v}


@given(
    optimizer=st.sampled_from(OPTIMIZERS),
    rate=st.floats(1e-4, 10),
    deltas=st.lists(arrays.arrays(np.float64, 3, elements=st.floats(-10, 10)), min_size=1, max_size=5),
)
def test_every_step_agrees_with_the_slow_oracle_bit_for_bit(
    optimizer: Any, rate: float, deltas: list[np.ndarray[Any, Any]]
) -> None:
    server = Server(optimizer=optimizer, learning_rate=rate)
    fast = ServerOptimizer(server)
    weights, state = np.array([0.0, 1.0, -3.25], dtype=np.float32), fast.initial(3)
    slow: list[tuple[float, dict[str, float]]] = [(float(x), {}) for x in weights]
    for delta in deltas:
        weights, state = fast.step(weights, delta, state)
        slow = [
            (float(np.float32(x)), memory)
            for x, memory in (
                slow_step(server, x, float(d), memory) for (x, memory), d in zip(slow, delta, strict=True)
            )
        ]
        assert weights.dtype == np.float32
        assert weights.tolist() == [x for x, _ in slow]
        for name, values in state.arrays().items():
            assert values.tolist() == [memory[name] for _, memory in slow]


@given(optimizer=st.sampled_from(OPTIMIZERS), epsilon=st.floats(1e-8, 1), size=st.integers(1, 5))
def test_no_update_moves_nothing(optimizer: Any, epsilon: float, size: int) -> None:
    models = run(Server(optimizer=optimizer, epsilon=epsilon), [1.5] * size, [[0.0] * size] * 3)
    assert {model.tobytes() for model in models} == {models[0].tobytes()}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_goes_on_from_stored_arrays_with_the_same_bits(optimizer: Any) -> None:
    deltas = np.random.default_rng(3).normal(size=(6, 4))
    rule = ServerOptimizer(Server(optimizer=optimizer, learning_rate=0.3))
    weights, state = np.zeros(4, dtype=np.float32), rule.initial(4)
    again, stored = weights, state
    for delta in deltas:
        weights, state = rule.step(weights, delta, state)
        again, stored = rule.step(again, delta, rule.restore(stored.arrays(), 4))
        assert again.tobytes() == weights.tobytes()
    assert all(value.dtype == np.float64 for value in state.arrays().values())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_leaves_its_arguments_alone(optimizer: Any) -> None:
    rule = ServerOptimizer(Server(optimizer=optimizer))
    weights, delta, state = np.ones(2, dtype=np.float32), np.array([1.0, -1.0]), rule.initial(2)
    before = {name: value.copy() for name, value in state.arrays().items()}
    rule.step(weights, delta, state)
    assert (weights.tolist(), delta.tolist()) == ([1.0, 1.0], [1.0, -1.0])
    assert all(np.array_equal(value, before[name]) for name, value in state.arrays().items())


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"momentum": np.zeros(3)},
        {"momentum": np.zeros(2, dtype=np.float32)},
        {"momentum": np.array([0.0, np.nan])},
        {"first_moment": np.zeros(2)},
        {"momentum": np.zeros(2), "second_moment": np.zeros(2)},
    ],
)
def test_a_state_of_another_job_is_refused(stored: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        ServerOptimizer(Server(optimizer="fedavgm")).restore(stored, 2)


@pytest.mark.parametrize(
    ("weights", "delta"),
    [
        (np.zeros(2), np.zeros(2)),
        (np.zeros((1, 2), dtype=np.float32), np.zeros((1, 2))),
        (np.zeros(2, dtype=np.float32), np.zeros(3)),
        (np.zeros(2, dtype=np.float32), np.zeros(2, dtype=np.float32)),
        (np.zeros(2, dtype=np.float32), np.array([0.0, np.nan])),
        (np.zeros(2, dtype=np.float32), np.array([0.0, 1e39])),
    ],
)
def test_a_step_that_does_not_fit_is_refused(weights: Any, delta: Any) -> None:
    with pytest.raises(UpdateRejectedError):
        ServerOptimizer(Server()).step(weights, delta, OptimizerState())
