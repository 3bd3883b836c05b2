"""`fedhouse.Trainer`: the training loop for those who do not want to write one.

A job names it as ``train: fedhouse:train``, with the arguments of `Trainer` as `train_args`; or a
bundle's own file makes one and calls it. FedProx (Li et al., Federated Optimization in Heterogeneous
Networks, MLSys 2020) is its `proximal` argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from fedhouse.errors import JobError

_LOSSES: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "bce": torch.nn.functional.binary_cross_entropy_with_logits,
    "mse": torch.nn.functional.mse_loss,
    "l1": torch.nn.functional.l1_loss,
}


@dataclass(frozen=True)
class Trainer:
    """A loop over epochs and batches: one optimizer, one loss, optionally pulled to the base model.

    `proximal` is FedProx's mu: the loss gains mu/2 times the squared distance of the parameters from
    those that the round began with. `clip_norm` bounds the gradient's Euclidean norm.

    Example::

        train = fedhouse.Trainer(epochs=2, lr=0.01, proximal=0.1)
        train(model, loader)
    """

    epochs: int = 1
    lr: float = 0.01
    loss: Literal["bce", "mse", "l1"] = "bce"
    optimizer: Literal["adam", "sgd"] = "adam"
    momentum: float = 0.0
    weight_decay: float = 0.0
    proximal: float = 0.0
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        if self.loss not in _LOSSES or self.optimizer not in ("adam", "sgd"):
            raise JobError("Trainer knows the losses bce, mse, l1 and the optimizers adam, sgd.")
        if self.epochs < 1 or not self.lr > 0 or self.proximal < 0 or self.weight_decay < 0:
            raise JobError("Trainer needs epochs >= 1, lr > 0, and proximal and weight_decay >= 0.")

    def __call__(self, model: torch.nn.Module, loader: Any) -> None:
        """Train `model` in place on what `loader` yields: float32 [B, F] and [B]."""
        base = [parameter.detach().clone() for parameter in model.parameters()] if self.proximal else []
        optimizer = self._optimizer(model)
        model.train()
        for _ in range(self.epochs):
            for features, label in loader:
                optimizer.zero_grad(set_to_none=True)
                loss = _LOSSES[self.loss](model(features).reshape(-1), label)
                for parameter, start in zip(model.parameters(), base, strict=False):
                    loss = loss + self.proximal / 2 * (parameter - start).square().sum()
                loss.backward()  # type: ignore[no-untyped-call]
                if self.clip_norm is not None:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), self.clip_norm)
                optimizer.step()

    def _optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                model.parameters(), lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay
            )
        return torch.optim.Adam(model.parameters(), lr=self.lr, weight_decay=self.weight_decay)


def train(model: torch.nn.Module, loader: Any, **arguments: Any) -> None:
    """`Trainer(**arguments)` as an entry: ``train: fedhouse:train``."""
    Trainer(**arguments)(model, loader)


def evaluate(model: torch.nn.Module, loader: Any) -> dict[str, float]:
    """Mean binary cross-entropy over the loader, as an entry: ``evaluate: fedhouse:evaluate``."""
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for features, label in loader:
            total += float(
                torch.nn.functional.binary_cross_entropy_with_logits(
                    model(features).reshape(-1), label, reduction="sum"
                )
            )
            count += len(label)
    return {"loss": total / max(count, 1)}


ENTRIES: Mapping[str, Callable[..., Any]] = {"train": train, "evaluate": evaluate}
