"""The scripts that set a machine up: which Java is taken, what make offers, how CI ends."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest


def _java(folder: Path, version: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    program = folder / "bin/java"
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2026-01-01' >&2\n")
    program.chmod(0o755)
    return folder


def _chosen(root: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", '. requirements/java.sh && echo "home=${JAVA_HOME-none}"'],
        cwd=root,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("version", ["17.0.15", "21", "21.0.4"])
def test_a_fitting_java_on_the_path_is_left_alone(root: Path, tmp_path: Path, version: str) -> None:
    home = _java(tmp_path / "jdk", version)
    done = _chosen(root, PATH=f"{home}/bin:/usr/bin:/bin")
    assert done.stdout == "home=none\n"
    assert done.stderr == ""


def test_a_fitting_java_home_is_left_alone(root: Path, tmp_path: Path) -> None:
    home = _java(tmp_path / "jdk", "17.0.1")
    assert _chosen(root, PATH="/usr/bin:/bin", JAVA_HOME=str(home)).stdout == f"home={home}\n"


@pytest.mark.parametrize("version", ["1.8.0_402", "11.0.2", "25"])
def test_a_java_that_does_not_fit_is_not_taken(root: Path, tmp_path: Path, version: str) -> None:
    home = _java(tmp_path / "jdk", version)
    # Neither id nor apt-get is on this path, so nothing is installed: another Java is found, or none.
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sed", "head"):
        (tools / name).symlink_to(Path("/usr/bin") / name)
    done = _chosen(root, PATH=f"{home}/bin:{tools}")
    assert str(home) not in done.stdout
    if done.returncode == 0:
        assert re.fullmatch(r"home=/usr/lib/jvm/\S+\n", done.stdout)
    else:
        assert done.returncode == 2
        assert "openjdk-17-jre-headless" in done.stderr


def test_make_offers_what_the_interface_promises(root: Path) -> None:
    told = subprocess.run(["make", "help"], cwd=root, capture_output=True, text=True, check=True).stdout
    offered = set(re.findall(r"make ([a-z-]+)", told))
    assert {"demo", "test", "test-fast", "test-full", "lint", "bench", "install", "lock", "clean"} <= offered


def _ci(root: Path, folder: Path, recipe: str) -> subprocess.CompletedProcess[str]:
    """The real script over a Makefile whose tests end as `recipe` says."""
    (folder / ".ci").mkdir()
    (folder / ".ci/run").write_bytes((root / ".ci/run").read_bytes())
    (folder / ".ci/run").chmod(0o755)
    (folder / "Makefile").write_text(f"lint:\n\t@echo linted\ntest:\n\t@{recipe}\n")
    environ = {"PATH": os.environ["PATH"], "CI": "true"}
    return subprocess.run(
        [str(folder / ".ci/run")],
        env=environ,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


PASSED = "========== 12 passed, 1 skipped in 61.02s (0:01:01) =========="
FAILED = "========== 1 failed, 11 passed in 3.02s =========="


def test_ci_ends_with_the_closing_line(root: Path, tmp_path: Path) -> None:
    done = _ci(root, tmp_path, f"echo '{PASSED}'; echo 'JVM is shutting down' >&2")
    assert done.returncode == 0
    assert "linted" in done.stdout
    assert done.stdout.splitlines()[-1] == PASSED


def test_ci_fails_when_a_test_does(root: Path, tmp_path: Path) -> None:
    done = _ci(root, tmp_path, f"echo '{FAILED}'; exit 1")
    assert done.returncode != 0
    assert done.stdout.splitlines()[-1] == FAILED


def test_ci_fails_when_the_tests_never_ran(root: Path, tmp_path: Path) -> None:
    assert _ci(root, tmp_path, "true").returncode != 0
