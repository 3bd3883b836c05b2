"""What the tests of the house share: the source tree and its files, as git sees them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# docs/adr/0001: the folder at the top, and the package it becomes.
MAPPING = {
    "core": "fedhouse",
    "chain_adapters": "fedhouse/chain_adapters",
    "connectors": "fedhouse/connectors",
    "federation": "fedhouse/federation",
    "governance": "fedhouse/governance",
    "secure_agg": "fedhouse/secure_agg",
    "spark_jobs": "fedhouse/spark_jobs",
}


@pytest.fixture(scope="session")
def root(request: pytest.FixtureRequest) -> Path:
    """The top of the source tree."""
    return request.config.rootpath


@pytest.fixture(scope="session")
def files(root: Path) -> list[str]:
    """Every file that is in git or would be by `git add`, relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return sorted(name for name in set(listed.split("\0")) if name and (root / name).is_file())


@pytest.fixture(scope="session")
def packaged(files: list[str]) -> dict[str, str]:
    """Path in the source tree to path in the wheel, of every file of the package."""
    found = {}
    for name in files:
        folder, _, rest = name.partition("/")
        if folder in MAPPING and rest:
            found[name] = f"{MAPPING[folder]}/{rest}"
    return found


@pytest.fixture(scope="session")
def modules(packaged: dict[str, str]) -> list[str]:
    """Dotted names of all modules of the package."""
    sources = (path.removesuffix(".py") for path in packaged.values() if path.endswith(".py"))
    return sorted(path.removesuffix("/__init__").replace("/", ".") for path in sources)


@pytest.fixture(scope="session")
def fedhouse(root: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the installed command, never activated, from the root of the file system."""
    command = Path(sys.executable).with_name("fedhouse")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(command), *arguments],
            cwd="/",
            env={"HOME": str(Path.home()), "PATH": "/usr/bin:/bin", "COLUMNS": "200", "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run
