"""The demo's witnesses: one process an airline, each with its own key and its own copy of the log.

A thread publishes the log every second and collects what the witnesses have cosigned. Witnesses reach
nobody and are reached by nobody: they read the published folder and put their cosignatures there.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from types import TracebackType
from typing import Self

from fedhouse.errors import FedhouseError, QuorumError
from fedhouse.local_consortium import KeyFolder, LocalConsortium

log = logging.getLogger(__name__)

_EVERY_SECONDS = 1.0
_START = "from fedhouse.cli.main import run; run()"


class Witnesses:
    """Starts the witnesses of a local consortium, and keeps the log published; a context manager."""

    def __init__(self, consortium: LocalConsortium, keys: KeyFolder) -> None:
        self.consortium, self.keys = consortium, keys
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stop = threading.Event()
        self._publisher = threading.Thread(target=self._publish, name="fedhouse-publisher", daemon=True)

    def __enter__(self) -> Self:
        self.consortium.ledger.publish(self.consortium.public)
        for silo in self.consortium.silos:
            self._processes[silo] = self._start(silo)
        self._publisher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._publisher.join()
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @property
    def processes(self) -> list[subprocess.Popen[bytes]]:
        """The running witnesses, in the silos' order."""
        return list(self._processes.values())

    def __len__(self) -> int:
        return len(self._processes)

    def settle(self, seconds: float) -> None:
        """Wait until everything on the ledger is final.

        Raises
        ------
        QuorumError
            If it is not after so many seconds; says who has not cosigned.
        """
        ledger = self.consortium.ledger
        size, until = ledger.size, time.monotonic() + seconds
        while not (finality := ledger.finality(size)).final:
            if time.monotonic() > until:
                missing = sorted(set(self.consortium.silos) - set(finality.cosigners))
                raise QuorumError(
                    f"The ledger's {size} entries are not final after {seconds:.0f} s: "
                    f"{', '.join(missing)} did not cosign, and {finality.required} are needed.",
                    mend=f"Look at {self.consortium.folder / 'witnesses'}.",
                )
            time.sleep(0.2)

    def _publish(self) -> None:
        while not self._stop.wait(_EVERY_SECONDS):
            try:
                self.consortium.ledger.publish(self.consortium.public)
            except FedhouseError as error:
                log.warning("the log was not published: %s", error)

    def _start(self, silo: str) -> subprocess.Popen[bytes]:
        folder = self.consortium.folder / "witnesses" / silo
        folder.mkdir(parents=True, exist_ok=True)
        actor = f"{silo}/witness"
        self.keys(actor)  # makes the key file
        command = [sys.executable, "-c", _START, "witness", "start"]
        command += ["--public", str(self.consortium.public), "--folder", str(folder / "state")]
        command += ["--consortium", self.consortium.id, "--key", str(self.keys.path(actor))]
        command += ["--password-file", str(self.keys.password_file), "--poll-seconds", "1"]
        command += ["--stop-with-stdin"]  # none is left behind when this process is killed
        with (folder / "log.jsonl").open("ab") as out:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env={name: value for name, value in os.environ.items() if not name.startswith("FEDHOUSE_")},
            )
