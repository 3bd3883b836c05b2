"""The commands of governance as people type them: approve, permit, stop, look, publish, pack, verify."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fedhouse.jobs import load_job
from fedhouse.local_consortium import KeyFolder, LocalConsortium

pytestmark = pytest.mark.slow

SILOS = ("alpha", "beta", "gamma", "delta")
HEAVY = ("pyspark", "torch", "tenseal", "web3", "numpy", "pyarrow", "pandas", "matplotlib")


class Desk:
    """A consortium's folder, and somebody who types commands."""

    def __init__(self, folder: Path, job: Any) -> None:
        self.folder, self.job = folder, job
        self.keys = KeyFolder(folder / "keys")

    def __call__(self, *words: str, by: str | None = None, code: int = 0, **environment: str) -> str:
        """Run a command; its standard output. `by` is the actor whose key signs."""
        signing = ["--key", str(self.keys.path(by)), "--password-file", str(self.keys.password_file)]
        command = [str(Path(sys.executable).with_name("fedhouse")), *words, *(signing if by else [])]
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        done = subprocess.run(
            command,
            cwd="/",
            env=kept | {"FEDHOUSE_LEDGER": str(self.folder), "COLUMNS": "160", "NO_COLOR": "1"} | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stderr + done.stdout
        if code:
            lines = [line for line in done.stderr.splitlines() if line.startswith("fedhouse: ")]
            assert len(lines) == 1, done.stderr
            assert "Traceback" not in done.stderr
            return done.stdout + lines[0]
        return done.stdout

    def json(self, *words: str, by: str | None = None, code: int = 0) -> Any:
        """The JSON that a command prints."""
        told = self(*words, "--json", by=by, code=code)
        return json.loads(told.splitlines()[0])


@pytest.fixture
def desk(workplace: Any, tmp_path: Path) -> Desk:
    """Four members; their dataset is registered and permitted; a first version of the job is approved."""
    place = tmp_path / "consortium"
    job = load_job(workplace.job_file)
    desk = Desk(place, job)
    with LocalConsortium.open(place, SILOS, signers=desk.keys) as consortium:
        consortium.propose(job)
        source = workplace.folder / "small.py"
        source.write_text(
            source.read_text().replace("Linear(features, 8)", "Linear(features, 8, bias=False)")
        )
        desk.job = load_job(workplace.job_file, {"rounds": 3})
        desk.job.save(place / "jobs" / desk.job.digest)
        from fedhouse.proposals import proposal

        consortium.journal("alpha/owner-1").require(
            "proposed-second", "job.proposed", proposal(desk.job, SILOS)
        )
    return desk


def test_a_person_reads_what_will_run_and_lets_it(desk: Desk) -> None:
    name = desk.job.digest[:12]
    listed = {row["job"]: row for row in desk.json("job", "list")}
    assert listed[desk.job.digest]["status"] == "proposed"
    shown = desk("job", "show", name)
    assert "class Net(torch.nn.Module)" in shown
    assert "-        self.hidden = torch.nn.Linear(features, 8)" in shown
    assert "+        self.hidden = torch.nn.Linear(features, 8, bias=False)" in shown
    assert "rows: age, amount, colour, day, id, late" in shown
    assert "seconds 600" in shown
    told = desk("job", "approve", name, by="alpha/owner-1", code=5)
    assert "role" in told or "four-eyes" in told
    assert desk.json("job", "approve", name, by="beta/officer-1")["status"] == "proposed"
    assert desk.json("job", "approve", name, by="gamma/officer-1")["status"] == "approved"
    assert desk.json("job", "approve", name, by="gamma/officer-1")["status"] == "approved", "twice is once"
    desk("job", "decline", name, by="gamma/officer-1")
    desk("job", "cancel", name, by="beta/officer-1", code=5)
    assert desk.json("job", "cancel", name, by="alpha/owner-1")["status"] == "cancelled"
    assert "closed" in desk("job", "approve", name, by="delta/officer-1", code=5)


def test_files_that_are_not_the_proposed_ones_are_not_approved(desk: Desk) -> None:
    (source,) = (desk.folder / "jobs" / desk.job.digest / "bundle" / "src").glob("*.py")
    source.write_text(source.read_text() + "\n# nobody will notice\n")
    told = desk("job", "approve", desk.job.digest, by="beta/officer-1", code=6)
    assert source.name in told


def test_permissions_and_stops(desk: Desk) -> None:
    columns = "id,day,amount,age,colour,late"
    given = desk.json(
        *("permission", "give", "--dataset", "rows", "--purpose", "research", "--columns", columns),
        by="beta/officer-1",
    )
    (row,) = desk.json("dataset", "show", "beta/rows")
    assert {item["purpose"] for item in row["permitted"]} == {"model-training", "research"}
    desk("permission", "withdraw", given["permission"][:16], by="alpha/officer-1", code=5)
    desk("permission", "withdraw", given["permission"][:16], by="beta/officer-1")
    desk("permission", "withdraw", given["permission"][:16], by="beta/officer-1", code=2)
    stop = desk.json("stop", by="delta/officer-1")["stop"]
    assert "four-eyes" in desk("stop", "--lift", stop[:16], by="delta/officer-1", code=5)
    assert not desk.json("stop", "--lift", stop[:16], by="alpha/officer-1")["lifted"]
    assert desk.json("stop", "--lift", stop[:16], by="beta/officer-1")["lifted"]
    refused = desk.json("ledger", "show", "--refused")
    assert [row["verdict"] for row in refused] == ["other-member", "four-eyes"]


def test_datasets_are_registered_and_listed(desk: Desk, workplace: Any) -> None:
    path = workplace.folder / "rows.dataset.yaml"
    path.write_text(path.read_text().replace("min_rows: 50", "min_rows: 60"))
    told = desk.json("dataset", "register", str(path), by="gamma/officer-1")
    (row,) = [row for row in desk.json("dataset", "list") if row["member"] == "gamma"]
    assert row["schema_digest"] == told["schema_digest"]
    assert row["rows"].startswith("60-")
    assert "alpha" in desk("dataset", "list")
    desk("dataset", "show", "nothing", code=2)


def test_a_wrong_password_and_a_wrong_key_are_said_so_and_nothing_is_recorded(
    desk: Desk, tmp_path: Path
) -> None:
    size = len(desk.json("ledger", "show"))
    wrong = tmp_path / "password"
    wrong.write_text("not the password at all\n")
    wrong.chmod(0o600)
    key = str(desk.keys.path("beta/officer-1"))
    told = desk("stop", "--key", key, "--password-file", str(wrong), code=2)
    assert "not the password at all" not in told
    desk("stop", "--key", key, code=2)
    desk("stop", "--key", str(tmp_path / "none.key"), "--password-file", str(wrong), code=2)
    assert len(desk.json("ledger", "show")) == size


def test_the_whole_audit(desk: Desk, tmp_path: Path) -> None:
    from fedhouse.demo.witnesses import Witnesses

    assert "Let the operator make one" in desk("audit", "pack", str(tmp_path / "early.zip"), code=6)
    with (
        LocalConsortium.open(desk.folder, SILOS, signers=desk.keys) as consortium,
        Witnesses(consortium, desk.keys) as witnesses,
    ):
        witnesses.settle(60)
        officer, log_key = "beta/officer-1", "log"
        desk("job", "approve", desk.job.digest, by=officer)
        told = desk.json("ledger", "publish", by=log_key)
        assert len(told["cosigned_by"]) >= told["required"] == 3
    assert "3 needed" in desk("ledger", "verify", code=6)
    pack = tmp_path / "evidence.zip"
    told = desk.json("audit", "pack", str(pack), "--job", desk.job.digest[:12])
    trust = tmp_path / "trust.keys"
    assert told["trust"] == str(trust)
    assert desk.json("ledger", "verify", "--trust", str(trust))["final"]
    verified = desk.json("audit", "verify", str(pack), "--trust", str(trust))
    assert verified["fingerprint"] == told["fingerprint"]
    assert verified["origin_checked"]
    assert "origin unchecked" in desk("audit", "verify", str(pack), code=6)
    for suffix in ("csv", "json", "parquet"):
        desk("ledger", "export", str(tmp_path / f"entries.{suffix}"))
    with (tmp_path / "entries.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == verified["entries"] == len(json.loads((tmp_path / "entries.json").read_text()))
    desk("ledger", "export", str(tmp_path / "entries.xls"), code=2)
    desk("audit", "report", str(tmp_path / "audit.html"))
    page = (tmp_path / "audit.html").read_text()
    assert "<svg" in page
    assert "<script" not in page


def test_verifying_loads_nothing_heavy_and_needs_no_network(desk: Desk, tmp_path: Path) -> None:
    from fedhouse.demo.witnesses import Witnesses

    with (
        LocalConsortium.open(desk.folder, SILOS, signers=desk.keys) as consortium,
        Witnesses(consortium, desk.keys) as witnesses,
    ):
        witnesses.settle(60)
    pack = tmp_path / "evidence.zip"
    desk("audit", "pack", str(pack))
    program = f"""
import sys, socket
def no(*_): raise OSError("there is no network")
socket.socket = socket.create_connection = socket.getaddrinfo = no
sys.argv = ["fedhouse", "audit", "verify", {str(pack)!r}, "--trust", {str(tmp_path / "trust.keys")!r}]
from fedhouse.cli.main import run
try:
    run()
finally:
    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"


def test_no_ledger_is_said_so(tmp_path: Path, desk: Desk) -> None:
    told = desk("ledger", "show", "--ledger", str(tmp_path / "nowhere"), code=2)
    assert "holds no ledger" in told


def test_witnesses_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    place = tmp_path / "consortium"
    program = f"""
import os, signal, sys
from pathlib import Path
from fedhouse.demo.witnesses import Witnesses
from fedhouse.local_consortium import KeyFolder, LocalConsortium
place = Path({str(place)!r})
keys = KeyFolder(place / "keys")
with LocalConsortium.open(place, ("alpha", "beta"), signers=keys) as consortium:
    with Witnesses(consortium, keys) as witnesses:
        witnesses.settle(60)
        print(*[process.pid for process in witnesses.processes], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = [int(text) for text in done.stdout.split()]
    assert len(left) == 2
    until = time.monotonic() + 30
    while left := [pid for pid in left if _runs(pid)]:
        assert time.monotonic() < until, "a witness is still there"
        time.sleep(0.1)


def _runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
