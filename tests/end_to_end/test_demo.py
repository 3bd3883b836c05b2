"""The demo as a newcomer runs it, small: two airlines, two rounds; then again over an older run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.spark, pytest.mark.slow]


def _demo(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("fedhouse")), "demo", "--silos", "2", "--rounds", "2"]
    kept = ("PATH", "HOME", "JAVA_HOME", "LANG", "TMPDIR")
    return subprocess.run(
        [*command, "--out", str(out), *options],
        cwd="/",
        env={name: os.environ[name] for name in kept if name in os.environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo that went well."""
    out = tmp_path_factory.mktemp("demo") / "out"
    done = _demo(out)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "AUC" in done.stdout
    assert "insecure reference" in done.stdout
    return out


def _report(out: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((out / "report.json").read_text())
    return told


def test_it_reports_what_it_did_and_invents_nothing(out: Path) -> None:
    told = _report(out)
    assert told["silos"] == 2
    assert told["rounds"] == 2
    assert told["rows"] > 50_000
    for way in ("auc", "auc_stopped_early"):
        assert all(0.5 < value < 1 for value in told[way].values())
    # A model stopped by its own rows is not worse on those, but may be on everybody's: no order holds.
    assert set(told["auc_single_silo"]) == {"B6", "UA"}
    assert told["seconds"]["total"] > told["seconds"]["training"] > 0
    assert told["payouts"] is None
    assert told["bytes_per_parameter"] == pytest.approx(2.0, abs=0.05)


def test_the_page_shows_pictures_and_loads_nothing(out: Path) -> None:
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 3
    assert "http://www.w3.org" in page  # namespaces of the pictures
    assert not [word for word in ("<script", "src=", "@import") if word in page]


def test_each_airline_has_its_own_warehouse_and_no_copy_stays(out: Path) -> None:
    tables = [path.name for path in (out / "airlines").iterdir() if (path / "warehouse").is_dir()]
    assert sorted(tables) == ["B6", "UA"]
    assert not list((out / "run" / "prepared").glob("*/*"))


def test_resuming_a_finished_run_gives_the_same_model(out: Path) -> None:
    before = _report(out)
    done = _demo(out, "--resume")
    assert done.returncode == 0, done.stderr[-3000:]
    assert _report(out)["model_digest"] == before["model_digest"]
    assert _report(out)["auc"] == before["auc"]


def test_a_second_run_from_nothing_gives_the_same_bits(out: Path) -> None:
    before = _report(out)
    done = _demo(out)
    assert done.returncode == 0, done.stderr[-3000:]
    assert _report(out)["model_digest"] == before["model_digest"]
    assert _report(out)["auc_single_silo"] == before["auc_single_silo"]


def test_there_is_nothing_to_resume_in_an_empty_folder(tmp_path: Path) -> None:
    done = _demo(tmp_path / "none", "--resume")
    assert done.returncode == 2
    assert "holds no run to resume" in done.stderr
    assert done.stdout == ""
