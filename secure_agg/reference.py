"""INSECURE: the plain integer sum. It hides nothing from whoever collects the contributions.

It exists as the oracle for tests, and for a first run on one's own machine. Its bytes have the size of
the numbers themselves, `bits` bits an element, so that figures in bytes per parameter mean something.

A sealed contribution, all integers little-endian::

    8 bytes   magic and version, b"FHPLAIN\\x01"
    4 bytes   length of the header
    header    canonical JSON: {"context": ..., "silo": ...}
    values    bit-packed, least significant bit first; the last byte is filled with zeros
    32 bytes  SHA-256 of everything before

The checksum finds accidents. It is no authentication: whoever can write a contribution can write its
checksum.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from fedhouse.encoding import canonical_json
from fedhouse.errors import IntegrityError, QuorumError, UpdateRejectedError
from fedhouse.secure_agg.aggregator import AggregationContext

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

_MAGIC: Final = b"FHPLAIN\x01"
_CHECKSUM: Final = 32
# A multiple of eight elements fills whole bytes at every width.
_BLOCK: Final = 2**16


class ReferenceAggregator:
    """INSECURE: adds up integers that everybody on the way can read. For tests and rehearsals."""

    name = "reference (insecure)"
    secure = False

    def __init__(self) -> None:
        log.warning("aggregation is the insecure reference: whoever collects updates can read each of them")

    def seal(self, context: AggregationContext, silo: str, values: NDArray[np.uint32]) -> bytes:
        """`values`, uint32 [context.length], each below 2^context.bits, as bytes anyone can read.

        Raises
        ------
        UpdateRejectedError
            If `values` does not fit the context.
        """
        if values.dtype != np.uint32 or values.shape != (context.length,):
            raise UpdateRejectedError(
                f"Silo {silo}: a contribution to {context.purpose} must be {context.length} integers of "
                f"32 bits, not {values.shape} of {values.dtype}."
            )
        if values.max(initial=0) >> context.bits:
            raise UpdateRejectedError(
                f"Silo {silo}: a contribution to {context.purpose} has elements of more than "
                f"{context.bits} bits."
            )
        body = _prefix(context, silo) + _pack(values, context.bits)
        return body + hashlib.sha256(body).digest()

    def open_sum(self, context: AggregationContext, sealed: Mapping[str, bytes]) -> NDArray[np.int64]:
        """The element-wise sum, int64 [context.length].

        Raises
        ------
        IntegrityError
            If a contribution is malformed or belongs to another context or silo; names the silo.
        QuorumError
            If there are no contributions, or more than the context allows.
        """
        if not 1 <= len(sealed) <= context.max_contributors:
            raise QuorumError(
                f"A sum of {len(sealed)} contributions was asked, and 1 to {context.max_contributors} "
                "can be summed."
            )
        total = np.zeros(context.length, dtype=np.int64)
        for silo, data in sealed.items():
            total += _open(context, silo, data)
        return total


def _prefix(context: AggregationContext, silo: str) -> bytes:
    header = canonical_json({"context": context.to_json(), "silo": silo})
    return _MAGIC + len(header).to_bytes(4, "little") + header


def _open(context: AggregationContext, silo: str, data: bytes) -> NDArray[np.uint32]:
    """The values of one contribution, uint32 [context.length].

    The header that must stand there is known, so it is compared and never parsed.
    """
    prefix = _prefix(context, silo)
    expected = len(prefix) + -(-context.length * context.bits // 8) + _CHECKSUM
    where = f"The contribution of silo {silo} to {context.purpose} of round {context.round}"
    again = "Ask the silo to send it again."
    if not data.startswith(_MAGIC):
        raise IntegrityError(f"{where} is not in the reference format.", mend=again)
    if hashlib.sha256(data[:-_CHECKSUM]).digest() != data[-_CHECKSUM:]:
        raise IntegrityError(f"{where} is damaged: its checksum does not match.", mend=again)
    if not data.startswith(prefix):
        raise IntegrityError(f"{where} was made for another silo, round, purpose or job.", mend=again)
    if len(data) != expected:
        raise IntegrityError(f"{where} has {len(data)} bytes instead of {expected}.", mend=again)
    packed = np.frombuffer(data, dtype=np.uint8)[len(prefix) : -_CHECKSUM]
    # What is left over of the last byte must be zero, or two byte strings would mean the same.
    spare = -context.length * context.bits % 8
    if spare and packed[-1] >> 8 - spare:
        raise IntegrityError(f"{where} has bits set behind its last element.", mend=again)
    return _unpack(packed, context.length, context.bits)


def _pack(values: NDArray[np.uint32], bits: int) -> bytes:
    """The lowest `bits` bits of each value, one behind the other."""
    parts = []
    for start in range(0, len(values), _BLOCK):
        octets = values[start : start + _BLOCK].astype("<u4").view(np.uint8).reshape(-1, 4)
        split = np.unpackbits(octets, axis=1, bitorder="little")[:, :bits]
        parts.append(np.packbits(split, bitorder="little").tobytes())
    return b"".join(parts)


def _unpack(packed: NDArray[np.uint8], length: int, bits: int) -> NDArray[np.uint32]:
    """The inverse of `_pack`: uint32 [length]."""
    values = np.empty(length, dtype=np.uint32)
    for start in range(0, length, _BLOCK):
        count = min(_BLOCK, length - start)
        octets = packed[start * bits // 8 : -(-(start + count) * bits // 8)]
        split = np.zeros((count, 32), dtype=np.uint8)
        split[:, :bits] = np.unpackbits(octets, count=count * bits, bitorder="little").reshape(count, bits)
        values[start : start + count] = np.packbits(split, axis=1, bitorder="little").view("<u4")[:, 0]
    return values
