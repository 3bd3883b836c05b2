"""The pictures of an audit report. Each is of one thing, and readable in print."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from markupsafe import Markup

from fedhouse.audit.axis import TimeAxis, short_time
from fedhouse.audit.findings import Findings, StopFinding
from fedhouse.audit.jobs import Attestation, Decision, JobFinding, Step
from fedhouse.audit.svg import BLUE, GREEN, INK, LINE, ORANGE, PALE, RED, SOFT, Anchor, Sheet, shortened
from fedhouse.audit.words import why

# A job may have thousands; more than these could not be told apart.
STEPS_SHOWN: Final = 120
_WIDTH = 800.0
_LABELS = 104.0
_ROW = 22.0
_JOBS_A_SHEET = 5
_NAME = 14


def approval_matrices(findings: Findings) -> list[Markup]:
    """Who approved what: members by jobs, five jobs a picture."""
    members = sorted(findings.state.consortium.members)
    jobs = findings.jobs
    blocks = [jobs[start : start + _JOBS_A_SHEET] for start in range(0, len(jobs), _JOBS_A_SHEET)]
    return [_matrix(members, block) for block in blocks]


def _matrix(members: Sequence[str], jobs: Sequence[JobFinding]) -> Markup:
    top, cell = 40.0, (_WIDTH - _LABELS) / _JOBS_A_SHEET
    sheet = Sheet(_WIDTH, top + _ROW * len(members) + 6, "Who approved which job")
    for column, job in enumerate(jobs):
        x = _LABELS + cell * column
        sheet.text(x + 4, 14, shortened(job.name, _NAME), bold=True, title=f"{job.name} {job.digest}")
        sheet.text(x + 4, 29, job.digest[:12], colour=SOFT, size=10)
    for row, member in enumerate(members):
        y = top + _ROW * row
        sheet.line([(0, y), (_WIDTH, y)], LINE)
        sheet.text(0, y + 15, shortened(member, _NAME), bold=True, title=member)
        for column, job in enumerate(jobs):
            _word(sheet, _LABELS + cell * column + 4, y, member, job)
    return sheet.render()


def _word(sheet: Sheet, x: float, y: float, member: str, job: JobFinding) -> None:
    """What a member said to a job: a mark and a word, so that it is read without colours too."""
    decision = job.decision_of(member)
    asked = member in job.record.silos
    if decision is not None:
        _mark(sheet, x + 6, y + 11, decision)
        late = ", late" if decision.late and decision.verdict == "approved" else ""
        sheet.text(x + 17, y + 15, f"{decision.verdict}{late}", size=11, title=_told(decision))
    elif asked:
        ended = not job.record.open or job.began is not None
        sheet.circle(x + 6, y + 11, 4.5, "none", stroke=ORANGE if ended else SOFT)
        sheet.text(x + 17, y + 15, "missing" if ended else "asked", size=11, colour=SOFT)
    if job.record.proposer.partition("/")[0] == member:
        sheet.text(x + 110, y + 15, "P", size=10, colour=SOFT, anchor="end", title=f"proposed by {member}")


def _mark(sheet: Sheet, x: float, y: float, decision: Decision) -> None:
    if decision.verdict == "declined":
        sheet.cross(x, y, 4, RED, title=_told(decision))
    else:
        sheet.circle(x, y, 5, ORANGE if decision.late else GREEN, title=_told(decision))


def _told(decision: Decision) -> str:
    return f"{decision.actor} {decision.verdict} on {short_time(decision.time)}, entry {decision.index}"


def approvals_over_time(job: JobFinding) -> Markup:
    """A job's decisions, a row a member, from the proposal to the first round or the last decision."""
    members = sorted({*job.record.silos, *(decision.member for decision in job.decisions)})
    times = [job.proposed, job.began or job.proposed, *(decision.time for decision in job.decisions)]
    axis = TimeAxis(job.proposed, max(times), _LABELS + 10, _WIDTH - 40)
    top = 30.0
    bottom = top + _ROW * len(members)
    sheet = Sheet(_WIDTH, bottom + 26, f"Approvals of {job.name} over time")
    _grid(sheet, axis, top, bottom)
    moments = ((job.approved, "enough", GREEN), (job.began, "first round", BLUE))
    for place, (moment, text, colour) in enumerate(moments):
        if moment is not None:
            x = axis.x(moment)
            sheet.line([(x, top - 8), (x, bottom)], colour, width=1.5)
            right = place > 0 and x < _WIDTH - 90
            anchor: Anchor = "start" if right else "end"
            sheet.text(x + 4 if right else x - 4, 16, text, colour=colour, size=11, anchor=anchor)
    for row, member in enumerate(members):
        y = top + _ROW * row + _ROW / 2
        sheet.text(0, y + 4, shortened(member, _NAME), bold=True, title=member)
        for decision in job.decisions:
            if decision.member == member:
                _mark(sheet, axis.x(decision.time), y, decision)
        if job.decision_of(member) is None:
            missing = job.began is not None
            sheet.rect(_LABELS + 10, y - 8, 72, 16, "#ffffff")
            sheet.text(
                _LABELS + 12, y + 4, "no decision", size=11, colour=RED if missing else SOFT, bold=missing
            )
    return sheet.render()


