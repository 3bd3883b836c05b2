"""The process boundary: hostile and broken user code, and what the parent makes of it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedhouse.bundle import Entries
from fedhouse.errors import TimeLimitError, UpdateRejectedError, UserCodeError
from fedhouse.spark_jobs.child import run_forked, run_spawned
from fedhouse.spark_jobs.spool import Spool
from fedhouse.spark_jobs.task import Answer, ChildTask
from fedhouse.types import ParameterLayout, TensorSpec

MODEL = """
import os, sys, torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(3))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
    def forward(self, x):
        return x @ self.w
def evaluate(model, loader):
    return {"loss": 0.5, "secret": 12345.0}
"""
LAYOUT = ParameterLayout((TensorSpec("w", (3,), "float32"),))
ROWS = np.arange(40, dtype="<f4").reshape(10, 4) / 40


def _task(train: str = "def train(model, loader): pass", **changes: object) -> ChildTask:
    task = ChildTask(
        operation="train",
        bundle_digest="0" * 64,
        sources={"job.py": MODEL + textwrap.dedent(train)},
        entries=Entries("job:Net", "job:train", "job:evaluate"),
        layout=LAYOUT,
        model_args={},
        train_args={},
        weights=np.array([1, 2, 3], "<f4").tobytes(),
        width=3,
        batch_size=4,
        model_seed=1,
        seed=2,
        seconds=60,
        scratch_mib=1,
        max_parameters=100,
        report=("loss",),
    )
    return replace(task, **changes)  # type: ignore[arg-type]


@pytest.fixture
def spool() -> Iterator[Spool]:
    with Spool(4) as spool:
        spool.append(ROWS)
        yield spool


Run = Callable[[ChildTask], Answer]


@pytest.fixture
def run(spool: Spool) -> Run:
    return lambda task: run_forked(task, spool.read_only(), spool.rows)


def _vector(answer: Answer) -> list[float]:
    return np.frombuffer(answer.payload, "<f4").tolist()


def test_it_trains_from_the_given_weights(run: Run) -> None:
    answer = run(_task("def train(model, loader):\n    model.w.data += sum(len(y) for _, y in loader)"))
    assert _vector(answer) == [11, 12, 13]
    assert answer.header["examples"] == 10


def test_a_spawned_child_does_the_same(spool: Spool) -> None:
    task = _task("def train(model, loader):\n    model.w.data += sum(x.sum() for x, _ in loader)")
    forked = run_forked(task, spool.read_only(), spool.rows)
    spawned = run_spawned(task, spool.read_only(), spool.rows)
    assert spawned.payload == forked.payload


def test_the_loader_shuffles_by_its_seed_and_keeps_rows_whole(run: Run) -> None:
    code = """
    def train(model, loader):
        first = torch.cat([torch.cat([x, y[:, None]], 1) for x, y in loader])
        second = torch.cat([torch.cat([x, y[:, None]], 1) for x, y in loader])
        assert not torch.equal(first, second)
        assert sorted(map(tuple, first.tolist())) == sorted(map(tuple, second.tolist()))
        assert len(loader) == 3 and len(loader.dataset) == 10
        model.w.data.copy_(first[0, :3])
    """
    order = _vector(run(_task(code)))
    assert order == _vector(run(_task(code)))
    assert order in ROWS[:, :3].tolist()


def test_writing_into_the_rows_stays_in_the_child(run: Run, spool: Spool) -> None:
    run(_task("def train(model, loader):\n    loader.dataset.mul_(0)"))
    assert (
        np.frombuffer(os.pread(spool.read_only(), spool.size, 0), "<f4").tolist() == ROWS.reshape(-1).tolist()
    )


def test_evaluation_returns_histograms_and_only_reported_metrics(run: Run) -> None:
    answer = run(_task(operation="evaluate"))
    counts = np.frombuffer(answer.payload, "<i8").reshape(2, 1024)
    assert counts.sum() == 10
    assert counts[0].sum() == (ROWS[:, 3] > 0.5).sum()
    assert set(answer.header["metrics"]) == {"loss"}


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (
            "def train(model, loader): raise ValueError('row of John Smith')",
            UserCodeError,
            "ValueError at job.py:",
        ),
        ("def train(model, loader): sys.exit(0)", UserCodeError, "SystemExit"),
        ("def train(model, loader): os._exit(0)", UserCodeError, "without a result"),
        ("def train(model, loader): os._exit(7)", UserCodeError, "exit code was 7"),
        ("def train(model, loader): os.kill(os.getpid(), 9)", UserCodeError, "SIGKILL"),
        ("def train(model, loader): os.abort()", UserCodeError, "SIGABRT"),
        (
            "def train(model, loader): model.w = torch.nn.Parameter(torch.zeros(4))",
            UpdateRejectedError,
            "see w",
        ),
        ("def train(model, loader): del model.w", UpdateRejectedError, "see w"),
        ("def train(model, loader): model.double()", UpdateRejectedError, "see w"),
        ("train = 5", UserCodeError, "Entry job:train names nothing"),
        ("import nowhere_to_be_found", UserCodeError, "ModuleNotFoundError at job.py:"),
        ("def train(model, loader) pass", UserCodeError, "SyntaxError at job.py:"),
        (
            "def train(model, loader): raise type('JohnSmith', (Exception,), {})()",
            UserCodeError,
            "an exception",
        ),
        ("def train(model, loader): [0][1]", UserCodeError, "IndexError"),
        ("def train(model, loader): 1 / 0", UserCodeError, "ZeroDivisionError at job.py:12"),
    ],
)
def test_broken_code_is_one_line_that_says_where(run: Run, code: str, error: type, words: str) -> None:
    with pytest.raises(error) as caught:
        run(_task(code))
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert "Smith" not in message


def test_a_rehearsal_shows_the_message(run: Run) -> None:
    with pytest.raises(UserCodeError, match=r"ValueError at job.py:12: expected 7"):
        run(_task("def train(model, loader): raise ValueError('expected 7')", show_output=True))


def test_a_rehearsal_shows_what_is_printed_to_a_bound_where_stderr_is_no_file(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()  # as in a notebook: no descriptor
    monkeypatch.setattr(sys, "stderr", shown)
    code = "def train(model, loader):\n    print('first words'); print('x' * 3_000_000); print('last words')"
    run_spawned(_task(code, show_output=True), spool.read_only(), spool.rows)
    text = shown.getvalue()
    assert text.startswith("first words\n")
    assert "last words" not in text
    assert text.endswith("[the rest of the job's output is not shown]\n")
    assert len(text) < 2**21
    shown.truncate(0)
    run_spawned(_task(code), spool.read_only(), spool.rows)
    assert shown.getvalue() == ""


def test_our_own_errors_raised_by_user_code_carry_no_text(run: Run) -> None:
    code = """
    def train(model, loader):
        from fedhouse.errors import UpdateRejectedError
        from fedhouse.spark_jobs.task import Complaint
        raise Complaint("layout", "John Smith")
    """
    with pytest.raises(UpdateRejectedError) as caught:
        run(_task(code))
    assert "Smith" not in str(caught.value)


def test_a_forged_answer_carries_no_text(run: Run) -> None:
    code = """
    def train(model, loader):
        from fedhouse.spark_jobs.task import Answer
        forged = Answer({"status": "error", "code": "raised", "type": "John Smith", "what": "John Smith",
                         "file": "John Smith", "line": 3, "message": "John Smith"})
        os.write(4, forged.to_bytes())
        os._exit(0)
    """
    with pytest.raises(UserCodeError) as caught:
        run(_task(code))
    assert "Smith" not in str(caught.value)


def test_code_that_hangs_is_stopped_with_what_it_started(run: Run, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = f"""
    def train(model, loader):
        pid = os.fork()
        if pid == 0:
            import time
            time.sleep(600)
        open({str(note)!r}, "w").write(str(pid))
        import time
        time.sleep(600)
    """
    with pytest.raises(TimeLimitError, match=r"longer than 2 seconds.*bounds.seconds"):
        run(_task(code, seconds=2))
    assert _gone(int(note.read_text()))


def _gone(pid: int) -> bool:
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_a_gigabyte_of_output_goes_nowhere(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    code = """
    def train(model, loader):
        block = b"John Smith" * 100_000
        for _ in range(1000):
            os.write(1, block)
            os.write(2, block)
    """
    run(_task(code))
    told = capfd.readouterr()
    assert "Smith" not in told.out + told.err


def test_files_have_a_bound_and_vanish(run: Run) -> None:
    code = """
    def train(model, loader):
        with open("small", "wb") as file:
            file.write(b"x" * 1000)
        with open("large", "wb") as file:
            file.write(b"x" * 50_000_000)
    """
    with pytest.raises(UserCodeError, match=r"OSError|SIGXFSZ"):
        run(_task(code))


def test_a_result_larger_than_the_model_is_refused(run: Run) -> None:
    code = """
    def train(model, loader):
        import resource, signal
        os.write(4, b"x" * 2_200_000)
        os._exit(0)
    """
    with pytest.raises(UserCodeError):
        run(_task(code))


def test_the_child_sees_no_environment_no_descriptors_and_an_empty_folder(run: Run, monkeypatch) -> None:
    monkeypatch.setenv("FEDHOUSE_CANARY", "canary-value")
    secret = os.open("/etc/hostname", os.O_RDONLY)
    code = """
    def train(model, loader):
        import json
        told = {
            "environment": sorted(os.environ),
            "kernel": open("/proc/self/environ", errors="replace").read().strip(chr(0)),
            "open": sorted({os.readlink(f"/proc/self/fd/{n}").split("-")[0]
                            for n in os.listdir("/proc/self/fd")
                            if int(n) > 2 and os.path.lexists(f"/proc/self/fd/{n}")}),
            "files": os.listdir("."),
            "in": os.readlink("/proc/self/fd/0"),
        }
        raise RuntimeError(json.dumps(told, separators=(",", ":")))
    """
    try:
        with pytest.raises(UserCodeError) as caught:
            run(_task(code, show_output=True))
    finally:
        os.close(secret)
    told = json.loads(str(caught.value).partition(": ")[2])
    assert set(told["environment"]) <= {
        "PATH", "LANG", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    }  # fmt: skip
    assert told["kernel"] == ""
    # The mapped partition, the result, and the directory that this very listing opens.
    names = {name.rpartition("/")[2] for name in told["open"]}
    assert {name for name in names if not name.isdigit() and name != "fd"} == {"fedhouse", "memfd:fedhouse"}
    assert told["files"] == []
    assert told["in"] == "/dev/null"


def test_a_reused_process_runs_the_new_code(run: Run) -> None:
    for value in (5.0, 6.0):
        task = _task(f"def train(model, loader): model.w.data.fill_({value})")
        answer = run(replace(task, bundle_digest=str(int(value)) * 64))
        assert _vector(answer) == [value] * 3


def test_modules_of_a_bundle_import_each_other(run: Run) -> None:
    task = _task("import helper\ndef train(model, loader): model.w.data.fill_(helper.VALUE)")
    sources = dict(task.sources) | {
        "helper.py": "from part import deep\nVALUE = deep.VALUE",
        "part/__init__.py": "",
        "part/deep.py": "VALUE = 4.0",
    }
    assert _vector(run(replace(task, sources=sources))) == [4.0] * 3


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    program = f"""
import dataclasses, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_child
from fedhouse.spark_jobs.child import run_forked
from fedhouse.spark_jobs.spool import Spool
task = test_child._task('''def train(model, loader):
    import time
    open({str(note)!r}, "w").write(str(os.getpid()))
    time.sleep(600)
''')
with Spool(4) as spool:
    spool.append(test_child.ROWS)
    run_forked(task, spool.read_only(), spool.rows)
"""
    parent = subprocess.Popen([sys.executable, "-c", program])
    try:
        while not note.exists() or not note.read_text():
            assert parent.poll() is None
            time.sleep(0.05)
        child = int(note.read_text())
        assert not _gone_now(child)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert _gone(child)


def _gone_now(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_a_task_survives_its_bytes() -> None:
    task = _task(seed=2**62, model_seed=2**62 + 1)
    assert ChildTask.from_bytes(task.to_bytes()) == task


@given(st.binary(max_size=200))
def test_hostile_answers_raise_and_nothing_else(data: bytes) -> None:
    for candidate in (data, b"FHR1" + data, b"FHR1" + len(data).to_bytes(4, "little") + data):
        with contextlib.suppress(UserCodeError):
            Answer.parse(candidate)
