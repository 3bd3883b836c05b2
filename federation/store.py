"""The coordinator's durable state: files that are whole or absent, the state last.

Layout of a run's folder::

    coordinator/state.json            where the round machine stands
    coordinator/encoder.json          after the statistics
    coordinator/rounds/0003/model.safetensors, optimizer.safetensors

A state is written after everything that it refers to; a kill between two writes leaves the older
state, from which the same files are written again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedhouse.encoder import Encoder
from fedhouse.encoding import read_json, write_atomic, write_json
from fedhouse.errors import IntegrityError
from fedhouse.snapshot import snapshot_bytes, snapshot_vector
from fedhouse.types import ParameterLayout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class CoordinatorStore:
    """Reads and writes the coordinator's folder of one run."""

    folder: Path
    layout: ParameterLayout

    def state(self) -> Any | None:
        """The stored state as JSON, or None before the first."""
        path = self.folder / "state.json"
        return read_json(path) if path.exists() else None

    def save_state(self, state: Any) -> None:
        """Make `state` the one to resume from."""
        write_json(self.folder / "state.json", state)

    def encoder(self) -> Encoder:
        """The stored encoder."""
        return Encoder.from_json(read_json(self.folder / "encoder.json"))

    def save_encoder(self, encoder: Encoder) -> None:
        """Store the encoder that the statistics gave."""
        write_json(self.folder / "encoder.json", encoder.to_json())

    def statistics(self) -> Any:
        """What was kept of the summed statistics: `rows` and `held_out` of all admitted silos."""
        return read_json(self.folder / "statistics.json")

    def save_statistics(self, told: Mapping[str, int]) -> None:
        """Keep the summed row counts."""
        write_json(self.folder / "statistics.json", dict(told))

    def has_round(self, number: int) -> bool:
        """Whether the model after round `number` is there; 0 is the one that the job begins with."""
        return (self._round(number) / "model.safetensors").exists()

    def model(self, number: int) -> NDArray[np.float32]:
        """The parameters after round `number`, float32 [P].

        Raises
        ------
        IntegrityError
            If they are missing or not of the layout.
        """
        path = self._round(number) / "model.safetensors"
        try:
            return snapshot_vector(self.layout, path.read_bytes())
        except OSError as error:
            raise IntegrityError(f"{path} cannot be read: {error.strerror}.") from error

    def optimizer(self, number: int) -> dict[str, NDArray[np.float64]]:
        """The server optimizer's arrays after round `number`."""
        import numpy as np
        from safetensors import SafetensorError
        from safetensors.numpy import load

        path = self._round(number) / "optimizer.safetensors"
        try:
            arrays = load(path.read_bytes())
        except (OSError, SafetensorError) as error:
            raise IntegrityError(f"{path} cannot be read ({type(error).__name__}).") from None
        return {name: np.asarray(value, dtype=np.float64) for name, value in arrays.items()}

    def save_round(
        self, number: int, weights: NDArray[np.float32], optimizer: Mapping[str, NDArray[np.float64]]
    ) -> None:
        """Store the model and optimizer after round `number`."""
        from safetensors.numpy import save

        write_atomic(self._round(number) / "optimizer.safetensors", save(dict(optimizer)))
        write_atomic(self._round(number) / "model.safetensors", snapshot_bytes(self.layout, weights))

    def _round(self, number: int) -> Path:
        return self.folder / "rounds" / f"{number:04d}"
