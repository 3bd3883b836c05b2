"""Several processes at one log: two that append at once, and witnesses with keys of their own."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fedhouse.chain_adapters.merkle_log.log import MerkleLog
from fedhouse.governance.ledger import Ledger
from fedhouse.governance.reading_contract import head_of
from fedhouse.governance.replay import Replay
from fedhouse.governance.sandbox import SandboxConsortium
from fedhouse.identity.keyfile import create_key

if TYPE_CHECKING:
    from conftest import House

STOP: dict[str, Any] = {"scope": "consortium", "subject": ""}

_APPENDER = """
import sys
from pathlib import Path
from fedhouse.chain_adapters.merkle_log.log import MerkleLog
from fedhouse.governance.sandbox import SandboxClock, SandboxConsortium
clock = SandboxClock()
consortium = SandboxConsortium(clock=clock)
log = MerkleLog.open(Path(sys.argv[1]), clock=clock)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(40):
    stop = {"scope": "consortium", "subject": ""}
    answers = log.append([consortium.sign(sys.argv[2], "stop.declared", stop) for _ in range(5)])
    assert all(answer.accepted for answer in answers), answers
    assert log.size > answers[-1].index
    assert log.state.sequences[sys.argv[2]] == consortium.sequences[sys.argv[2]]
"""


@pytest.mark.slow
def test_two_processes_append_at_once(house: House) -> None:
    house.log.append(house.consortium.bootstrap())
    actors = ("AA/officer", "B6/officer")
    command = [sys.executable, "-c", _APPENDER, str(house.folder / "log")]
    processes = [
        subprocess.Popen([*command, actor], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for actor in actors
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.close()
    # This one appends meanwhile, and publishes.
    for number in range(20):
        house.log.append([house.consortium.sign("DL/officer", "stop.declared", STOP)])
        house.log.publish(house.public)
        assert house.log.state.sequences["DL/officer"] == number + 1
    assert [process.wait(60) for process in processes] == [0, 0]
    for process in processes:
        assert process.stdout is not None
        process.stdout.close()
    assert house.log.size == 9 + 20 + 2 * 200
    replay = Replay()
    replay.extend(house.log.read(0, house.log.size))
    replay.require(head_of(house.log.checkpoint()))
    assert {entry.outcome.verdict for entry in house.log.read(0, house.log.size)} == {"accepted"}
    state = house.log.state.digest()
    assert house.reopen().state.digest() == state == replay.state.digest()


def test_what_another_process_records_is_seen_at_once(house: House) -> None:
    ledger: Ledger = house.log
    with MerkleLog.open(house.folder / "log", clock=house.clock) as other:
        other.append(house.consortium.bootstrap())
        assert ledger.size == 9
        assert ledger.state.digest() == other.state.digest()
        assert len(ledger.read(0, 9)) == 9
        ledger.append([house.consortium.sign("AA/officer", "stop.declared", STOP)])
        assert len(other.state.permissions.stops) == 1
        note = ledger.checkpoint()
        assert other.checkpoint() == note


def test_threads_share_a_log(house: House) -> None:
    house.log.append(house.consortium.bootstrap())
    errors: list[BaseException] = []

    def work(actor: str) -> None:
        try:
            for _ in range(30):
                house.log.append([house.consortium.sign(actor, "stop.declared", STOP)])
                house.log.prove_inclusion(3, house.log.size)
                house.log.checkpoint()
        except BaseException as error:  # noqa: BLE001 - shown by the main thread
            errors.append(error)

    threads = [
        threading.Thread(target=work, args=(actor,)) for actor in ("AA/officer", "B6/officer", "DL/officer")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert house.log.size == 9 + 90


_WITNESS = """
import signal, sys, threading
from pathlib import Path
from fedhouse.chain_adapters.merkle_log.witness import Witness, run_witness
from fedhouse.identity.keyfile import load_key
from fedhouse.logs import log_to_stderr
log_to_stderr("info")
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
key = load_key(Path(sys.argv[1]), b"a password for tests")
witness = Witness(Path(sys.argv[2]), Path(sys.argv[3]), key.signer, key.actor, sys.argv[4])
run_witness(witness, poll_seconds=0.05, stop=stop)
"""


@pytest.mark.slow
def test_witnesses_in_their_own_processes_make_a_log_final(tmp_path: Path) -> None:
    """End to end, by the real clock: key files, three processes, a replica that sees it all become final."""
    from fedhouse.chain_adapters.merkle_log.replica import Replica

    consortium = SandboxConsortium(clock=lambda: int(time.time()))
    keys = {}
    for member in consortium.members:
        path = tmp_path / f"{member}.key"
        stored = create_key(
            path, actor=f"{member}/witness", purpose="witness", password=b"a password for tests"
        )
        assert stored.signer is not None
        consortium.replace_signer(stored.actor, stored.signer)
        keys[member] = path
    public = tmp_path / "public"
    log = MerkleLog.create(tmp_path / "log", consortium.founding(), operator=consortium.log)
    log.append(consortium.bootstrap())
    processes = []
    for member, path in keys.items():
        command = [
            sys.executable,
            "-c",
            _WITNESS,
            str(path),
            str(tmp_path / member),
            str(public),
            consortium.id,
        ]
        processes.append(subprocess.Popen(command, stderr=subprocess.PIPE))
    replica = Replica(tmp_path / "replica", public, consortium.id)
    try:
        for events in ([], consortium.job_events()):
            log.append(events)
            while replica.final_size < log.size:
                log.publish(public)
                replica.catch_up()
                assert all(process.poll() is None for process in processes)
                time.sleep(0.02)
    finally:
        for process in processes:
            process.terminate()
        told = [process.communicate(timeout=30)[1] for process in processes]
        replica.close()
    assert replica.final_state.digest() == log.state.digest()
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert all(b"cosigned a checkpoint of" in lines for lines in told)
    log.close()
