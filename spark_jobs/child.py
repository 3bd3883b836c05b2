"""The process boundary around user code.

Invariants
----------
1. User code runs in a process of its own, never in a Spark worker and never in the driver.
2. That process has an empty environment, no open descriptor but the partition (read-only, mapped
   private) and one result file, an empty scratch directory as its working directory, and no terminal.
3. It dies with its parent, is killed with its process group at its time limit, and cannot write a file
   larger than its bound.
4. The parent believes nothing of the result: `Answer.parse` checks the form, the caller the meaning.
5. What the code prints, and the text of its exceptions, can hold rows: both are dropped, unless the
   rows are the owner's own (a rehearsal). The exception's type and the line in the bundle remain.

Not promised yet: this is a process boundary and no sandbox. The code still runs as the worker's user
with the worker's network and can read what that user can read. SECURITY.md says so.

Two ways in. On Spark the worker forks (`run_forked`): the worker came from a daemon that has torch
loaded, so a start costs milliseconds. Elsewhere a fresh interpreter is started (`run_spawned`), because
a driver has threads that do not survive a fork.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import gc
import mmap
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from fedhouse.errors import TimeLimitError, UserCodeError
from fedhouse.spark_jobs.cpu import cpu_class_environment
from fedhouse.spark_jobs.task import COMPLAINTS, Answer, ChildTask, Complaint

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
# Head-room of a result beyond its numbers: the header.
_RESULT_SLACK = 2 * 2**20
# A fresh interpreter imports torch before the code's own time begins; on a busy machine slowly.
_STARTING_SECONDS = 60
# So much of what a rehearsed job prints is shown.
_MOST_OUTPUT = 2**20
_BUNDLE_PREFIX = "<bundle>/"
_PUBLIC_EXCEPTIONS = frozenset(
    name
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, BaseException)
) | {"OutOfMemoryError", "LinAlgError"}
# What the libraries need to behave in an otherwise empty environment.
_CHILD_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def run_forked(task: ChildTask, rows_descriptor: int, rows: int) -> Answer:
    """Run `task` on `rows` rows of a spool in a child forked from this process.

    Raises
    ------
    UserCodeError, UpdateRejectedError
        What the child reported, or that it ended without a result.
    TimeLimitError
        If it took longer than `task.seconds`.
    """
    # Modules first, so that the child does not import them under its limits.
    import fedhouse.spark_jobs.usercode  # noqa: F401

    def start(result: int, scratch: str) -> int:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _enter_forked_child(task, rows_descriptor, rows, result, scratch, parent)
        return pid

    return _supervise(task, start)


def run_spawned(task: ChildTask, rows_descriptor: int, rows: int) -> Answer:
    """As `run_forked`, in a fresh interpreter: for processes that have threads. Takes seconds to start."""

    def start(result: int, scratch: str, shown: int) -> int:
        order = os.memfd_create("fedhouse-task")
        _write_all(order, task.to_bytes())
        environment = _CHILD_ENVIRONMENT | cpu_class_environment()
        try:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-m",
                    "fedhouse.spark_jobs.child",
                    *(str(number) for number in (os.getpid(), order, rows_descriptor, rows, result)),
                ],
                env=environment,
                cwd=scratch,
                pass_fds=(order, rows_descriptor, result),
                stdin=subprocess.DEVNULL,
                stdout=shown,
                stderr=shown,
            )
        finally:
            os.close(order)
        # The supervisor waits for the process by its number; Popen must not reap it as well.
        process.returncode = 0
        return process.pid

    with _output(show=task.show_output) as shown:
        return _supervise(
            task, lambda result, scratch: start(result, scratch, shown), starting=_STARTING_SECONDS
        )


@contextlib.contextmanager
def _output(*, show: bool) -> Iterator[int]:
    """Where a spawned child's output goes: nowhere, or to `sys.stderr`, which in a notebook is no file.

    What a rehearsed job prints goes beside the command's own output, not into it, and to a bound.
    """
    if not show:
        yield subprocess.DEVNULL
        return
    reading, writing = os.pipe()
    pump = threading.Thread(target=_show, args=(reading,), name="fedhouse-output", daemon=True)
    pump.start()
    try:
        yield writing
    finally:
        os.close(writing)
        pump.join(timeout=5)  # a process that escaped its group may hold the pipe open


def _show(reading: int) -> None:
    left = _MOST_OUTPUT
    with open(reading, "rb", buffering=0) as pipe:
        while data := pipe.read(2**16):
            sys.stderr.write(data[:left].decode(errors="replace"))
            if 0 < left <= len(data):
                sys.stderr.write("\n[the rest of the job's output is not shown]\n")
            left = max(0, left - len(data))


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _supervise(task: ChildTask, start: Callable[[int, str], int], *, starting: int = 0) -> Answer:
    """Start a child, wait for it within its limit, clean up after it, read what it left."""
    result = os.memfd_create("fedhouse-result", os.MFD_CLOEXEC)
    scratch = tempfile.mkdtemp(prefix="fedhouse-scratch-")
    began = time.monotonic()
    try:
        pid = start(result, scratch)
        ended = _wait(pid, task.seconds + starting)
        if ended is None:
            raise TimeLimitError(
                f"The job's code ran longer than {task.seconds} seconds on one partition and was stopped.",
                mend="Raise bounds.seconds in the job, or use more partitions.",
            )
        size = os.fstat(result).st_size
        if size > _largest_result(task):
            raise UserCodeError("The job's code left a result larger than its model.")
        answer = Answer.parse(os.pread(result, size, 0) if size else b"")
    except UserCodeError as error:
        if ended := locals().get("ended"):
            raise UserCodeError(_ending(error.what, ended), mend=error.mend) from None
        raise
    finally:
        os.close(result)
        shutil.rmtree(scratch, ignore_errors=True)
    _raise_reported(answer.header, task)
    return Answer({**answer.header, "seconds": time.monotonic() - began}, answer.payload)


def _largest_result(task: ChildTask) -> int:
    parameters = task.max_parameters if task.operation == "initialise" else task.layout.size
    return 4 * parameters + _RESULT_SLACK


def _ending(what: str, status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"{what} It was ended by {signal.Signals(os.WTERMSIG(status)).name}."
    code = os.waitstatus_to_exitcode(status)
    return f"{what} Its exit code was {code}." if code else what


def _wait(pid: int, seconds: int) -> int | None:
    """The child's wait status, or None if it had to be stopped. Leaves no process of its group behind."""
    handle = os.pidfd_open(pid)
    try:
        poller = select.poll()
        poller.register(handle, select.POLLIN)
        in_time = bool(poller.poll(seconds * 1000))
    finally:
        os.close(handle)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    return status if in_time else None


