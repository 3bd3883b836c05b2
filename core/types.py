"""Small frozen types that travel between the layers. No I/O, no heavy imports."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from fedhouse.errors import BundleError, ConfigurationError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TENSOR_NAME = re.compile(r"[A-Za-z0-9_.\-/]{1,256}")

# Floating types that a model's state may have; the update of each travels as float32.
FLOATING = ("float16", "bfloat16", "float32", "float64")


def require_name(text: str, what: str) -> str:
    """`text` if it may name a silo, job or dataset: it becomes part of paths and identifiers.

    Raises
    ------
    ConfigurationError
        Otherwise.
    """
    if not isinstance(text, str) or not _NAME.fullmatch(text):
        raise ConfigurationError(
            f"{text!r} is not a valid {what}.",
            mend="Use up to 64 letters, digits, dots, hyphens and underscores; begin with a letter or digit.",
        )
    return text


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, shape and type of one tensor of a model's state."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    def __post_init__(self) -> None:
        if not _TENSOR_NAME.fullmatch(self.name):
            raise BundleError(f"Tensor name {self.name[:80]!r} is not allowed in a bundle.")
        if self.dtype not in FLOATING:
            raise BundleError(f"Tensor {self.name} has type {self.dtype}; only floating tensors are shared.")
        if any(not isinstance(extent, int) or extent < 0 for extent in self.shape):
            raise BundleError(f"Tensor {self.name} has an impossible shape.")


@dataclass(frozen=True, slots=True)
class ParameterLayout:
    """The floating entries of a model's `state_dict`, in its order: where each sits in an update.

    An update is one float32 vector of `size` elements: the entries flattened in row-major order,
    one behind the other. Buffers are included; integer buffers are not, they stay local.
    """

    tensors: tuple[TensorSpec, ...]

    @property
    def size(self) -> int:
        """Number of parameters: the length of an update."""
        return sum(tensor.size for tensor in self.tensors)

    def __post_init__(self) -> None:
        names = [tensor.name for tensor in self.tensors]
        if len(set(names)) != len(names):
            raise BundleError("A layout names a tensor twice.")

    def to_json(self) -> list[dict[str, Any]]:
        """The layout as a JSON value."""
        return [
            {"name": tensor.name, "shape": list(tensor.shape), "dtype": tensor.dtype}
            for tensor in self.tensors
        ]

    @classmethod
    def from_json(cls, value: Iterable[Mapping[str, Any]]) -> ParameterLayout:
        """The layout from what `to_json` gave.

        Raises
        ------
        BundleError
            If `value` is anything else.
        """
        try:
            return cls(tuple(TensorSpec(item["name"], tuple(item["shape"]), item["dtype"]) for item in value))
        except (TypeError, KeyError) as error:
            raise BundleError("A parameter layout is malformed.") from error
