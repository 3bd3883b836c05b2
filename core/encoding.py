"""Bytes that are the same everywhere: canonical JSON, digests, and files that are whole or absent.

Canonical JSON is RFC 8785 (JCS). A digest is SHA-256, written as 64 lower-case hexadecimal digits.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fedhouse.errors import IntegrityError

_DIGEST = re.compile(r"[0-9a-f]{64}")

# Nothing that fedhouse reads as JSON is larger; a hostile file must not fill the memory.
MAX_JSON_BYTES = 64 * 2**20


def canonical_json(value: Any) -> bytes:
    """`value` as canonical JSON (RFC 8785).

    Raises
    ------
    ValueError
        For what JSON cannot carry exactly: NaN, infinities, integers beyond 2^53.
    """
    import rfc8785

    try:
        return rfc8785.dumps(value)
    except rfc8785.CanonicalizationError as error:
        raise ValueError(f"not expressible as canonical JSON: {error}") from error


def sha256(data: bytes | memoryview) -> str:
    """SHA-256 of `data` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest_of(kind: str, value: Any) -> str:
    """Digest of a JSON value, separated by `kind` so that two kinds never share a digest."""
    return sha256(kind.encode("ascii") + b"\0" + canonical_json(value))


def require_digest(text: str, what: str) -> str:
    """`text` if it is a digest in its one accepted spelling.

    Raises
    ------
    IntegrityError
        Otherwise.
    """
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise IntegrityError(f"{what} is not a SHA-256 digest of 64 lower-case hexadecimal digits.")
    return text


def derive_seed(purpose: str, *parts: str | int) -> int:
    """A seed in [0, 2^63) from a purpose and the parts that identify one use of it.

    Seeds come from names (job, round, silo, partition) and never from an attempt number, so that a
    retried task draws the same randomness.
    """
    text = canonical_json([purpose, *(str(part) for part in parts)])
    return int.from_bytes(hashlib.sha256(b"fedhouse-seed\0" + text).digest()[:8], "big") >> 1


def parse_json(data: bytes | str, what: str) -> Any:
    """Parse JSON strictly: no duplicate keys, no NaN, no oversized input.

    Raises
    ------
    IntegrityError
        If `data` is anything else.
    """
    if len(data) > MAX_JSON_BYTES:
        raise IntegrityError(f"{what} is larger than {MAX_JSON_BYTES >> 20} MiB.")
    try:
        return json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(
            f"{what} is not valid JSON ({type(error).__name__}).", mend="Restore or rebuild it."
        ) from error


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError("duplicate key")
        found[key] = value
    return found


def _refuse_constant(_: str) -> Any:
    raise ValueError("NaN or infinity")


def read_json(path: Path) -> Any:
    """Read a JSON file strictly (see `parse_json`).

    Raises
    ------
    IntegrityError
        If the file is missing, too large or not strict JSON.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {error.strerror}.") from error
    return parse_json(data, str(path))


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file so that a reader sees the whole of it or nothing, also after power loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as canonical JSON, atomically."""
    write_atomic(path, canonical_json(value))
