"""The lock files are whole, hashed, name no index, and are in step with pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

LOCK = "requirements/lock.txt"
BOOTSTRAP = "requirements/bootstrap.txt"


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text())


def _pins(path: Path) -> dict[str, Version]:
    pins = {}
    for line in path.read_text().splitlines():
        if found := re.match(r"([A-Za-z0-9._-]+)==([^ ;\\]+)", line):
            pins[canonicalize_name(found.group(1))] = Version(found.group(2))
    return pins


def _asked(project: dict[str, Any]) -> list[Requirement]:
    """Every requirement that pyproject.toml names, but for fedhouse's own extras."""
    groups = project["dependency-groups"]
    lines = [*project["project"]["dependencies"], *groups["bootstrap"]]
    lines += [line for extra in project["project"]["optional-dependencies"].values() for line in extra]
    lines += [line for line in groups["dev"] if isinstance(line, str)]
    return [item for line in lines if (item := Requirement(line)).name != "fedhouse"]


def test_every_requirement_is_locked_at_a_version_that_fits(root: Path, project: dict[str, Any]) -> None:
    pins = _pins(root / LOCK)
    asked = _asked(project)
    assert len(asked) > 20
    wrong = [
        str(item)
        for item in asked
        if canonicalize_name(item.name) not in pins
        or not item.specifier.contains(pins[canonicalize_name(item.name)], prereleases=True)
    ]
    assert not wrong, "run make lock"


def test_what_the_lock_says_pyproject_asked_for_is_asked_for(root: Path, project: dict[str, Any]) -> None:
    asked = {canonicalize_name(item.name) for item in _asked(project)}
    current, direct = "", set()
    for line in (root / LOCK).read_text().splitlines():
        if found := re.match(r"([A-Za-z0-9._-]+)==", line):
            current = canonicalize_name(found.group(1))
        elif line.startswith("    #") and "(pyproject.toml" in line:
            direct.add(current)
    assert direct == asked, "run make lock"


@pytest.mark.parametrize("name", [LOCK, BOOTSTRAP])
def test_a_lock_is_hashed_and_names_no_address(root: Path, name: str) -> None:
    text = (root / name).read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-", text.replace("    --hash=sha256:", ""), re.M)
    blocks = re.findall(r"^[A-Za-z0-9].*?(?=^[A-Za-z0-9]|\Z)", text, re.M | re.S)
    assert blocks
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", block) for block in blocks)


def test_the_bootstrap_has_the_versions_of_the_lock(root: Path) -> None:
    lock, bootstrap = _pins(root / LOCK), _pins(root / BOOTSTRAP)
    assert {"uv", "setuptools", "wheel"} <= set(bootstrap)
    assert bootstrap.items() <= lock.items()


def test_no_extra_but_its_own_brings_spark_to_a_cluster(project: dict[str, Any]) -> None:
    extras = project["project"]["optional-dependencies"]
    with_spark = {name for name, lines in extras.items() if any(line.startswith("pyspark") for line in lines)}
    assert with_spark == {"local-spark"}
