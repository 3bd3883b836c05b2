"""A job's code and first weights as a **bundle**: files with a digest, no pickle anywhere.

Invariants
----------
1. The digest covers everything that runs: every source file, the entries, the weights, the layout of
   the update, the arguments and the bounds. Two bundles with one digest run the same code.
2. A bundle is read back only if every file has the digest that the manifest names, and no file lies
   in it that the manifest does not name.
3. Source files are UTF-8 text under relative paths without `..`; weights are safetensors bytes.

On disk::

    bundle/manifest.json
    bundle/src/late.py
    bundle/weights.safetensors
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fedhouse.encoding import canonical_json, digest_of, read_json, sha256, write_atomic
from fedhouse.errors import BundleError, IntegrityError
from fedhouse.types import ParameterLayout

_FORMAT = "fedhouse-bundle/1"
_SOURCE_PATH = re.compile(r"([A-Za-z_][A-Za-z0-9_]*/)*[A-Za-z_][A-Za-z0-9_]*\.py")
MAX_SOURCE_BYTES = 4 * 2**20

# Weights travel to executors inside the task's closure, which Spark Connect limits to 100 MB.
MAX_WEIGHT_BYTES = 96 * 10**6


@dataclass(frozen=True, slots=True)
class Entries:
    """`module:function` of everything that fedhouse calls in a bundle."""

    model: str
    train: str
    evaluate: str
    predict: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The entries as a JSON value."""
        return {
            "model": self.model,
            "train": self.train,
            "evaluate": self.evaluate,
            "predict": self.predict,
        }


@dataclass(frozen=True, slots=True)
class Bundle:
    """Sources, entries, first weights and declared bounds of a job."""

    sources: Mapping[str, str]
    entries: Entries
    weights: bytes
    layout: ParameterLayout
    model_args: Mapping[str, Any]
    train_args: Mapping[str, Any]
    bounds: Mapping[str, int]

    def __post_init__(self) -> None:
        for path, text in self.sources.items():
            if not _SOURCE_PATH.fullmatch(path):
                raise BundleError(
                    f"{path[:120]!r} cannot be a source file of a bundle.",
                    mend="Use relative paths of Python identifiers that end in .py.",
                )
            if len(text.encode()) > MAX_SOURCE_BYTES:
                raise BundleError(f"Source file {path} is larger than 4 MiB.")
        if len(self.weights) > MAX_WEIGHT_BYTES:
            raise BundleError(
                f"The model's weights take {len(self.weights) / 1e6:.0f} MB, more than "
                f"{MAX_WEIGHT_BYTES / 1e6:.0f} MB.",
                mend="Use a smaller model.",
            )
        limit = self.bounds.get("parameters")
        if limit is not None and self.layout.size > limit:
            raise BundleError(
                f"The model has {self.layout.size:,} parameters, more than the declared bound of {limit:,}.",
                mend="Raise bounds.parameters in the job.",
            )
        for entry in (self.entries.model, self.entries.train, self.entries.evaluate, self.entries.predict):
            if entry is None or entry.startswith("fedhouse:"):
                continue
            module = entry.partition(":")[0]
            if f"{module}.py" not in self.sources:
                raise BundleError(
                    f"Entry {entry} names module {module}, and {module}.py is not in the bundle.",
                    mend="Put the file beside the job file.",
                )

    def manifest(self) -> dict[str, Any]:
        """What the digest covers, as a JSON value."""
        return {
            "format": _FORMAT,
            "sources": {path: sha256(text.encode()) for path, text in sorted(self.sources.items())},
            "entries": self.entries.to_json(),
            "weights": sha256(self.weights),
            "layout": self.layout.to_json(),
            "model_args": dict(self.model_args),
            "train_args": dict(self.train_args),
            "bounds": dict(self.bounds),
        }

    @property
    def digest(self) -> str:
        """Digest of the manifest: what a silo approves."""
        return digest_of(_FORMAT, self.manifest())

    def save(self, directory: Path) -> None:
        """Write the bundle; the manifest comes last, so that a torn copy does not read back."""
        for path, text in self.sources.items():
            write_atomic(directory / "src" / path, text.encode())
        write_atomic(directory / "weights.safetensors", self.weights)
        write_atomic(directory / "manifest.json", canonical_json(self.manifest()))

    @classmethod
    def load(cls, directory: Path, *, expected: str | None = None) -> Bundle:
        """Read a bundle and check every byte of it.

        Raises
        ------
        IntegrityError
            If a file is missing, changed, or not named; or if the digest is not the expected one.
        """
        manifest = read_json(directory / "manifest.json")
        try:
            sources = {
                path: _read(directory / "src" / path, digest, MAX_SOURCE_BYTES).decode()
                for path, digest in manifest["sources"].items()
                if _safe(path)
            }
            bundle = cls(
                sources=sources,
                entries=Entries(**manifest["entries"]),
                weights=_read(directory / "weights.safetensors", manifest["weights"], MAX_WEIGHT_BYTES),
                layout=ParameterLayout.from_json(manifest["layout"]),
                model_args=manifest["model_args"],
                train_args=manifest["train_args"],
                bounds=manifest["bounds"],
            )
        except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
            raise IntegrityError(f"{directory}/manifest.json is malformed.") from error
        present = {
            str(path.relative_to(directory / "src"))
            for path in (directory / "src").rglob("*")
            if path.is_file() or path.is_symlink()
        }
        if present != set(sources) or bundle.manifest() != manifest:
            raise IntegrityError(f"{directory} holds files or keys that its manifest does not name.")
        if expected is not None and bundle.digest != expected:
            raise IntegrityError(f"{directory} is another bundle than the approved one.")
        return bundle


def _safe(path: str) -> bool:
    if not _SOURCE_PATH.fullmatch(path) or ".." in PurePosixPath(path).parts:
        raise IntegrityError(f"A manifest names the source path {path[:120]!r}.")
    return True


def _read(path: Path, digest: str, limit: int) -> bytes:
    try:
        if path.is_symlink():
            raise IntegrityError(f"{path} is a link.")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > limit or sha256(data) != digest:
        raise IntegrityError(f"{path} has not the digest that the manifest names.")
    return data
