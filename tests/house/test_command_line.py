"""The command: light to start, one line an error, the exit codes that the interface promises."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fedhouse import errors

Run = Callable[..., subprocess.CompletedProcess[str]]

HEAVY = [
    "great_expectations",
    "matplotlib",
    "numba",
    "numpy",
    "pandas",
    "pyarrow",
    "pyspark",
    "tenseal",
    "torch",
    "web3",
]
HELPS = [
    [],
    ["demo"],
    ["doctor"],
    ["train"],
    ["job"],
    ["job", "rehearse"],
    ["connector"],
    ["connector", "spark-conf"],
    ["connector", "test"],
    ["bench"],
    ["bench", "training"],
]
_REPORT = f"import sys; print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"


def _python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("command", HELPS, ids=" ".join)
def test_help_loads_nothing_heavy(command: list[str]) -> None:
    code = f"""
import atexit, sys
def report():
    {_REPORT}
atexit.register(report)
from fedhouse.cli.main import run
run()
"""
    done = _python(code, *command, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout
    assert done.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "code", ["import fedhouse", "import fedhouse; dir(fedhouse)", "import fedhouse.doctor"]
)
def test_import_loads_nothing_heavy(code: str) -> None:
    done = _python(f"{code}; {_REPORT}")
    assert done.stderr.splitlines() == ["[]"]


def test_the_doctor_loads_nothing_heavy() -> None:
    done = _python(f"import fedhouse.doctor; fedhouse.doctor.examine(); {_REPORT}")
    assert done.stderr.splitlines() == ["[]"]


def _failing(raises: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the real entry point with one more command, which raises."""
    code = f"""
from fedhouse import errors
from fedhouse.cli.main import app, run
@app.command()
def fail() -> None:
    {raises}
run()
"""
    return _python(code, *arguments, "fail")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ConfigurationError", 2),
        ("ProfileError", 2),
        ("QualityGateError", 3),
        ("QuorumError", 4),
        ("TimeLimitError", 4),
        ("PolicyRefusedError", 5),
        ("VerificationError", 6),
        ("SourceChangedError", 6),
        ("UserCodeError", 1),
        ("SparkFailureError", 1),
    ],
)
def test_each_error_is_one_line_and_its_exit_code(name: str, code: int) -> None:
    assert issubclass(getattr(errors, name), errors.FedhouseError)
    done = _failing(f"raise errors.{name}('What\\nhappened.', mend='Do this.')")
    assert done.returncode == code
    assert done.stderr == "fedhouse: What happened. Do this.\n"
    assert done.stdout == ""


def test_a_foreign_error_shows_its_class_and_not_its_message() -> None:
    done = _failing("raise ValueError('John Smith, 4711')")
    assert done.returncode == 1
    assert "ValueError" in done.stderr
    assert "--debug" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "4711" not in done.stderr


def test_debug_shows_the_traceback_and_keeps_the_exit_code() -> None:
    done = _failing("raise errors.QuorumError('Too few.')", "--debug")
    assert done.returncode == 4
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1] == "fedhouse: Too few."


def test_an_unknown_command_is_a_configuration_error(fedhouse: Run) -> None:
    assert fedhouse("no-such-command").returncode == 2


def test_a_missing_file_is_one_line_and_code_2(fedhouse: Run, tmp_path: Path) -> None:
    for command in (
        ("connector", "spark-conf", str(tmp_path / "none.yaml"), "warehouse"),
        ("job", "rehearse", str(tmp_path / "none.yaml")),
    ):
        done = fedhouse(*command)
        assert done.returncode == 2, command
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "none.yaml" in done.stderr


def test_the_doctor_finds_what_this_environment_has(fedhouse: Run) -> None:
    done = fedhouse("doctor", "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0
    assert told["fit"] is True
    found = {item["name"]: item for item in told["findings"]}
    for name in ("python", "java", "pyspark", "fedhouse[silo]", "loopback"):
        assert found[name]["status"] == "ok"
    assert "torch" in found["fedhouse[silo]"]["found"]


def test_the_doctor_names_the_mending_command_and_exits_2(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("fedhouse")
    done = subprocess.run(
        [str(command), "doctor"],
        env={"JAVA_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "missing java" in " ".join(done.stdout.split())
    assert "JAVA_HOME" in done.stdout


@pytest.mark.parametrize(("java", "name"), [(None, "none"), ("11.0.2", "11"), ("25", "25")])
def test_a_java_that_does_not_fit_is_missing(
    java: str | None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedhouse.doctor import examine

    if java is not None:
        program = tmp_path / "java"
        program.write_text(f"#!/bin/sh\necho 'openjdk version \"{java}\" 2026-01-01' >&2\n")
        program.chmod(0o755)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    examination = examine()
    (finding,) = (item for item in examination.findings if item.name == "java")
    assert not examination.fit
    assert finding.status == "missing"
    assert finding.found == name
    assert re.search("apt-get install openjdk-(17|21)|export JAVA_HOME=/usr/lib/jvm/", finding.mend)


def test_the_doctor_sees_a_package_of_the_wrong_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedhouse.doctor import examine

    # Metadata of another pandas, found before the installed one.
    folder = tmp_path / "pandas-3.0.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: pandas\nVersion: 3.0.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    examination = examine()
    (silo,) = (item for item in examination.findings if item.name == "fedhouse[silo]")
    assert not examination.fit
    assert silo.status == "missing"
    assert "pandas 3.0.0 does not fit" in silo.found
    assert "make install" in silo.mend
    assert "[silo]" in silo.mend
