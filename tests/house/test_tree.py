"""What must not stand in the tree: names of one machine, registries, imports that bypass the package."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

# Put together from parts, so that this file passes its own test.
HOSTS = [
    "pypi" + ".org",
    "pythonhosted" + ".org",
    "download.pytorch" + ".org",
    "repo1.maven" + ".org",
    "repo.maven.apache" + ".org",
    "registry.npmjs" + ".org",
    "proxy.golang" + ".org",
    "deb.debian" + ".org",
    "archive.ubuntu" + ".com",
]
MACHINE = [
    re.compile(r"(?<![\w.~-])/(?:work|root|home)/"),
    re.compile(r"(?<![\w.~-])/opt/wheels"),
    re.compile(r"\.\./shared\b"),
    re.compile("index" + "-url|extra-" + "index|find" + "-links"),
]
# Writing the lock names the option that keeps indexes out of it.
ALLOWED = ["--no-emit-" + "index-url"]
BINARY = {".png", ".jpg", ".parquet", ".safetensors", ".gz", ".zip", ".ico"}


def _texts(root: Path, files: list[str]) -> Iterator[tuple[str, str]]:
    for name in files:
        if Path(name).suffix not in BINARY:
            yield name, (root / name).read_text()


def _sources(root: Path, files: list[str]) -> Iterator[tuple[str, str]]:
    """Every Python source: modules, scripts, and the code cells of notebooks."""
    for name in files:
        if name.endswith(".py"):
            yield name, (root / name).read_text()
        elif name.endswith(".ipynb"):
            cells = json.loads((root / name).read_text())["cells"]
            code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
            lines = [
                line for line in "\n".join(code).splitlines() if not line.lstrip().startswith(("%", "!"))
            ]
            yield name, "\n".join(lines)


def test_no_file_names_a_registry_or_a_machine(root: Path, files: list[str]) -> None:
    found = []
    for name, text in _texts(root, files):
        for allowed in ALLOWED:
            text = text.replace(allowed, "")
        for number, line in enumerate(text.splitlines(), 1):
            if any(host in line for host in HOSTS) or any(pattern.search(line) for pattern in MACHINE):
                found.append(f"{name}:{number}")
    found = [place for place in found if not place.startswith("tests/house/test_tree.py:")]
    assert not found


@pytest.mark.parametrize("line", ["see https://" + HOSTS[0], "cd /" + "work/x", "--" + "index-url=http://x"])
def test_the_patterns_find_what_they_are_for(line: str) -> None:
    assert any(host in line for host in HOSTS) or any(pattern.search(line) for pattern in MACHINE)


def test_folders_are_never_imported_by_their_own_names(root: Path, files: list[str]) -> None:
    folders = {"chain_adapters", "connectors", "core", "federation", "governance", "secure_agg", "spark_jobs"}
    found = []
    for name, source in _sources(root, files):
        for node in ast.walk(ast.parse(source, filename=name)):
            imported: list[str] = []
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported = [node.module or ""]
            found += [f"{name}:{node.lineno}" for item in imported if item.split(".")[0] in folders]
    assert not found


def test_every_module_says_what_it_is(root: Path, packaged: dict[str, str]) -> None:
    sources = [name for name in packaged if name.endswith(".py")]
    assert not [name for name in sources if not ast.get_docstring(ast.parse((root / name).read_text()))]


def test_every_public_function_and_class_of_a_module_says_what_it_is(
    root: Path, packaged: dict[str, str]
) -> None:
    silent = []
    for name in packaged:
        if not name.endswith(".py") or name == "core/demo/late.py":
            continue
        for node in ast.parse((root / name).read_text()).body:
            named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if named and not node.name.startswith("_") and not ast.get_docstring(node):
                silent.append(f"{name}:{node.lineno} {node.name}")
    assert not silent


def test_no_module_is_a_drawer_for_odds_and_ends(packaged: dict[str, str]) -> None:
    drawers = {"utils.py", "util.py", "helpers.py", "common.py", "misc.py"}
    assert not [name for name in packaged if Path(name).name in drawers]


def test_tests_have_no_packages(files: list[str]) -> None:
    assert not [name for name in files if name.startswith("tests/") and name.endswith("__init__.py")]


def test_nothing_installs_fedhouse_by_its_bare_name(root: Path, files: list[str]) -> None:
    """It is on no package index: whoever takes the name there would be run on our users' clusters."""
    bare = re.compile("pip" + r"\s+install\s+[\"']?fedhouse")
    assert not [name for name, text in _texts(root, files) if bare.search(text)]
