"""A wheel, a lenient and a strict editable install each give every module, wherever Python is started."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_IMPORT_ALL = """
import importlib, json, sys
names = json.loads(sys.argv[1])
for name in names:
    importlib.import_module(name)
import fedhouse
print(json.dumps({"at": fedhouse.__file__, "loaded": [name for name in names if name in sys.modules]}))
"""


@dataclass(frozen=True)
class Install:
    """A virtual environment with fedhouse in it, and where its modules must come from."""

    python: Path
    expected: Path


def _run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, root: Path, files: list[str]) -> Path:
    """A copy of the tree as a clone would be: no build folder, no links of another install."""
    copy = tmp_path_factory.mktemp("source")
    for name in files:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built offline with the locked setuptools."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = shutil.copytree(source, folder / "tree")
    uv = Path(sys.executable).with_name("uv")
    _run(
        uv,
        "build",
        "--wheel",
        "--offline",
        "--no-build-isolation",
        "--python",
        sys.executable,
        "--out-dir",
        folder,
        tree,
        cwd=folder,
    )
    (built,) = folder.glob("fedhouse-*.whl")
    return built


@pytest.fixture(scope="module", params=["wheel", "lenient", "strict"])
def install(
    request: pytest.FixtureRequest, source: Path, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Install:
    """Each kind of install in an environment of its own; what it depends on comes from this one."""
    folder = tmp_path_factory.mktemp(request.param)
    uv = Path(sys.executable).with_name("uv")
    _run(uv, "venv", "-q", "--offline", "--python", sys.executable, folder / "env", cwd=folder)
    python = folder / "env/bin/python"
    (site,) = (folder / "env/lib").glob("python3.*/site-packages")
    # A .pth file inside a folder that a .pth file names is not read: our own fedhouse stays out.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    tree = shutil.copytree(source, folder / "tree")
    what: list[str | Path] = [wheel]
    if request.param != "wheel":
        what = [
            "--no-build-isolation",
            "--editable",
            tree,
            f"--config-settings=editable_mode={request.param}",
        ]
    _run(uv, "pip", "install", "-q", "--offline", "--no-deps", "--python", python, *what, cwd=folder)
    expected = {"wheel": site, "lenient": tree / "core", "strict": tree / "build"}[request.param]
    return Install(python, expected)


@pytest.mark.parametrize("inside", [True, False], ids=["inside the tree", "outside"])
def test_every_module_imports(install: Install, inside: bool, source: Path, modules: list[str]) -> None:
    told = _run(
        install.python, "-c", _IMPORT_ALL, json.dumps(modules), cwd=source if inside else Path("/")
    ).splitlines()[-1]
    result = json.loads(told)
    assert result["loaded"] == modules
    assert Path(result["at"]).is_relative_to(install.expected)


def test_the_command_works_without_activation(install: Install) -> None:
    told = _run(install.python.with_name("fedhouse"), "--version", cwd=Path("/"))
    assert told.startswith("fedhouse ")


def test_the_wheel_holds_the_tree_and_nothing_else(wheel: Path, packaged: dict[str, str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name for name in names if ".dist-info/" not in name} == set(packaged.values())


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
        folder = metadata.removesuffix("METADATA")
        entry_points = archive.read(folder + "entry_points.txt").decode()
        licences = [name for name in archive.namelist() if name == folder + "licenses/LICENSE"]
    assert "License-Expression: Apache-2.0" in text
    assert "fedhouse = fedhouse.cli.main:run" in entry_points
    assert "[fedhouse.connectors]" in entry_points
    assert licences
