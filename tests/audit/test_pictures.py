"""Axis, durations, and the small writer of SVG."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedhouse.audit import pictures
from fedhouse.audit.axis import TimeAxis, lasting, short_date, short_time
from fedhouse.audit.svg import GREEN, ORANGE, RED, Sheet, shortened
from fedhouse.governance.sandbox import START

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '</text><script>alert("1")</script>&amp;\'"<'


def parsed(picture: Any) -> ET.Element:
    return ET.fromstring(str(picture))  # noqa: S314 - our own


def fills(picture: Any) -> list[str]:
    return [node.attrib.get("fill", "") for node in parsed(picture).iter()]


def words(picture: Any) -> str:
    """Everything that is written in a picture, without what shows when it is pointed at."""
    nodes = parsed(picture).iter(f"{SVG}text")
    return " ".join((node.text or "") + "".join(child.tail or "" for child in node) for node in nodes)


@given(st.integers(0, 2**53), st.integers(0, 10**10), st.integers(2, 8))
def test_ticks_are_round_times_within_the_axis(start: int, span: int, most: int) -> None:
    axis = TimeAxis(start, start + span, 100, 700)
    ticks = axis.ticks(most)
    assert len(ticks) <= most
    times = [time for time, _ in ticks]
    assert times == sorted(set(times))
    assert all(start <= time <= start + span for time in times)
    assert all(100 <= axis.x(time) <= 700 for time in (*times, 0, start, start + span, 2**53))
    assert axis.x(start) == 100


@pytest.mark.parametrize(
    ("span", "labels"),
    [
        (0, ["14:13:20"]),
        (4, ["14:13:20", "14:13:21", "14:13:22", "14:13:23", "14:13:24"]),
        (7200, ["21 Sep 14:30", "21 Sep 15:00", "21 Sep 15:30", "21 Sep 16:00"]),
        (5 * 86_400, [f"{day} Sep 2026" for day in range(22, 27)]),
    ],
)
def test_labels_are_as_exact_as_the_steps(span: int, labels: list[str]) -> None:
    assert [label for _, label in TimeAxis(START, START + span, 0, 1).ticks()] == labels


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (12_000, "3 h 20 min"),
        (172_799, "47 h 59 min"),
        (172_800, "2 d"),
        (450_000, "5 d 5 h"),
    ],
)
def test_durations(seconds: int, text: str) -> None:
    assert lasting(seconds) == text


def test_times_beyond_the_calendar() -> None:
    assert (short_time(START), short_date(START)) == ("21 Sep 2026, 14:13:20", "21 Sep 2026")
    assert short_time(2**53) == short_date(2**53) == "beyond the calendar"


def test_every_text_is_escaped() -> None:
    sheet = Sheet(10, 10, HOSTILE)
    sheet.text(0, 0, HOSTILE, title=HOSTILE)
    sheet.rect(0, 0, 1, 1, "#ffffff", title=HOSTILE)
    sheet.circle(0, 0, 1, "#ffffff", title=HOSTILE)
    sheet.cross(0, 0, 1, "#ffffff", title=HOSTILE)
    root = parsed(sheet.render())
    assert root.attrib["aria-label"] == HOSTILE
    assert [node.text for node in root.iter(f"{SVG}title")] == [HOSTILE] * 4
    assert {node.tag.removeprefix(SVG) for node in root.iter()} == {
        *("svg", "text", "title", "rect", "circle", "path")
    }


def test_long_names_are_shortened() -> None:
    assert (shortened("abcde", 5), shortened("abcdef", 5)) == ("abcde", "abcd…")


def test_who_approved_what(ledger: Any) -> None:
    ledger.propose("late", "AA", "B6")
    ledger.step(0, "statistics", ["AA", "B6"])
    (picture,) = pictures.approval_matrices(ledger.find())
    assert "missing" in words(picture)
    ledger.put(ledger.sandbox.approval("late", "DL"))
    (picture,) = pictures.approval_matrices(ledger.find())
    assert "approved, late" in words(picture)
    assert fills(picture).count(GREEN) == 2
    assert fills(picture).count(ORANGE) == 1


def test_five_jobs_a_matrix(ledger: Any) -> None:
    assert pictures.approval_matrices(ledger.find()) == []
    for number in range(11):
        ledger.propose(f"job-{number}")
    assert len(pictures.approval_matrices(ledger.find())) == 3


def test_what_is_amiss_is_seen(ledger: Any) -> None:
    silos = ["AA", "B6", "DL"]
    ledger.propose("late", *silos)
    ledger.step(0, "statistics", silos, committing=["AA", "B6"])
    ledger.must("B6/officer", "stop.declared", {"scope": "member", "subject": "B6"})
    ledger.step(1, "update", silos, committing=["AA", "DL"], until="open")
    findings = ledger.find()
    (job,) = findings.jobs
    taken = parsed(pictures.contributions(job))
    assert len(list(taken.iter(f"{SVG}path"))) == 1  # DL's silence in the statistics
    titles = [node.text for node in taken.iter(f"{SVG}title")]
    assert "DL, statistics: did not commit" in titles
    assert "B6, round 1, update: asked, not closed" in titles
    rounds = parsed(pictures.rounds_over_time(job, findings.stops, findings.last))
    assert "stop by B6/officer" in [node.text for node in rounds.iter(f"{SVG}title")]
    assert RED in [node.attrib.get("stroke") for node in rounds.iter()]


def test_a_gate_that_failed_is_seen_and_named(ledger: Any) -> None:
    ledger.propose("late")
    ledger.put(*(ledger.sandbox.approval("late", member) for member in ("AA", "B6")))
    ledger.put(
        ledger.sandbox.attestation("late", "AA"), ledger.sandbox.attestation("late", "B6", passed=False)
    )
    picture = pictures.quality_bars(ledger.job().attestations)
    assert "failed: not-null late · 7 unexpected" in words(picture)
    assert (fills(picture).count(GREEN), fills(picture).count(RED)) == (1, 1)


@pytest.mark.parametrize("draw", [pictures.contributions, lambda job: pictures.rounds_over_time(job, [], 0)])
def test_of_very_many_steps_the_last_are_drawn(ledger: Any, draw: Callable[..., Any]) -> None:
    silos = ["AA", "B6", "DL"]
    ledger.propose("late", *silos, rounds=150)
    ledger.step(0, "statistics", silos)
    for number in range(1, 151):
        ledger.step(number, "update", silos)
    titles = " ".join(node.text or "" for node in parsed(draw(ledger.job())).iter(f"{SVG}title"))
    assert "round 150, update" in titles
    assert "round 31, update" in titles
    assert "round 30, update" not in titles
