"""The documents of governance against the code: events, signers, refusals, finality, commands, programs."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from fedhouse.cli.main import app
from fedhouse.federation.journal import MENDS
from fedhouse.governance.checkpoints import required_cosignatures
from fedhouse.governance.reducer import EVENTS

DOCUMENTS = (
    "docs/governance.md",
    "docs/compliance.md",
    "docs/threat-model.md",
    "docs/guides/audit.md",
    *(f"docs/adr/{name}.md" for name in ("0007-one-log-one-reducer", "0008-envelopes-and-one-encoding")),
    *(f"docs/adr/{name}.md" for name in ("0009-finality-by-entity-cosignatures", "0011-journals-once")),
    "docs/adr/0010-outcomes-in-a-second-tree.md",
)
ROLES = {"owner", "steward", "officer", "admin"}
KINDS = {"agent", "operator"}

FENCE = re.compile(r"^```([a-z]*)\n(.*?)^```", re.M | re.S)
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
EVENT = re.compile(r"([a-z]+(?:-[a-z]+)*)\.(?!py$)[a-z]+(?:-[a-z]+)*")


@pytest.fixture(scope="module")
def texts(root: Path) -> dict[str, str]:
    return {name: (root / name).read_text() for name in DOCUMENTS}


def _section(text: str, title: str) -> str:
    """What stands under a heading of the second level."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert found is not None, title
    return found[1]


def _rows(text: str) -> Iterator[list[str]]:
    """The cells of every row of a table whose first cell is code."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            yield [cells[0].strip("`"), *cells[1:]]


# --- events and who signs them ----------------------------------------------------------------------


def test_every_event_has_its_row_and_no_other_is_named(texts: dict[str, str]) -> None:
    rows = [row[0] for row in _rows(_section(texts["docs/governance.md"], "Events"))]
    assert sorted(rows) == sorted(EVENTS)
    families = {name.partition(".")[0] for name in EVENTS}
    for document, text in texts.items():
        named = {
            word for word in CODE.findall(text) if (found := EVENT.fullmatch(word)) and found[1] in families
        }
        assert named <= set(EVENTS), document


def _asked_of(rule: Callable[..., Any]) -> tuple[set[str], set[str]]:
    """The roles and the kinds that a rule, or what it calls in its module, asks of a signer."""
    module = inspect.getmodule(rule)
    assert module is not None
    functions = {
        item.name: item
        for item in ast.parse(inspect.getsource(module)).body
        if isinstance(item, ast.FunctionDef)
    }
    roles, kinds, todo, done = set[str](), set[str](), [rule.__name__], set[str]()
    while todo:
        done.add(name := todo.pop())
        for call in ast.walk(functions[name]):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
                continue
            texts = {item.value for item in call.args if isinstance(item, ast.Constant)}
            roles |= texts if call.func.id == "require_role" else set()
            kinds |= texts if call.func.id == "require_kind" else set()
            todo += [call.func.id] if call.func.id in functions.keys() - done else []
    return roles, kinds


def test_the_table_says_who_may_sign(texts: dict[str, str]) -> None:
    for event, who, *_ in _rows(_section(texts["docs/governance.md"], "Events")):
        told = ROLES if "any person" in who else {word for word in CODE.findall(who) if word in ROLES}
        kinds = {kind for kind in KINDS if re.search(rf"\b{kind}\b", who)}
        assert (told, kinds) == _asked_of(EVENTS[event].rule), event


# --- refusals ---------------------------------------------------------------------------------------


def _texts_in(value: ast.expr) -> set[str] | None:
    """The texts that an expression can be; None if it says so only when it runs."""
    match value:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.IfExp(body=one, orelse=other):
            first, second = _texts_in(one), _texts_in(other)
            return None if first is None or second is None else first | second
    return None


def _codes(root: Path) -> tuple[set[str], set[str]]:
    """Every code that the rules refuse with, and where one is told only at run time."""
    codes, hidden = set[str](), set[str]()
    for path in sorted((root / "governance").rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                found: ast.expr | None = None
                match node:
                    case ast.Call(func=ast.Name(id="require"), args=[_, code]):
                        found = code
                    case ast.Call(func=ast.Name(id="Refused"), args=[code]):
                        found = code
                    case ast.Return(value=ast.expr() as code) if function.name == "why_not":
                        found = code
                if found is not None:
                    texts = _texts_in(found)
                    codes |= texts or set()
                    hidden |= {f"{path.name}:{function.name}"} if texts is None else set()
    return codes - {""}, hidden


def test_every_refusal_is_explained_and_no_other_is(root: Path, texts: dict[str, str]) -> None:
    codes, hidden = _codes(root)
    # `require` hands its code on, and gate 2 what the permissions say, whose texts are collected.
    assert hidden == {"event.py:require", "state.py:may_take_part"}
    rows = [row[0] for row in _rows(_section(texts["docs/governance.md"], "Refusals"))]
    assert rows == sorted(codes)
    assert set(MENDS) <= codes | {"not-committed"}


def test_each_refusal_has_a_meaning_and_a_remedy(texts: dict[str, str]) -> None:
    for code, meaning, remedy in _rows(_section(texts["docs/governance.md"], "Refusals")):
        assert meaning, code
        assert remedy, code


# --- finality ---------------------------------------------------------------------------------------


def test_the_table_of_finality_is_that_of_the_formula(texts: dict[str, str]) -> None:
    section = _section(texts["docs/governance.md"], "Finality")
    rows = [tuple(map(int, row)) for row in re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \|$", section, re.M)]
    assert len(rows) > 3
    assert rows == [(n, c, required_cosignatures(n, c)) for n, c, _ in rows]


# --- commands ---------------------------------------------------------------------------------------


def _find(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that words name, and the words behind its name."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        command, words = command.commands[words[0]], words[1:]
    return command, words


def test_every_command_in_a_block_could_be_run(
    texts: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FEDHOUSE_LEDGER", raising=False)
    seen = 0
    for document, text in texts.items():
        for language, block in FENCE.findall(text):
            with pytest.MonkeyPatch.context() as told:
                for line in block.replace("\\\n", " ").splitlines() if language == "sh" else ():
                    words = shlex.split(line, comments=True)
                    if words[:1] == ["export"]:
                        told.setenv(*words[1].split("="))
                    elif words and Path(words[0]).name == "fedhouse" and words[1:] != ["--version"]:
                        command, rest = _find(words[1:])
                        assert not hasattr(command, "commands"), f"{document}: {line}"
                        command.make_context(command.name or "", rest).close()
                        seen += 1
    assert seen > 10


def test_every_command_in_a_sentence_exists(texts: dict[str, str]) -> None:
    seen = 0
    for document, text in texts.items():
        for code in CODE.findall(FENCE.sub("", text)):
            words = shlex.split(code)
            if words[0] != "fedhouse" or len(words) == 1:
                continue
            try:
                command, rest = _find(words[1:])
            except KeyError as error:
                raise AssertionError(f"{document}: {code}: {error}") from error
            known = {name for option in command.params for name in option.opts}
            assert {word for word in rest if word.startswith("-")} <= known, f"{document}: {code}"
            seen += 1
    assert seen > 20


# --- the programs of the guide ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as an auditor has it: `evidence.zip`, unpacked in `evidence`, and `trust.keys`."""
    from fedhouse.chain_adapters.merkle_log.log import MerkleLog
    from fedhouse.governance.checkpoints import cosign
    from fedhouse.governance.evidence import build_pack
    from fedhouse.governance.notes import SignedNote, parse_note
    from fedhouse.governance.sandbox import SandboxClock, SandboxConsortium, named
    from fedhouse.governance.trust import Trust

    folder, clock = tmp_path_factory.mktemp("audit"), SandboxClock()
    parties = SandboxConsortium(("AA", "B6", "DL", "UA"), clock=clock)
    with MerkleLog.create(folder / "log", parties.founding(), clock=clock, operator=parties.log) as log:
        log.append([*parties.bootstrap(), *parties.job_events()])
        log.append([parties.approval("late", "AA")])  # refused: the job is closed
        text = parse_note(log.checkpoint()).text
        actors = [f"{member}/witness" for member in parties.members]
        lines = [cosign(text, f"{parties.origin}/{one}", parties.signer(one), clock()) for one in actors]
        log.cosigned(SignedNote(text, tuple(lines)).render())
        trust = Trust.of(log.state)
        (folder / "trust.keys").write_bytes(trust.render())
        build_pack(log, job=named("late"), bundle_folder=None, out=folder / "evidence.zip", trust=trust)
    with zipfile.ZipFile(folder / "evidence.zip") as pack:
        pack.extractall(folder / "evidence")
    return folder


