"""Profiles: how a warehouse is reached, in a file that holds no secret.

The layout is dbt's: a profile has targets, of which one is the default::

    warehouse:
      target: prod
      outputs:
        prod: {type: parquet, root: "s3a://bank/lake"}
        dev:  {type: parquet, root: "{{ env_var('LAKE', '/tmp/lake') }}"}

A value may refer to the environment, ``{{ env_var('NAME') }}`` or ``{{ env_var('NAME', 'default') }}``,
and to a file, ``{{ file('/run/secrets/name') }}``. Nothing else is a template. What came from a
reference is a `Secret`: it shows itself as ``***`` wherever it is printed, and does not pickle.

Only the profile that is asked for is resolved, so an unset variable of another one does no harm.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import Field

from fedhouse.config import FrozenModel, parse, read_yaml
from fedhouse.dataset import Name
from fedhouse.errors import ProfileError

_REFERENCE = re.compile(r"\{\{\s*(env_var|file)\(\s*'([^'{}]*)'\s*(?:,\s*'([^'{}]*)'\s*)?\)\s*\}\}")
_MAX_SECRET_BYTES = 64 * 2**10


class Secret:
    """Text that does not show itself. `reveal` gives it to who must have it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text. Never to be logged, put into Spark's configuration or into an exception."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, _: str) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(Secret)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


Value = str | int | float | bool | Secret


@dataclass(frozen=True, slots=True)
class Profile:
    """One target of one profile, resolved. `options` are the connector's own; secrets among them are
    `Secret`."""

    name: str
    type: str
    target: str
    options: Mapping[str, Value | Mapping[str, Value]]

    def text(self, key: str) -> str:
        """A required option as text, revealed if it is a secret.

        Raises
        ------
        ProfileError
            If it is missing or not text.
        """
        value = self.options.get(key)
        if isinstance(value, Secret):
            return value.reveal()
        if not isinstance(value, str) or not value:
            raise ProfileError(
                f"Profile {self.name}, target {self.target}: '{key}' is missing.",
                mend=f"Set it in the profile's output {self.target}.",
            )
        return value

    def known(self, *keys: str) -> None:
        """Check that the profile has no other options than these.

        Raises
        ------
        ProfileError
            Naming the first unknown one.
        """
        for key in self.options:
            if key not in keys:
                raise ProfileError(
                    f"Profile {self.name}, target {self.target}: unknown key '{key}'.",
                    mend=f"A {self.type} profile has: type, {', '.join(keys)}.",
                )


class _Written(FrozenModel):
    target: Name
    outputs: dict[Name, dict[str, Any]] = Field(min_length=1)


class Profiles(Mapping[str, Profile]):
    """The profiles of a file; each is resolved when it is asked for."""

    def __init__(
        self, origin: str, written: Mapping[str, Any], target: str | None, environ: Mapping[str, str]
    ) -> None:
        self._origin, self._written, self._target, self._environ = origin, written, target, environ

    def __iter__(self) -> Iterator[str]:
        return iter(self._written)

    def __len__(self) -> int:
        return len(self._written)

    def __repr__(self) -> str:
        return f"Profiles({self._origin!r}, {', '.join(self._written)})"

    def __contains__(self, name: object) -> bool:
        return name in self._written

    def __getitem__(self, name: str) -> Profile:
        """The profile, resolved.

        Raises
        ------
        ProfileError
            If it is not there, is malformed, or refers to a variable or file that is not there.
        """
        if name not in self._written:
            raise ProfileError(
                f"{self._origin} has no profile '{name}'.",
                mend=f"It has {', '.join(self._written) or 'none'}.",
            )
        entry = self._written[name]
        where = f"{self._origin}, profile {name}"
        written = parse(_Written, entry if isinstance(entry, dict) else {}, where, error=ProfileError)
        target = self._target or written.target
        if target not in written.outputs:
            raise ProfileError(
                f"{where} has no target '{target}'.", mend=f"It has {', '.join(written.outputs)}."
            )
        output = dict(written.outputs[target])
        kind = output.pop("type", None)
        if not isinstance(kind, str):
            raise ProfileError(f"{where}, target {target}: 'type' is missing.", mend="Write type: parquet.")
        place = f"{where}, target {target}"
        options = {str(key): self._resolve(value, f"{place}, key {key}") for key, value in output.items()}
        return Profile(name, kind, target, options)

    def _resolve(self, value: Any, where: str, *, nested: bool = False) -> Any:
        if isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, str):
            return self._expand(value, where)
        if isinstance(value, dict) and not nested:
            return {
                str(key): self._resolve(item, f"{where}.{key}", nested=True) for key, item in value.items()
            }
        raise ProfileError(f"{where} must be text, a number or a mapping of them.")

    def _expand(self, text: str, where: str) -> str | Secret:
        if _REFERENCE.sub("", text).count("{{") or _REFERENCE.sub("", text).count("}}"):
            raise ProfileError(
                f"{where} holds a template that is not understood.",
                mend="Write {{ env_var('NAME') }} or {{ file('/path') }}.",
            )
        if not _REFERENCE.search(text):
            return text
        return Secret(_REFERENCE.sub(lambda found: self._look_up(found, where), text))

    def _look_up(self, found: re.Match[str], where: str) -> str:
        kind, name, default = found.groups()
        if kind == "env_var":
            value = self._environ.get(name, default)
            if value is None:
                raise ProfileError(
                    f"{where} refers to the environment variable {name}, which is not set.", mend="Set it."
                )
            return value
        if default is not None:
            raise ProfileError(f"{where}: file() takes one path.")
        try:
            with Path(name).open("rb") as file:
                data = file.read(_MAX_SECRET_BYTES + 1)
            if len(data) > _MAX_SECRET_BYTES:
                raise ProfileError(f"{where} refers to {name}, which is larger than 64 KiB.")
            return data.decode().rstrip("\n")
        except (OSError, ValueError) as error:
            raise ProfileError(
                f"{where} refers to {name}, which cannot be read ({type(error).__name__}).",
                mend="Check the path and its permissions.",
            ) from None


def load_profiles(
    path: Path, *, target: str | None = None, environ: Mapping[str, str] | None = None
) -> Profiles:
    """Read a profiles file; `target` overrides each profile's own default.

    Raises
    ------
    ProfileError
        If the file is malformed. A profile's own faults are raised when it is asked for.
    """
    written = read_yaml(path, error=ProfileError)
    return Profiles(str(path), written, target, os.environ if environ is None else environ)
