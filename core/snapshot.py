"""A model's parameters as bytes: safetensors, float32, one tensor a name of the layout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedhouse.errors import IntegrityError
from fedhouse.types import ParameterLayout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def snapshot_bytes(layout: ParameterLayout, vector: NDArray[np.float32]) -> bytes:
    """A model's parameters (float32, length `layout.size`) as safetensors bytes."""
    from safetensors.numpy import save

    tensors = {}
    start = 0
    for item in layout.tensors:
        tensors[item.name] = vector[start : start + item.size].reshape(item.shape)
        start += item.size
    return save(tensors)


def snapshot_vector(layout: ParameterLayout, data: bytes) -> NDArray[np.float32]:
    """The parameters from what `snapshot_bytes` gave.

    Raises
    ------
    IntegrityError
        If the bytes are not safetensors of this layout.
    """
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(data)
    except SafetensorError as error:
        raise IntegrityError("Model weights are not valid safetensors.") from error
    fits = set(tensors) == {item.name for item in layout.tensors} and all(
        tensors[item.name].shape == item.shape and tensors[item.name].dtype == np.float32
        for item in layout.tensors
    )
    if not fits:
        raise IntegrityError("Model weights are not of the bundle's layout.")
    parts = [tensors[item.name].reshape(-1) for item in layout.tensors]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
