"""Rows on their way from Spark to a model: compact rows, and how they become features.

Spark gives a **compact row**: one float32 for each number (and each missing flag), one for each
category's place in its vocabulary, and the label last. A worker expands it into the features that the
model sees. One-hot features in Spark would be many times the bytes, all of them zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedhouse.encoder import CategoryEncoding, Encoder, NumberEncoding
from fedhouse.errors import IntegrityError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def compact_width(encoder: Encoder) -> int:
    """Number of float32 values of a compact row, the label included."""
    return 1 + sum(item.width if isinstance(item, NumberEncoding) else 1 for item in encoder.encodings)


def expand(compact: NDArray[np.float32], encoder: Encoder) -> NDArray[np.float32]:
    """Features and label, float32 [N, F + 1], from compact rows, float32 [N, C].

    Raises
    ------
    IntegrityError
        If a category's place is outside its vocabulary.
    """
    if not any(isinstance(item, CategoryEncoding) for item in encoder.encodings):
        return np.ascontiguousarray(compact)
    wide = np.zeros((len(compact), encoder.width + 1), dtype=np.float32)
    source = target = 0
    everyone = np.arange(len(compact))
    for item in encoder.encodings:
        if isinstance(item, NumberEncoding):
            wide[:, target : target + item.width] = compact[:, source : source + item.width]
            source += item.width
        else:
            place = compact[:, source]
            if len(place) and not (place.min() >= 0 and place.max() < item.width):
                raise IntegrityError(f"A prepared row has an impossible category in column {item.column}.")
            wide[everyone, target + place.astype(np.int64)] = 1.0
            source += 1
        target += item.width
    wide[:, -1] = compact[:, -1]
    return wide