def _raise_reported(header: Mapping[str, Any], task: ChildTask) -> None:
    """Turn a complaint into an error whose every word is ours, or was in the bundle already."""
    if header.get("status") == "ok":
        return
    code, subject = str(header.get("code")), str(header.get("subject"))
    kind, sentence, mend = COMPLAINTS.get(code, COMPLAINTS["raised"])
    known = (
        {item.name for item in task.layout.tensors} | set(task.report) | set(task.entries.to_json().values())
    )
    if code == "raised" or code not in COMPLAINTS:
        subject = _where(header, task)
    elif subject not in known:
        subject = "its state"
    if task.show_output and isinstance(header.get("message"), str):
        sentence, mend = "The job's code raised {0}: " + header["message"][:600], ""
    raise kind(sentence.replace("{0}", subject), mend=mend)


def _where(header: Mapping[str, Any], task: ChildTask) -> str:
    """Exception type and place, each checked against what could be there without user code's choice."""
    name = str(header.get("type"))
    text = name if name in _PUBLIC_EXCEPTIONS else "an exception"
    file, line = header.get("file"), header.get("line")
    if isinstance(file, str) and file in task.sources and isinstance(line, int):
        text += f" at {file}:{max(0, min(line, 10**6))}"
    return text


# --- inside the child -----------------------------------------------------------------------------


