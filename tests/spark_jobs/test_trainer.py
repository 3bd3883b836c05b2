"""The ready-made loop: plain steps, and FedProx against its closed form."""

from __future__ import annotations

import pytest
import torch

import fedhouse
from fedhouse.errors import JobError

ROWS = [(torch.tensor([[1.0, 2.0], [3.0, -1.0]]), torch.tensor([1.0, 0.0]))]


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([0.5, -0.25]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.w


def _gradient(w: torch.Tensor) -> torch.Tensor:
    """Of the mean squared error on ROWS, by hand: 2/N times X^T(Xw - y)."""
    x, y = ROWS[0]
    return 2 / len(y) * x.T @ (x @ w - y)


@pytest.mark.parametrize("proximal", [0.0, 0.7])
def test_steps_are_gradient_descent_pulled_to_where_the_round_began(proximal: float) -> None:
    model = Line()
    start = model.w.detach().clone()
    expected = start.clone()
    for _ in range(5):
        expected = expected - 0.05 * (_gradient(expected) + proximal * (expected - start))
    fedhouse.Trainer(epochs=5, lr=0.05, loss="mse", optimizer="sgd", proximal=proximal)(model, ROWS)
    torch.testing.assert_close(model.w.detach(), expected)


def test_a_strong_pull_keeps_the_model_near() -> None:
    moved = []
    for proximal in (0.0, 1.0, 10.0):
        model = Line()
        start = model.w.detach().clone()
        fedhouse.Trainer(epochs=50, lr=0.02, loss="mse", optimizer="sgd", proximal=proximal)(model, ROWS)
        moved.append(float((model.w.detach() - start).norm()))
    assert moved[0] > moved[1] > moved[2] > 0


def test_a_gradient_is_clipped() -> None:
    model = Line()
    start = model.w.detach().clone()
    fedhouse.Trainer(lr=1.0, loss="mse", optimizer="sgd", clip_norm=0.01)(model, ROWS)
    assert float((model.w.detach() - start).norm()) == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"lr": 0}, {"loss": "hinge"}, {"proximal": -1}, {"optimizer": "x"}]
)
def test_wrong_arguments_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(JobError, match="Trainer"):
        fedhouse.Trainer(**wrong)  # type: ignore[arg-type]
