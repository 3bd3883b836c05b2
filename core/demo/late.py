"""Will this flight arrive late? Ordinary PyTorch, as it would be written for a single table."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

Batches = Iterable[tuple[Tensor, Tensor]]


class Net(nn.Module):
    """A small multi-layer perceptron: features [B, F] to one logit for each row, [B]."""

    def __init__(self, features: int, hidden: int = 64) -> None:
        super().__init__()
        self.first = nn.Linear(features, hidden)
        self.second = nn.Linear(hidden, hidden // 2)
        self.last = nn.Linear(hidden // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(self.second(x))
        logits: Tensor = self.last(x)
        return logits.squeeze(-1)


def train(model: nn.Module, loader: Batches, *, epochs: int, lr: float) -> None:
    """Adam on the cross-entropy, `epochs` times through the rows."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    model.train()
    for _ in range(epochs):
        for features, label in loader:
            optimizer.zero_grad()
            binary_cross_entropy_with_logits(model(features), label).backward()
            optimizer.step()


def evaluate(model: nn.Module, loader: Batches) -> dict[str, float]:
    """Mean cross-entropy over all rows."""
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for features, label in loader:
            total += binary_cross_entropy_with_logits(model(features), label, reduction="sum").item()
            count += len(label)
    return {"loss": total / max(count, 1)}