def _enter_forked_child(
    task: ChildTask, rows_descriptor: int, rows: int, result: int, scratch: str, parent: int
) -> NoReturn:
    """Everything a forked child does. Never returns into the parent's code."""
    code = 1
    try:
        _set_limits(task, parent)
        os.chdir(scratch)
        _drop_environment()
        rows_descriptor, result = _drop_descriptors(rows_descriptor, result, keep_output=task.show_output)
        gc.disable()  # the parent's garbage is not ours to touch: it would copy its pages
        gc.freeze()
        gc.enable()
        code = _work(task, rows_descriptor, rows, result)
    finally:
        os._exit(code)


def main(arguments: list[str]) -> NoReturn:
    """Entry of a spawned child: parent's pid, then descriptors and row count."""
    parent, order, rows_descriptor, rows, result = (int(text) for text in arguments)
    size = os.fstat(order).st_size
    task = ChildTask.from_bytes(os.pread(order, size, 0))
    os.close(order)
    import fedhouse.spark_jobs.usercode  # noqa: F401

    _set_limits(task, parent)
    _drop_environment()
    rows_descriptor, result = _drop_descriptors(rows_descriptor, result, keep_output=task.show_output)
    os._exit(_work(task, rows_descriptor, rows, result))


def _set_limits(task: ChildTask, parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    libc.prctl(_PR_SET_DUMPABLE, 0)
    with contextlib.suppress(PermissionError):
        os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    largest = max(_largest_result(task), task.scratch_mib * 2**20)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _drop_environment() -> None:
    """Empty the environment, and the block that the kernel shows as /proc/self/environ."""
    os.environ.clear()
    with contextlib.suppress(OSError, ValueError, IndexError):
        # Fields 50 and 51 of proc(5) stat: where the initial environment lies. Spark puts the secret
        # of its own socket there.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[47]), int(fields[48])
        if 0 < start < end:
            ctypes.memset(start, 0, end - start)
    os.environ.update(_CHILD_ENVIRONMENT)


def _drop_descriptors(rows: int, result: int, *, keep_output: bool) -> tuple[int, int]:
    """Close everything but the partition (3) and the result (4); standard streams lead nowhere."""
    rows, result = os.dup2(os.dup(rows), 100), os.dup2(os.dup(result), 101)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0,) if keep_output else (0, 1, 2):
        os.dup2(nowhere, stream)
    os.closerange(3, 100)
    os.closerange(102, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    rows, result = os.dup2(rows, 3), os.dup2(result, 4)
    os.closerange(100, 102)
    return rows, result


def _work(task: ChildTask, rows_descriptor: int, rows: int, result: int) -> int:
    """Run the task and write its answer, also when it fails; returns the exit code."""
    import torch

    from fedhouse.spark_jobs import usercode

    try:
        torch.set_num_threads(1)
        width = task.width + 1
        size = rows * width * 4
        if size:
            view = mmap.mmap(
                rows_descriptor, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE
            )
            matrix = torch.frombuffer(view, dtype=torch.float32).reshape(rows, width)
        else:
            matrix = torch.zeros((0, width), dtype=torch.float32)
        os.close(rows_descriptor)
        answer = usercode.run(task, matrix)
    except BaseException as error:  # noqa: BLE001 - sys.exit and KeyboardInterrupt included
        answer = Answer(_explain(error, show=task.show_output))
    # What user code wrote into the descriptor itself must not survive behind a shorter answer.
    data = answer.to_bytes()
    os.ftruncate(result, 0)
    os.lseek(result, 0, os.SEEK_SET)
    _write_all(result, data)
    return 0


def _explain(error: BaseException, *, show: bool) -> dict[str, Any]:
    """A complaint as a header: a code, or an exception's type and place; its message only if shown."""
    if isinstance(error, Complaint):
        return {"status": "error", "code": error.code, "subject": error.subject}
    header: dict[str, Any] = {"status": "error", "code": "raised", "type": type(error).__name__}
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        places.append((str(error.filename), error.lineno))
    for file, line in places:
        if file.startswith(_BUNDLE_PREFIX):
            header |= {"file": file.removeprefix(_BUNDLE_PREFIX), "line": line}
    if show:
        header["message"] = " ".join(str(error).split())[:600]
    return header


if __name__ == "__main__":
    main(sys.argv[1:])
