"""What the documents say can be done as they say it: commands, options, make targets, links."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

FENCE = re.compile(r"^```[a-z]*\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.fixture(scope="module")
def documents(root: Path, files: list[str]) -> dict[str, str]:
    return {name: (root / name).read_text() for name in files if name.endswith(".md")}


def _commands(text: str, program: str) -> Iterator[list[str]]:
    """The words after `program` of every line in a fenced block that calls it."""
    for block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and Path(words[0]).name == program:
                yield words[1:]


def test_the_readme_shows_the_command(documents: dict[str, str]) -> None:
    assert list(_commands(documents["README.md"], "fedhouse"))
    assert ["demo"] in list(_commands(documents["README.md"], "make"))
    assert ["test"] in list(_commands(documents["README.md"], "make"))


def test_every_documented_command_and_option_exists(documents: dict[str, str], fedhouse: Run) -> None:
    wrong = []
    for name, text in documents.items():
        for words in _commands(text, "fedhouse"):
            told, path = fedhouse("--help").stdout, []
            for word in words:
                if not re.search(rf"│ {re.escape(word)}\s", told) or word.startswith("-"):
                    break
                path.append(word)
                told = fedhouse(*path, "--help").stdout
            known = set(re.findall(r"(?<![\w-])--[a-z-]+", told))
            options = {word.split("=")[0] for word in words if word.startswith("--")}
            if not options <= known | {"--version", "--debug"} or (not path and not options):
                wrong.append(f"{name}: fedhouse {shlex.join(words)}")
    assert not wrong


def test_every_documented_make_target_exists(root: Path, documents: dict[str, str]) -> None:
    told = subprocess.run(["make", "help"], cwd=root, capture_output=True, text=True, check=True).stdout
    offered = set(re.findall(r"make ([a-z-]+)", told))
    wrong = []
    for name, text in documents.items():
        for words in _commands(text, "make"):
            wrong += [f"{name}: make {word}" for word in words if "=" not in word and word not in offered]
    assert not wrong


def test_every_link_inside_the_tree_leads_somewhere(root: Path, documents: dict[str, str]) -> None:
    wrong = []
    for name, text in documents.items():
        for target in LINK.findall(text):
            if "://" not in target and not target.startswith("mailto:"):
                there = (root / name).parent / target
                if not there.exists():
                    wrong.append(f"{name}: {target}")
    assert not wrong


def test_every_decision_has_its_parts(documents: dict[str, str]) -> None:
    decisions = {name: text for name, text in documents.items() if name.startswith("docs/adr/0")}
    numbers = sorted(int(Path(name).name[:4]) for name in decisions)
    assert numbers == list(range(1, len(numbers) + 1))
    for name, text in decisions.items():
        for part in ("## Context", "## Decision", "## Rejected", "## Consequences"):
            assert part in text, f"{name} has no '{part}'"


@pytest.mark.slow
def test_the_files_in_the_readme_work(
    root: Path, documents: dict[str, str], fedhouse: Run, tmp_path: Path
) -> None:
    job, silo, profiles = re.findall(r"^```yaml\n(.*?)^```", documents["README.md"], re.M | re.S)
    for name, text in (("job.yaml", job), ("silo.yaml", silo), ("profiles.yaml", profiles)):
        (tmp_path / name).write_text(text)
    for name in ("late.py", "flights.dataset.yaml"):
        (tmp_path / name).write_bytes((root / "core/demo" / name).read_bytes())
    rehearsed = fedhouse("job", "rehearse", str(tmp_path / "job.yaml"), "--rows", "200", "--json")
    assert rehearsed.returncode == 0, rehearsed.stderr
    assert json.loads(rehearsed.stdout)["metrics"].keys() >= {"auc", "loss"}
    # The profile's reference is not set here: one line that names it, and no value.
    unset = fedhouse("connector", "spark-conf", str(tmp_path / "profiles.yaml"), "warehouse")
    assert unset.returncode == 2
    assert "WAREHOUSE_ROOT" in unset.stderr
    files = ["--job", "job.yaml", "--silo", "silo.yaml", "--run", "run", "--round", "0"]
    there = [str(tmp_path / word) if word in ("job.yaml", "silo.yaml", "run") else word for word in files]
    (tmp_path / "profiles.yaml").write_text(
        profiles.replace("{{ env_var('WAREHOUSE_ROOT') }}", str(tmp_path / "warehouse"))
    )
    dry = fedhouse("train", *there, "--dry-run", "--json")
    assert dry.returncode == 0, dry.stderr
    assert json.loads(dry.stdout)["silo"] == "AA"
