"""`fedhouse witness start`: a witness in its own process, with its own key and its own copy of the log."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path


def start(
    *,
    public: Path,
    folder: Path,
    consortium: str,
    key: str,
    password_file: Path | None,
    actor: str | None,
    poll_seconds: float,
    stop_with_stdin: bool,
) -> None:
    """Follow the published log, replay it, and cosign what it says, until told to stop.

    Raises
    ------
    KeyFileError
        If the key does not open.
    """
    from fedhouse.chain_adapters.merkle_log.witness import Witness, run_witness
    from fedhouse.consortium_folder import open_signer
    from fedhouse.local_consortium import system_clock
    from fedhouse.logs import log_to_stderr

    log_to_stderr("info" if not sys.stderr.isatty() else "warning")
    name, signer = open_signer(key, password_file, actor)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if stop_with_stdin:
        threading.Thread(target=_wait_for_stdin, args=(stop,), name="fedhouse-stdin", daemon=True).start()
    witness = Witness(folder, public, signer, name, consortium, clock=system_clock)
    run_witness(witness, poll_seconds=poll_seconds, stop=stop)


def _wait_for_stdin(stop: threading.Event) -> None:
    """A parent that dies, however, closes its end of the pipe."""
    while sys.stdin.buffer.read(4096):
        pass
    stop.set()