def rounds_over_time(job: JobFinding, stops: Iterable[StopFinding], last: int) -> Markup:
    """When the last steps were opened, closed and published; a row a purpose, stops behind them."""
    steps = job.steps[-STEPS_SHOWN:]
    began = steps[0].opened
    end = max([job.ended or 0, *(step.ended for step in steps)])
    axis = TimeAxis(began, end, _LABELS + 10, _WIDTH - 16)
    purposes = [purpose for purpose in ("statistics", "update", "evaluation") if _of(steps, purpose)]
    top, height = 10.0, 26.0
    bottom = top + height * len(purposes)
    sheet = Sheet(_WIDTH, bottom + 26, f"Rounds of {job.name} over time")
    _grid(sheet, axis, top, bottom)
    for stop in stops:
        if stop.since <= end and (stop.until is None or stop.until >= began):
            x = axis.x(stop.since)
            width = max(2.0, axis.x(last if stop.until is None else stop.until) - x)
            sheet.rect(x, top - 4, width, bottom - top + 8, RED, opacity=0.16, title=f"stop by {stop.actor}")
    for row, purpose in enumerate(purposes):
        y = top + height * row
        sheet.text(0, y + 17, purpose, bold=True)
        for step in _of(steps, purpose):
            _bar(sheet, axis, y + 5, step)
    return sheet.render()


def _of(steps: Iterable[Step], purpose: str) -> list[Step]:
    return [step for step in steps if step.purpose == purpose]


def _bar(sheet: Sheet, axis: TimeAxis, y: float, step: Step) -> None:
    """Commitments in a light colour, the sum in a full one; an outline where the step did not end."""
    x = axis.x(step.opened)
    width = max(4.0, axis.x(step.ended) - x)
    done = step.published is not None
    title = f"{step.name}: opened {short_time(step.opened)}, {'published' if done else 'not published'}"
    sheet.rect(x, y, width, 16, "#a9cfe6" if done else "#ffffff", stroke="none" if done else RED, title=title)
    if done and step.closed is not None:
        closed = axis.x(step.closed)
        sheet.rect(closed, y, max(2.0, x + width - closed), 16, BLUE, title=title)
    if width >= 16:
        sheet.text(x + 4, y + 12, str(step.round), size=10.5, colour=INK)


def _grid(sheet: Sheet, axis: TimeAxis, top: float, bottom: float) -> None:
    """Vertical lines at round times, their labels below; the last label stays within the sheet."""
    for time, label in axis.ticks():
        x = axis.x(time)
        sheet.line([(x, top - 4), (x, bottom)], LINE)
        anchor: Anchor = "end" if x > _WIDTH - 50 else "middle"
        sheet.text(min(x, _WIDTH), bottom + 16, label, colour=SOFT, size=10.5, anchor=anchor)


