"""The page: whole, self-contained, escaped, and the same bytes for the same ledger."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fedhouse.audit import report
from fedhouse.audit.report import render, write_report
from fedhouse.errors import FedhouseError, IntegrityError
from fedhouse.governance.sandbox import named
from fedhouse.governance.state import State

VOID = {"meta", "br", "link", "img", "input"}


class Page(HTMLParser):
    """What stands in a page: its tags with their attributes, and its text. Fails where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text += data


def page(ledger: Any) -> Page:
    return Page(render(ledger.find()))


def text_of(found: Page) -> str:
    return re.sub(r"\s+", " ", found.text)


def test_the_page_is_written_and_says_what_it_shows(whole: Any, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    findings = write_report(whole.entries, whole.state, out)
    assert findings.entries == len(whole.entries)
    found = Page(out.read_text(encoding="utf-8"))
    text = text_of(found)
    assert "Nothing to explain" in text
    assert "To explain" not in text
    assert f"drawn from {len(whole.entries)} entries" in text
    assert whole.state.digest() in text
    assert "Closed (rounds)" in text
    assert sum(tag == "svg" for tag, _ in found.tags) == 5


def test_nothing_is_loaded_and_nothing_runs(whole: Any) -> None:
    found = page(whole)
    assert not {tag for tag, _ in found.tags} & {"script", "link", "img", "iframe", "object", "embed", "form"}
    for _, attributes in found.tags:
        assert not {"src", "href", "srcset", "action", "data"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
    source = render(whole.find())
    assert "url(" not in source
    assert "@import" not in source
    assert set(re.findall(r"https?://[^\"' ]*", source)) == {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in source


def test_the_same_ledger_gives_the_same_bytes_in_any_process(whole: Any, tmp_path: Path) -> None:
    code = """
import pickle, sys
from pathlib import Path
from fedhouse.audit.report import write_report
from fedhouse.governance.ledger import Entry
from fedhouse.governance.proof_files import Outcome
from fedhouse.governance.replay import Replay
told = pickle.loads(Path(sys.argv[1]).read_bytes())
entries = [Entry(i, data, Outcome(time, verdict)) for i, (data, time, verdict) in enumerate(told)]
replay = Replay()
replay.extend(entries, verified=True)
write_report(entries, replay.state, Path(sys.argv[2]))
"""
    told = [(entry.envelope, entry.outcome.time, entry.outcome.verdict) for entry in whole.entries]
    (tmp_path / "entries").write_bytes(pickle.dumps(told))
    pages = []
    for seed in ("0", "1", "2"):
        out = tmp_path / f"{seed}.html"
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "entries"), str(out)],
            check=True,
            cwd="/",
            timeout=60,
            env={"PYTHONHASHSEED": seed, "TZ": f"UTC+{seed}", "LC_ALL": "C.UTF-8"},
        )
        pages.append(out.read_bytes())
    assert pages[0] == pages[1] == pages[2] == render(whole.find()).encode()


def test_gaps_and_stops_stand_at_the_top(ledger: Any) -> None:
    ledger.propose("late", "AA", "B6")
    ledger.step(0, "statistics", ["AA", "B6"], until="open")
    ledger.must("B6/officer", "stop.declared", {"scope": "consortium", "subject": ""})
    text = text_of(page(ledger))
    assert (
        text.index("To explain") < text.index("DL neither approved nor declined") < text.index("Who approved")
    )
    assert "declared by B6/officer: everything." in text
    assert "Statistics was opened on" in text


def test_hostile_texts_of_refused_events_are_not_shown(whole: Any) -> None:
    """Names are harmless by their schema; what a refused event holds is on the ledger all the same."""
    evil = '"><script>alert(1)</script>{{ 7*7 }}'
    body = {"job": evil, "name": evil, "reason": evil, "rounds": evil, "bundle": [evil]}
    for event in ("job.proposed", "job.cancelled", "stop.declared"):
        assert whole.say("B6/owner", event, body) == "schema"
    stop = {"scope": "member", "subject": evil}
    assert whole.say("B6/owner", "stop.declared", stop) == "unknown-member"
    source = render(whole.find())
    assert "<script" not in source
    assert "alert(1)" not in source
    assert "schema" in text_of(Page(source))


def test_a_stop_of_a_job_that_nobody_proposed_is_no_trouble(ledger: Any) -> None:
    permission = {
        "dataset": "flights",
        "purpose": "x",
        "columns": ["late"],
        "expires": ledger.clock.now + 10**6,
    }
    ledger.must("AA/steward", "permission.given", permission | {"jobs": [named("never")]})
    assert "unknown job" in text_of(page(ledger))


@pytest.mark.parametrize("expires", [253_402_300_800, 2**53 - 1])
def test_a_date_beyond_the_calendar_is_no_trouble(ledger: Any, expires: int) -> None:
    body = {"dataset": "flights", "purpose": "x", "columns": ["late"], "expires": expires}
    ledger.must("AA/steward", "permission.given", body)
    assert "beyond the calendar" in text_of(page(ledger))


def test_long_tables_say_what_they_leave_out(ledger: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "ROWS_SHOWN", 3)
    for _ in range(5):
        assert ledger.say("AA/owner", "nothing.known", {}) == "unknown-type"
    assert "The last 3 of 5 refusals are shown" in text_of(page(ledger))


def test_an_empty_ledger_gives_a_page(tmp_path: Path) -> None:
    write_report([], State(), tmp_path / "report.html")
    assert "0 entries" in text_of(Page((tmp_path / "report.html").read_text()))


def test_nothing_is_written_of_a_ledger_that_is_not_right(whole: Any, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError):
        write_report(whole.entries[:-1], whole.state, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FedhouseError, match="could not be written"):
        write_report(whole.entries, whole.state, tmp_path / "file" / "report.html")


def test_a_report_loads_nothing_heavy() -> None:
    code = """
import sys
import fedhouse.audit.report
heavy = {"great_expectations", "matplotlib", "numba", "numpy", "pandas", "pyarrow", "pyspark", "tenseal",
         "torch", "web3"}
sys.exit(" ".join(sorted(heavy & set(sys.modules))) or 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd="/", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