def _program(texts: dict[str, str], mark: str) -> str:
    blocks = [block for kind, block in FENCE.findall(texts["docs/guides/audit.md"]) if kind == "python"]
    (found,) = (block for block in blocks if mark in block)
    return found


def _run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_report_is_made_from_a_pack_alone(texts: dict[str, str], audited: Path) -> None:
    done = _run(audited, "-c", _program(texts, "write_report"))
    assert done.returncode == 0, done.stderr
    assert "four" not in done.stdout
    assert (audited / "entries.csv").read_text().count("\n") > 30
    assert "<svg" in (audited / "audit.html").read_text()


def test_a_receipt_is_checked_without_fedhouse(texts: dict[str, str], audited: Path) -> None:
    program = _program(texts, "receipt.py")
    assert "fedhouse" not in program
    (audited / "receipt.py").write_text(program)
    proofs = sorted((audited / "evidence" / "proofs").iterdir())
    outcomes = (audited / "evidence" / "outcomes").read_text().splitlines()
    for proof in (proofs[0], proofs[-1], *proofs[1:5]):
        entry = f"evidence/entries/{proof.stem}.json"
        done = _run(audited, "receipt.py", "trust.keys", entry, str(proof))
        assert done.returncode == 0, done.stderr
        time, verdict = outcomes[int(proof.stem)].split(" ")
        assert f"Entry {proof.stem} of sandbox.example/ledger: {verdict}, at {time}" in done.stdout
    assert any(line.endswith(" closed") for line in outcomes)


def test_the_same_program_refuses_what_is_not_so(texts: dict[str, str], audited: Path) -> None:
    (audited / "receipt.py").write_text(_program(texts, "receipt.py"))
    proof = min((audited / "evidence" / "proofs").iterdir())
    entry, trust = audited / "evidence/entries" / f"{proof.stem}.json", (audited / "trust.keys").read_text()
    lines = trust.splitlines(keepends=True)
    few = "".join(line.replace("/witness+", "/nobody+") for line in lines)
    other = audited / "other.json"
    other.write_bytes(entry.read_bytes() + b" ")
    (audited / "few.keys").write_text(few)
    told = proof.read_text().splitlines(keepends=True)
    (audited / "short.tlog-proof").write_text("".join(told[:3] + told[4:]))
    for words in (
        ("trust.keys", "other.json", str(proof)),
        ("few.keys", str(entry), str(proof)),
        ("trust.keys", str(entry), "short.tlog-proof"),
    ):
        done = _run(audited, "receipt.py", *words)
        assert done.returncode == 1, words
        assert "Traceback" not in done.stderr, done.stderr
