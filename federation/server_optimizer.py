"""The server's step: from the mean update of a round to the next global model.

The mean update Δ takes the place of a negative gradient:

- `fedavg`   x ← x + η·Δ   (McMahan et al., AISTATS 2017, with a server learning rate)
- `fedavgm`  m ← β·m + Δ;  x ← x + η·m   (Hsu et al., arXiv:1909.06335)
- `fedadam`  m ← β₁·m + (1-β₁)·Δ;  v ← β₂·v + (1-β₂)·Δ²;  x ← x + η·m / (√v + τ)
  (Reddi et al., Adaptive Federated Optimization, ICLR 2021, algorithm 2: no bias correction, and v
  starts at τ², the least that the paper allows.) τ is the job's `epsilon`.

Arithmetic is elementwise IEEE double on a float32 model, so the same round gives the same bits on every
machine. Every entry of an update is treated alike, the buffers of a model included: under `fedadam` a
batch norm's running variance can become negative. Jobs with such buffers use `fedavg`.

Example::

    optimizer = ServerOptimizer(job.spec.server)
    state = optimizer.initial(len(weights))
    weights, state = optimizer.step(weights, mean_delta, state)
    stored = state.arrays()                          # and back: optimizer.restore(stored, len(weights))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fedhouse.errors import IntegrityError, UpdateRejectedError
from fedhouse.jobspec import Server

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOMENTS = {"fedavg": (), "fedavgm": ("momentum",), "fedadam": ("first_moment", "second_moment")}


@dataclass(frozen=True, slots=True)
class OptimizerState:
    """What an optimizer remembers between rounds: named float64 vectors of one element a parameter."""

    moments: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """The vectors by name, to be stored."""
        return dict(self.moments)


@dataclass(frozen=True, slots=True)
class ServerOptimizer:
    """One of the three rules, with the constants of a job."""

    server: Server

    def initial(self, parameters: int) -> OptimizerState:
        """The state before the first round of a model of so many parameters."""
        start = {"second_moment": self.server.epsilon**2}
        names = _MOMENTS[self.server.optimizer]
        return OptimizerState({name: np.full(parameters, start.get(name, 0.0)) for name in names})

    def restore(self, arrays: Mapping[str, NDArray[np.float64]], parameters: int) -> OptimizerState:
        """The state from what `OptimizerState.arrays` gave.

        Raises
        ------
        IntegrityError
            If a vector is missing, unknown, of another length or type, or not finite.
        """
        expected = _MOMENTS[self.server.optimizer]
        if set(arrays) != set(expected):
            raise IntegrityError(
                f"The stored state of {self.server.optimizer} holds {sorted(arrays)}, not {list(expected)}.",
                mend="It belongs to another job; use the right run folder.",
            )
        for name, value in arrays.items():
            if value.dtype != np.float64 or value.shape != (parameters,) or not np.isfinite(value).all():
                raise IntegrityError(
                    f"The stored {name} of {self.server.optimizer} is not {parameters} finite doubles."
                )
        return OptimizerState({name: arrays[name] for name in expected})

    def step(
        self, weights: NDArray[np.float32], mean_delta: NDArray[np.float64], state: OptimizerState
    ) -> tuple[NDArray[np.float32], OptimizerState]:
        """The next model, float32 [P], from `weights`, float32 [P], and the mean update, float64 [P].

        The arguments are left as they are.

        Raises
        ------
        UpdateRejectedError
            If the shapes or types do not fit, or the next model would not be finite in float32.
        """
        if weights.dtype != np.float32 or weights.ndim != 1:
            raise UpdateRejectedError(f"The model must be a float32 vector, not {weights.dtype}.")
        if mean_delta.dtype != np.float64 or mean_delta.shape != weights.shape:
            raise UpdateRejectedError(
                f"The mean update is {mean_delta.dtype} {mean_delta.shape}, and the model has {len(weights)} "
                "parameters."
            )
        direction, following = self._direction(mean_delta, state.moments)
        with np.errstate(over="ignore", invalid="ignore"):
            moved = (weights + self.server.learning_rate * direction).astype(np.float32)
        if not np.isfinite(moved).all():
            raise UpdateRejectedError(
                "The server's step gives a model that is not finite.", mend="Lower server.learning_rate."
            )
        return moved, OptimizerState(following)

    def _direction(
        self, delta: NDArray[np.float64], moments: Mapping[str, NDArray[np.float64]]
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
        server = self.server
        if server.optimizer == "fedavg":
            return delta, {}
        if server.optimizer == "fedavgm":
            momentum = server.momentum * moments["momentum"] + delta
            return momentum, {"momentum": momentum}
        first = server.beta1 * moments["first_moment"] + (1 - server.beta1) * delta
        second = server.beta2 * moments["second_moment"] + (1 - server.beta2) * np.square(delta)
        return first / (np.sqrt(second) + server.epsilon), {"first_moment": first, "second_moment": second}
