"""Reading what a person wrote: strict YAML into frozen models, with one-line errors.

Precedence is file < environment < command-line flag; the models that allow it say so.
"""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from fedhouse.errors import ConfigurationError

# A configuration file is written by hand; a larger one is not one.
MAX_YAML_BYTES = 2**20


class FrozenModel(BaseModel):
    """Base of everything that is read from a file: frozen, no unknown keys, no silent casts of strings.

    Its representation leaves out default values, so that errors and logs stay short.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


Model = TypeVar("Model", bound=BaseModel)


class _StrictLoader(yaml.SafeLoader):
    """`SafeLoader` that refuses duplicate keys and aliases (a small file can expand to a huge tree)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.constructor.ConstructorError(None, None, "aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable) or key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, *, error: type[ConfigurationError] = ConfigurationError) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises
    ------
    ConfigurationError
        (or the given subclass) if the file is missing, too large, malformed, has a duplicate key or
        is not a mapping.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_YAML_BYTES + 1)
    except OSError as problem:
        raise error(
            f"{path} cannot be read: {problem.strerror}.", mend="Check the path and its permissions."
        ) from problem
    if len(text) > MAX_YAML_BYTES:
        raise error(f"{path} is larger than 1 MiB.", mend="A configuration file should be short.")
    try:
        value = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a subclass of SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as problem:
        raise error(f"{path} is not valid YAML: {_one_line(problem)}.") from problem
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise error(f"{path} does not hold a mapping of names to values.")
    return value


def parse(
    model: type[Model],
    data: Mapping[str, Any],
    origin: str,
    *,
    error: type[ConfigurationError] = ConfigurationError,
) -> Model:
    """Validate `data` as `model`; `origin` names the file or call in the message.

    Raises
    ------
    ConfigurationError
        (or the given subclass), one line that names the key and what it should be.
    """
    try:
        return model.model_validate(data)
    except ValidationError as problem:
        raise error(f"{origin}: {explain(problem, model)}") from None


def explain(problem: ValidationError, model: type[BaseModel]) -> str:
    """One line for all that pydantic found, first things first."""
    lines = []
    for item in problem.errors(include_input=False, include_url=False, include_context=False)[:4]:
        where = ".".join(str(part) for part in item["loc"]) or "the whole"
        if item["type"] == "extra_forbidden":
            close = difflib.get_close_matches(str(item["loc"][-1]), list(model.model_fields), n=1)
            hint = f"; did you mean '{close[0]}'?" if close else "; remove it."
            lines.append(f"unknown key '{where}'{hint}")
        elif item["type"] == "missing":
            lines.append(f"key '{where}' is missing.")
        else:
            lines.append(f"'{where}': {item['msg'].removeprefix('Value error, ')}.")
    return " ".join(lines)


def _one_line(problem: BaseException) -> str:
    return " ".join(str(problem).split())[:300]
