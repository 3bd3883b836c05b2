"""What goes wrong is one line that says what, where and how to mend it, the right exit code, and no
half-written state. Through the command that a scheduler calls, in one process with the tests' Spark."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from fedhouse.cli.train import train
from fedhouse.errors import (
    FedhouseError,
    JobError,
    ProfileError,
    QualityGateError,
    QuorumError,
    SourceChangedError,
    SourceError,
    TimeLimitError,
    UpdateRejectedError,
    UserCodeError,
)
from fedhouse.spark_jobs import runner as runner_module

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

Rows = Callable[..., pa.Table]
Write = Callable[..., Path]


def _replace(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def _train(workplace: Any, number: int = 0, silo: str = "alpha", **changes: Any) -> None:
    path = workplace.silo_file(silo, **changes)
    run = workplace.folder / "run"
    train(job=workplace.job_file, silo=path, run=run, round_number=number, dry_run=False, json_output=True)


def _refused(workplace: Any, kind: type[FedhouseError], words: str, exit_code: int, number: int = 0) -> None:
    with pytest.raises(kind, match=words) as caught:
        _train(workplace, number)
    assert caught.value.exit_code == exit_code
    assert "\n" not in str(caught.value)
    left = [path.name for path in (workplace.folder / "run" / "silos").rglob("*") if path.is_file()]
    assert not [name for name in left if not name.endswith((".sealed", ".json"))], "half-written files"
    update = [name for name in left if name.startswith(f"{'update' if number else 'statistics'}")]
    assert not update, "a contribution was left behind"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.drop_columns(["age"]), "age"),
        (lambda table: _replace(table, "age", table.column("age").cast(pa.string())), "age"),
        (lambda table: _replace(table, "late", pa.nulls(len(table), pa.int64())), "late"),
        (lambda table: _replace(table, "amount", pa.nulls(len(table), pa.float64())), "amount"),
        (lambda table: _replace(table, "age", pa.array([130] * len(table))), "age"),
        (lambda table: _replace(table, "late", pa.array([2] * len(table))), "late"),
        (lambda table: table.slice(0, 20), "row"),
        (lambda table: table.slice(0, 0), "row"),
    ],
    ids=["missing column", "wrong type", "null label", "nulls", "range", "label set", "few rows", "no rows"],
)
def test_rows_that_are_not_as_declared(
    spark: SparkSession, workplace: Any, rows: Rows, write: Write, change: Any, words: str
) -> None:
    for path in workplace.tables["alpha"].iterdir():
        path.unlink()
    write(workplace.tables["alpha"], change(rows(1)), 1)
    _refused(workplace, QualityGateError, words, 3)
    assert not (workplace.folder / "run" / "silos" / "alpha" / "admission.json").exists()


def test_an_empty_warehouse(spark: SparkSession, workplace: Any) -> None:
    for path in workplace.tables["alpha"].iterdir():
        path.unlink()
    _refused(workplace, QualityGateError, "alpha", 3)


def test_an_unreadable_path(spark: SparkSession, workplace: Any) -> None:
    workplace.tables["alpha"].rename(workplace.folder / "elsewhere")
    _refused(workplace, SourceError, r"Table rows is not there.*Check the profile's root", 2)


def test_a_table_that_changes_between_the_gate_and_the_statistics(
    spark: SparkSession, workplace: Any, rows: Rows, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = runner_module.local_statistics

    def meddle(*arguments: Any) -> Any:
        found = real(*arguments)
        write(workplace.tables["alpha"], rows(9, 10), 1)
        return found

    monkeypatch.setattr(runner_module, "local_statistics", meddle)
    _refused(workplace, SourceChangedError, r"changed after it was pinned: files 1 rewritten", 6)


def test_a_table_that_changes_between_two_rounds(
    spark: SparkSession, workplace: Any, rows: Rows, write: Write
) -> None:
    _train(workplace)
    write(workplace.tables["alpha"], rows(9, 10), 1)
    with pytest.raises(SourceChangedError, match="changed after it was pinned"):
        _train(workplace)


def test_a_round_that_is_not_open_yet(spark: SparkSession, workplace: Any) -> None:
    _refused(workplace, QuorumError, "Round 1 is not open", 4, number=1)


def test_a_profile_with_an_unset_variable(
    spark: SparkSession, workplace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = workplace.silo_file("alpha")
    text = (workplace.folder / "profiles.yaml").read_text()
    root = str(workplace.tables["alpha"].parent)
    (workplace.folder / "profiles.yaml").write_text(
        text.replace(f"root: {root}", "root: \"{{ env_var('UNSET_X') }}\"")
    )
    with pytest.raises(ProfileError, match=r"environment variable UNSET_X, which is not set. Set it"):
        train(
            job=workplace.job_file,
            silo=path,
            run=workplace.folder / "run",
            round_number=0,
            dry_run=False,
            json_output=True,
        )


def test_a_job_file_with_an_unknown_key(spark: SparkSession, workplace: Any) -> None:
    workplace.job_file.write_text(workplace.job_file.read_text() + "epochs: 3\n")
    _refused(workplace, JobError, "unknown key 'epochs'", 2)


@pytest.mark.parametrize(
    ("code", "kind", "words", "exit_code"),
    [
        ("raise ValueError('canary-77')", UserCodeError, "ValueError at small.py:", 1),
        ("import os; os._exit(0)", UserCodeError, "ended its process without a result", 1),
        ("while True: pass", TimeLimitError, "longer than 3 seconds", 4),
        ("model.out.weight.data.fill_(float('nan'))", UpdateRejectedError, "not finite", 1),
        ("model.out = torch.nn.Linear(4, 1); return", UpdateRejectedError, "not of the declared layout", 1),
        ("model.forward = None; model(next(iter(loader))[0])", UserCodeError, "TypeError at small.py", 1),
    ],
    ids=["raises", "exits", "hangs", "NaN", "wrong shape", "forward"],
)
def test_user_code_that_breaks(
    spark: SparkSession, workplace: Any, code: str, kind: type[FedhouseError], words: str, exit_code: int
) -> None:
    source = workplace.folder / "small.py"
    source.write_text(source.read_text().replace("    model.train()\n", f"    model.train()\n    {code}\n"))
    workplace.job_file.write_text(workplace.job_file.read_text() + "bounds: {seconds: 3}\n")
    from fedhouse.simulation import simulate

    with pytest.raises(kind, match=words) as caught:
        simulate(workplace.job(), workplace.tables, out=workplace.folder / "run", spark=spark)
    assert caught.value.exit_code == exit_code
    assert "canary-77" not in str(caught.value)
    assert not list(workplace.folder.rglob("update-*"))
    assert not list((workplace.folder / "run" / "prepared").glob("*/*"))


def test_empty_partitions_are_normal(spark: SparkSession, workplace: Any, rows: Rows, tmp_path: Path) -> None:
    from fedhouse.simulation import simulate

    # 48 rows or so in 40 partitions: about a third of them have none, and many have one, of which
    # a batch norm could make nothing.
    source = workplace.folder / "small.py"
    source.write_text(source.read_text().replace("torch.nn.BatchNorm1d(8)", "torch.nn.Identity()"))
    few = {"alpha": rows(1, 60), "beta": rows(2, 60)}
    job = workplace.job(partitions=40, rounds=1, batch_size=8)
    run = simulate(job, few, out=tmp_path / "run", spark=spark)
    assert len(run.history.rounds) == 1


def test_the_others_go_on_without_a_silo_that_fails_its_gate(
    spark: SparkSession, workplace: Any, rows: Rows, write: Write, capfd: pytest.CaptureFixture[str]
) -> None:
    from fedhouse.simulation import simulate

    for path in workplace.tables["beta"].iterdir():
        path.unlink()
    canary = _replace(rows(2), "age", pa.array([987_654] * 600))
    write(workplace.tables["beta"], _replace(canary, "colour", pa.array(["canary-88"] * 600)), 1)
    run = simulate(workplace.job(), workplace.tables, out=workplace.folder / "run", spark=spark)
    assert set(run.excluded) == {"beta"}
    assert "age" in run.excluded["beta"]
    assert run.history.rounds[-1].contributors == ("alpha", "gamma")
    told = capfd.readouterr()
    text = told.out + told.err + str(dict(run.excluded))
    text += "".join(path.read_text(errors="replace") for path in run.folder.rglob("*.json"))
    assert "canary-88" not in text
    assert "987654" not in text.replace(",", "").replace("_", "")


def test_running_a_round_twice_changes_nothing(spark: SparkSession, workplace: Any) -> None:
    _train(workplace)
    own = workplace.folder / "run" / "silos" / "alpha"
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in own.rglob("*.sealed")}
    assert before
    _train(workplace)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in own.rglob("*.sealed")}
    assert after == before


def test_the_command_tells_one_line_and_its_exit_code(workplace: Any) -> None:
    path = workplace.silo_file("alpha")
    workplace.tables["alpha"].rename(workplace.folder / "elsewhere")
    command = [str(Path(sys.executable).with_name("fedhouse"))]
    command += ["train", "--job", str(workplace.job_file), "--silo", str(path)]
    command += ["--run", str(workplace.folder / "run"), "--round", "0"]
    done = subprocess.run(
        command,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("fedhouse: ")]
    assert len(lines) == 1
    assert "Table rows is not there" in lines[0]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