def contributions(job: JobFinding) -> Markup:
    """Silos by the last steps: contributed, committed and left out, silent, or not asked."""
    steps = job.steps[-STEPS_SHOWN:]
    width = min(40.0, (_WIDTH - _LABELS - 4) / len(steps))
    top, row = 22.0, 18.0
    silos = job.record.silos
    sheet = Sheet(_WIDTH, top + row * len(silos) + 4, f"Who took part in which step of {job.name}")
    every = max(1, round(26 / width))
    for place, step in enumerate(steps):
        if place % every == 0:
            name = {"statistics": "S", "update": str(step.round), "evaluation": "e"}[step.purpose]
            x = _LABELS + width * (place + 0.5)
            sheet.text(x, 14, name, colour=SOFT, size=10, anchor="middle", title=step.name)
    for line, silo in enumerate(silos):
        y = top + row * line
        sheet.text(0, y + 12, shortened(silo, _NAME), bold=True, title=silo)
        for place, step in enumerate(steps):
            _cell(sheet, _LABELS + width * place, y, width, silo, step)
    return sheet.render()


def _cell(sheet: Sheet, x: float, y: float, width: float, silo: str, step: Step) -> None:
    inner = max(1.0, width - 2)
    title = f"{silo}, {step.name}: "
    committed = any(name == silo for name, _ in step.committed)
    if silo in step.contributors:
        sheet.rect(x + 1, y + 1, inner, 14, GREEN, title=f"{title}contributed")
    elif silo in step.left_out:
        sheet.rect(x + 1, y + 1, inner, 14, "#fbe7c0", stroke=ORANGE, title=f"{title}committed, left out")
    elif silo in step.silent:
        sheet.rect(x + 1, y + 1, inner, 14, PALE)
        sheet.cross(x + width / 2, y + 8, min(4.0, width / 3), RED, title=f"{title}did not commit")
    elif committed:
        sheet.rect(x + 1, y + 1, inner, 14, "#bfe3d6", title=f"{title}committed, not closed")
    elif silo in step.cohort:
        sheet.rect(x + 1, y + 1, inner, 14, "#ffffff", stroke=SOFT, title=f"{title}asked, not closed")
    else:
        sheet.rect(x + 1, y + 1, inner, 14, PALE, title=f"{title}not asked")


def quality_bars(attestations: Sequence[Attestation]) -> Markup:
    """What each silo's gate looked at and found: rows as bars, counts as words."""
    most = max([1, *(one.rows for one in attestations)])
    sheet = Sheet(_WIDTH, _ROW * len(attestations) + 6, "Quality gates: rows and unexpected values")
    room = 230.0
    for row, one in enumerate(sorted(attestations, key=lambda one: one.member)):
        y = _ROW * row
        sheet.text(0, y + 15, shortened(one.member, _NAME), bold=True, title=one.member)
        length = max(2.0, room * one.rows / most)
        colour = GREEN if one.passed else RED
        sheet.rect(_LABELS, y + 4, length, 14, colour, title=f"{one.rows:,} rows, entry {one.index}")
        passed = sum(check.passed for check in one.checks)
        told = (
            f"{one.rows:,} rows · {passed} of {len(one.checks)} checks passed · {one.unexpected:,} unexpected"
        )
        if not one.passed:
            told = f"{one.rows:,} rows · failed: {', '.join(one.failed)} · {one.unexpected:,} unexpected"
        sheet.text(_LABELS + length + 8, y + 15, shortened(told, 72), size=11.5, title=told)
    return sheet.render()


def refusal_bars(counts: Mapping[str, int]) -> Markup:
    """How often the rules refused, a bar a code."""
    most = max([1, *counts.values()])
    left, room = 132.0, 220.0
    sheet = Sheet(_WIDTH, _ROW * len(counts) + 6, "Refused events by the rule that refused them")
    for row, (code, count) in enumerate(counts.items()):
        y = _ROW * row
        sheet.text(0, y + 15, shortened(code, 20), title=code)
        length = max(2.0, room * count / most)
        sheet.rect(left, y + 4, length, 14, ORANGE)
        sheet.text(left + length + 8, y + 15, f"{count:,}", size=11.5, bold=True)
        sheet.text(left + length + 16 + 7 * len(f"{count:,}"), y + 15, why(code), size=11.5, colour=SOFT)
    return sheet.render()
