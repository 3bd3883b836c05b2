"""Evidence packs: what they show, and every way to change one."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedhouse.bundle import Bundle, Entries
from fedhouse.chain_adapters.merkle_log.log import MerkleLog
from fedhouse.encoding import canonical_json, digest_of, sha256
from fedhouse.errors import ConfigurationError, IntegrityError, SignatureError, VerificationError
from fedhouse.governance.archive import pack_archive, unpack_archive
from fedhouse.governance.checkpoints import Extensions, LogCheckpoint, cosign
from fedhouse.governance.envelope import PayloadRef, parse_envelope
from fedhouse.governance.evidence import build_pack, verify_pack
from fedhouse.governance.merkle import Frontier, leaf_hash
from fedhouse.governance.notes import NoteKey, NoteKind, SignedNote, parse_note, sign_note
from fedhouse.governance.pack_layout import Material, lay_out, take_apart
from fedhouse.governance.replay import Replay
from fedhouse.governance.sandbox import SandboxClock, SandboxConsortium, named
from fedhouse.governance.trust import Trust, verify_receipt
from fedhouse.identity.signer import SoftwareSigner
from fedhouse.types import ParameterLayout, TensorSpec

MEMBERS = ("AA", "B6", "DL")
JOB = named("late")

BUNDLE = Bundle(
    sources={"late.py": "def train(): ...\n", "parts/Net.py": "class Net: ...\n"},
    entries=Entries("late:Net", "late:train", "late:evaluate"),
    weights=b"weights" * 20,
    layout=ParameterLayout((TensorSpec("layer.weight", (3, 2), "float32"),)),
    model_args={"width": 3},
    train_args={"lr": 0.125},
    bounds={"seconds": 600, "parameters": 100, "scratch_mib": 64},
)


@dataclass
class House:
    """A ledger in a folder, and what makes it final."""

    folder: Path
    consortium: SandboxConsortium
    log: MerkleLog

    @classmethod
    def found(cls, folder: Path, members: Sequence[str] = MEMBERS, **options: Any) -> House:
        clock = SandboxClock()
        consortium = SandboxConsortium(members, clock=clock, **options)
        log = MerkleLog.create(folder / "log", consortium.founding(), clock=clock, operator=consortium.log)
        return cls(folder, consortium, log)

    @property
    def trust(self) -> Trust:
        return Trust.of(self.log.state)

    def play(self, envelopes: Sequence[bytes]) -> None:
        for envelope in envelopes:
            self.consortium.clock.advance(1)  # type: ignore[attr-defined]
            self.log.append([envelope])

    def finalise(self, members: Sequence[str] | None = None) -> None:
        note = parse_note(self.log.checkpoint())
        self.log.cosigned(self.cosigned(note.text, self.consortium.members if members is None else members))

    def cosigned(self, text: str, members: Sequence[str], *, log: SoftwareSigner | None = None) -> bytes:
        """A checkpoint by the log's key, cosigned by these members' witnesses."""
        made = self.consortium
        lines = [
            cosign(text, f"{made.origin}/{m}/witness", made.signer(f"{m}/witness"), made.clock())
            for m in members
        ]
        return SignedNote(text, (sign_note(text, made.origin, log or made.log), *lines)).render()

    def build(self, name: str = "evidence.zip", **options: Any) -> Path:
        out = self.folder / name
        build_pack(self.log, **{"job": JOB, "bundle_folder": None, "out": out, "trust": self.trust} | options)
        return out


def proposal(house: House, bundle: str) -> bytes:
    """The sandbox's proposal of the job, with another bundle."""
    told = parse_envelope(SandboxConsortium(house.consortium.members).proposal("late", rounds=1)).statement
    return house.consortium.sign(f"{MEMBERS[0]}/owner", "job.proposed", {**told.body, "bundle": bundle})


def history(house: House, bundle: str) -> None:
    """A job with refusals, a stop and its lifting; a second job that is only proposed."""
    made, job = house.consortium, {"job": JOB}
    house.play(made.bootstrap())
    house.play([made.sign("AA/agent", "stop.lifted", {"stop": named("no stop")})])  # refused: role
    house.play([made.sign("B6/owner", "job.proposed", {"job": JOB, "rounds": ["=1+1"]})])  # refused: schema
    house.play([proposal(house, bundle), made.proposal("second")])
    approve = {**job, "bundle": bundle}
    house.play([made.sign("AA/owner", "job.approved", approve)])  # refused: role
    for member in MEMBERS:
        reason = PayloadRef("reason", named(f"reason of {member}"), "incident")
        house.play([made.sign(f"{member}/steward", "job.approved", approve, payloads=[reason])])
    house.play([made.attestation("late", m) for m in MEMBERS])
    stop = made.sign("DL/officer", "stop.declared", {"scope": "job", "subject": JOB})
    house.play([stop])
    house.play([made.sign(f"{m}/admin", "stop.lifted", {"stop": sha256(stop)}) for m in MEMBERS[:2]])
    house.play(made.step("late", 0, "statistics", bundle, named("encoder")))
    house.play(made.step("late", 1, "update", named("encoder"), named("model")))
    closed = {**job, "reason": "rounds", "rounds": 1, "model": named("model")}
    house.play([made.sign(made.operator, "job.closed", closed)])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A ledger with a job; final, and then an event that is not."""
    made = House.found(tmp_path_factory.mktemp("house"))
    history(made, BUNDLE.digest)
    BUNDLE.save(made.folder / "bundle")
    made.finalise()
    late = {"name": "late-one", "schema_digest": named("x"), "columns": ["a"], "suite": named("x")}
    made.play([made.consortium.sign("AA/steward", "dataset.registered", {**late, "rows": "1-2"})])
    yield made
    made.log.close()


@pytest.fixture(scope="module")
def pack(house: House) -> Path:
    return house.build(bundle_folder=house.folder / "bundle")


@pytest.fixture(scope="module")
def files(pack: Path) -> dict[str, bytes]:
    return unpack_archive(pack.read_bytes())


@pytest.fixture
def verify(house: House, tmp_path: Path) -> Callable[..., Any]:
    """Verifies files that a forger has packed as well as they could."""

    def run(files: Mapping[str, bytes] | bytes, trust: Trust | None = house.trust) -> Any:
        path = tmp_path / "hostile.zip"
        path.write_bytes(files if isinstance(files, bytes) else pack_archive(files))
        return verify_pack(path, trust)

    return run


def listed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files, with a manifest that lists them as they are."""
    rest = {name: data for name, data in files.items() if name != "manifest.json"}
    told = json.loads(files["manifest.json"])
    told["files"] = {name: {"bytes": len(data), "sha256": sha256(data)} for name, data in rest.items()}
    return {**rest, "manifest.json": canonical_json(told) + b"\n"}


def shown(entries: Sequence[bytes]) -> list[str]:
    return [parse_envelope(data).statement.event for data in entries]


# What a pack shows


def test_a_pack_of_a_job_proves_itself(house: House, pack: Path, files: dict[str, bytes]) -> None:
    report = verify_pack(pack, house.trust)
    size = house.log.size - 1
    assert (report.job, report.entries, report.bundle, report.origin_checked) == (JOB, size, True, True)
    assert report.refused == {"role": 2, "schema": 1}
    assert report.accepted == size - 3
    assert report.finality.cosigners == MEMBERS
    assert report.head.size == size
    assert report.state.jobs.jobs[JOB].status == "closed"
    assert report.fingerprint == house.trust.fingerprint
    assert report.history == house.log.read(0, size)
    told = json.loads(files["manifest.json"])
    assert told["absent"] == {
        "policies": "no policy events exist in this version",
        "settlement.json": "no settlement events exist in this version",
    }
    assert (told["scope"], told["job"], told["size"]) == ("job", JOB, size)
    assert set(told["files"]) == set(files) - {"manifest.json"}


def test_receipts_are_those_of_the_job_refused_events_and_its_stop_included(
    house: House, files: dict[str, bytes]
) -> None:
    proven = sorted(int(name[7:-11]) for name in files if name.startswith("proofs/"))
    events = shown([files[f"entries/{index}.json"] for index in proven])
    assert events.count("job.approved") == 4
    assert events.count("job.proposed") == 2  # the refused one too; not that of the other job
    assert events.count("stop.declared") == 1
    assert events.count("stop.lifted") == 2
    assert events.count("job.closed") == 1
    assert "dataset.registered" not in events
    for index in proven:
        envelope, proof = files[f"entries/{index}.json"], files[f"proofs/{index}.tlog-proof"]
        (entry,) = house.log.read(index, index + 1)
        assert verify_receipt(envelope, proof, house.trust) == entry.outcome


def test_a_pack_of_the_ledger_has_every_receipt(house: House) -> None:
    report = verify_pack(path := house.build("ledger.zip", job=None), house.trust)
    files = unpack_archive(path.read_bytes())
    assert report.job is None
    assert sum(name.startswith("proofs/") for name in files) == report.entries
    told = json.loads(files["manifest.json"])
    assert (told["scope"], told["job"]) == ("ledger", None)
    assert "bundle" in told["absent"]


def test_a_pack_without_its_bundle_says_so(house: House) -> None:
    path = house.build("bare.zip")
    assert not verify_pack(path, house.trust).bundle
    assert "bundle" in json.loads(unpack_archive(path.read_bytes())["manifest.json"])["absent"]


def test_the_same_ledger_gives_the_same_bytes(house: House, pack: Path) -> None:
    again = house.build("again.zip", bundle_folder=house.folder / "bundle")
    assert again.read_bytes() == pack.read_bytes()


def test_without_a_trust_file_the_origin_is_unchecked(house: House, pack: Path) -> None:
    report = verify_pack(pack, None)
    assert not report.origin_checked
    assert report.fingerprint == house.trust.fingerprint


def test_any_unzip_program_opens_it(pack: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(pack) as opened:
        assert opened.testzip() is None
        assert {name: opened.read(name) for name in opened.namelist()} == files
    assert (files["bundle/src/parts/Net.py"], files["bundle/weights.safetensors"]) == (
        BUNDLE.sources["parts/Net.py"].encode(),
        BUNDLE.weights,
    )


def test_ten_rounds_of_sixteen_silos_take_less_than_five_megabytes(tmp_path: Path) -> None:
    big = House.found(tmp_path, [f"S{number:02}" for number in range(16)])
    big.log.append(big.consortium.bootstrap())
    big.log.append(big.consortium.job_events(rounds=10, evaluated=True))
    big.finalise()
    path = big.build()
    assert verify_pack(path, big.trust).entries > 400
    assert path.stat().st_size <= 5 * 10**6
    big.log.close()


def test_many_signatures_are_verified_by_other_processes_too(
    house: House, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedhouse.governance.replay._ALONE", 10)
    assert verify_pack(pack, house.trust, processes=1).origin_checked


# No heavy package, no network


def test_verifying_loads_nothing_heavy_and_opens_no_socket(house: House, pack: Path) -> None:
    keys = house.folder / "trust.keys"
    keys.write_bytes(house.trust.render())
    code = """
import sys
from pathlib import Path
def hook(event, arguments):
    if event.startswith("socket."):
        raise RuntimeError(event)
sys.addaudithook(hook)
from fedhouse.governance.evidence import verify_pack
from fedhouse.governance.trust import Trust
report = verify_pack(Path(sys.argv[1]), Trust.parse(Path(sys.argv[2]).read_bytes()))
assert report.origin_checked
heavy = {"great_expectations", "matplotlib", "numba", "numpy", "pandas", "pyarrow", "pyspark", "tenseal",
         "torch", "web3", "sqlite3", "jinja2"}
sys.exit(" ".join(sorted(heavy & set(sys.modules))) or 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(pack), str(keys)],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# Changed bytes


def test_every_single_bit_of_the_archive_counts(pack: Path, verify: Any) -> None:
    """2,500 bits over the whole archive, and each bit of its last bytes, where the directory ends."""
    good = pack.read_bytes()
    bits = 8 * len(good)
    places = {step * bits // 2500 for step in range(2500)} | set(range(bits - 400, bits))
    for place in places:
        changed = bytearray(good)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(IntegrityError, match=r"^The archive .*(\d|/|checkpoint|manifest|outcomes)"):
            verify(bytes(changed))


def broken(name: str, message: str) -> bool:
    """Whether a message names the file, or the entry that a file is of."""
    number = name.removeprefix("entries/").removesuffix(".json")
    return name in message or f"Entry {number}:" in message


@pytest.mark.parametrize("relist", [False, True], ids=["checksums repaired", "manifest repaired too"])
def test_a_changed_file_in_a_good_archive_is_named(
    files: dict[str, bytes], verify: Any, relist: bool
) -> None:
    """A forger who repairs checksums, and one who repairs the manifest as well."""
    chosen = [name for number, name in enumerate(files) if number % 9 == 0 or "/" not in name]
    chosen += [name for name in files if name.startswith(("keys/", "bundle/"))]
    for number, name in enumerate(chosen):
        place = number * 7919 % (8 * len(files[name]))
        changed = bytearray(files[name])
        changed[place // 8] ^= 1 << place % 8
        hostile = {**files, name: bytes(changed)}
        if relist and name == "manifest.json":
            continue
        with pytest.raises(VerificationError) as caught:
            verify(listed(hostile) if relist else hostile)
        message = str(caught.value)
        assert broken(name, message) or (name == "outcomes" and "Entry" in message), (name, message)


@pytest.mark.parametrize(
    "name", ["checkpoint", "outcomes", "manifest.json", "keys/log", "bundle/manifest.json"]
)
def test_every_bit_of_the_small_files_counts(files: dict[str, bytes], verify: Any, name: str) -> None:
    data = files[name]
    for place in range(0, 8 * len(data), max(1, len(data) // 6)):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(VerificationError):
            verify({**files, name: bytes(changed)})


@pytest.mark.parametrize("relist", [False, True])
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("entries/0.json", "entries/0.json is missing"),
        ("entries/7.json", "entries/7.json is missing"),
        ("outcomes", "outcomes is missing"),
        ("checkpoint", "checkpoint is missing"),
        ("keys/log", "keys/log is missing"),
        ("keys/witnesses/B6/1", "keys/witnesses/B6/1 is missing"),
        ("bundle/manifest.json", "bundle/manifest.json"),
        ("bundle/src/late.py", "bundle/src/late.py is missing"),
        ("bundle/weights.safetensors", "bundle/weights.safetensors is missing"),
    ],
)
def test_a_missing_file_is_named(
    files: dict[str, bytes], verify: Any, name: str, told: str, relist: bool
) -> None:
    rest = {kept: data for kept, data in files.items() if kept != name}
    with pytest.raises(IntegrityError, match=told):
        verify(listed(rest) if relist else rest)


def test_a_missing_receipt_is_named(files: dict[str, bytes], verify: Any) -> None:
    name = next(name for name in files if name.startswith("proofs/"))
    rest = {kept: data for kept, data in files.items() if kept != name}
    with pytest.raises(IntegrityError, match=f"{name} is missing"):
        verify(listed(rest))


def test_an_empty_pack_and_one_without_manifest_are_refused(files: dict[str, bytes], verify: Any) -> None:
    with pytest.raises(IntegrityError, match="checkpoint is missing"):
        verify({})
    with pytest.raises(IntegrityError, match=r"manifest\.json is missing"):
        verify({name: data for name, data in files.items() if name != "manifest.json"})


@pytest.mark.parametrize(
    "name",
    [
        "README",
        "entries/9999.json",
        "entries/01.json",
        "proofs/9999.tlog-proof",
        "keys/witnesses/B6/2",
        "payloads/x",
    ],
)
def test_a_file_more_is_named(files: dict[str, bytes], verify: Any, name: str) -> None:
    with pytest.raises(IntegrityError, match=f"{name} does not belong"):
        verify(listed({**files, name: b"more"}))


def test_a_true_receipt_of_another_entry_is_one_too_many(
    house: House, files: dict[str, bytes], verify: Any
) -> None:
    with pytest.raises(IntegrityError, match=r"proofs/0\.tlog-proof does not belong"):
        verify(listed({**files, "proofs/0.tlog-proof": house.log.receipt(0)}))


def test_exchanged_and_repeated_entries_are_refused(files: dict[str, bytes], verify: Any) -> None:
    exchanged = {"entries/5.json": files["entries/6.json"], "entries/6.json": files["entries/5.json"]}
    with pytest.raises(VerificationError):
        verify(listed({**files, **exchanged}))
    with pytest.raises(VerificationError, match="Entry 6"):
        verify(listed({**files, "entries/6.json": files["entries/5.json"]}))


@pytest.mark.parametrize(
    "change",
    [
        {"absent": {}},
        {"note": "hi"},
        {"refused": {}},
        {"size": 3},
        {"time": 0},
        {"job": None},
        {"format": "x"},
    ],
    ids=str,
)
def test_the_manifest_says_nothing_of_its_own(
    files: dict[str, bytes], verify: Any, change: dict[str, Any]
) -> None:
    told = json.loads(files["manifest.json"]) | change
    with pytest.raises(IntegrityError, match=r"manifest\.json|bundle/|proofs/"):
        verify({**files, "manifest.json": canonical_json(told) + b"\n"})


@pytest.mark.parametrize(
    "manifest",
    [b"", b"[]", b"null", b'{"format":"fedhouse-evidence/1"}', b"[" * 5000, b'{"a":1,"a":1}', b"\xff"],
)
def test_a_malformed_manifest_is_named(files: dict[str, bytes], verify: Any, manifest: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"manifest\.json"):
        verify({**files, "manifest.json": manifest})


def test_a_manifest_with_spaces_is_another(files: dict[str, bytes], verify: Any) -> None:
    spaced = json.dumps(json.loads(files["manifest.json"])).encode()
    with pytest.raises(IntegrityError, match=r"manifest\.json is not what"):
        verify({**files, "manifest.json": spaced})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_only_verification_errors_come_out(files: dict[str, bytes], verify: Any, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(files)))
    old = files[name]
    start, length = data.draw(st.integers(0, len(old))), data.draw(st.integers(0, 40))
    new = data.draw(st.binary(max_size=40))
    changed = old[:start] + new + old[start + length :]
    if changed != old:
        with pytest.raises(VerificationError):
            verify(listed({**files, name: changed}) if name != "manifest.json" else {**files, name: changed})


# Other archives


def by_zipfile(files: Mapping[str, bytes], kind: int, names: Sequence[str], comment: bytes = b"") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as opened:
        for name in names:
            info = zipfile.ZipInfo(name)
            info.compress_type, info.external_attr = kind, 0o100644 << 16
            opened.writestr(info, files[name])
        opened.comment = comment
    return out.getvalue()


def test_the_same_files_in_another_archive_are_refused(files: dict[str, bytes], verify: Any) -> None:
    stored, names = zipfile.ZIP_STORED, sorted(files)
    assert verify(by_zipfile(files, stored, names)).origin_checked
    hostile = {
        "deflated": by_zipfile(files, zipfile.ZIP_DEFLATED, names),
        "reordered": by_zipfile(files, stored, names[::-1]),
        "with a comment": by_zipfile(files, stored, names, b"seen"),
        "with bytes before": b"\0" + by_zipfile(files, stored, names),
        "with bytes behind": by_zipfile(files, stored, names) + b"\0",
    }
    for data in hostile.values():
        with pytest.raises(IntegrityError, match="The archive"):
            verify(data)


def test_names_that_lead_elsewhere_are_refused(files: dict[str, bytes], verify: Any) -> None:
    for name in ("../evil", "/etc/evil", "entries/../../evil", "entries\\evil"):
        data = by_zipfile({**files, name: b""}, zipfile.ZIP_STORED, sorted([*files, name]))
        with pytest.raises(IntegrityError, match="The archive"):
            verify(data)


# Other keys


@pytest.fixture(scope="module")
def impostor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The same history word for word, signed by other keys."""
    made = House.found(tmp_path_factory.mktemp("impostor"), seed="impostor")
    history(made, BUNDLE.digest)
    made.finalise()
    yield made
    made.log.close()


def test_a_pack_signed_anew_by_other_keys_is_told_apart(house: House, impostor: House) -> None:
    path = impostor.build()
    with pytest.raises(VerificationError, match="signed by other keys"):
        verify_pack(path, house.trust)
    report = verify_pack(path, None)
    assert not report.origin_checked
    assert report.fingerprint == impostor.trust.fingerprint != house.trust.fingerprint


def test_a_pack_is_not_built_for_another_trust(house: House, impostor: House, tmp_path: Path) -> None:
    out = tmp_path / "evidence.zip"
    with pytest.raises(VerificationError, match="signed by other keys"):
        house.build(out=out, trust=impostor.trust)
    assert not out.exists()


def test_witnesses_that_the_reader_does_not_know_do_not_count(
    house: House, impostor: House, pack: Path
) -> None:
    mixed = {**house.trust.witnesses, "B6": impostor.trust.witnesses["B6"]}
    with pytest.raises(VerificationError, match=r"signed by other keys.*2 of the.*3 are needed"):
        verify_pack(pack, replace(house.trust, witnesses=mixed))


def test_a_pack_outlives_the_change_of_a_few_witnesses(tmp_path: Path) -> None:
    """A fifth member, and another key of one: four of the five have cosigned, which is enough."""
    made = House.found(tmp_path, ("AA", "B6", "DL", "UA"))
    made.play(made.consortium.bootstrap())
    made.finalise()
    path = made.build(job=None)
    trust = made.trust
    new = SoftwareSigner.insecure_from_seed("ed25519", hashlib.sha256(b"new").digest())
    key = NoteKey(f"{trust.origin}/WN/witness", NoteKind.COSIGNATURE, new.public)
    report = verify_pack(path, replace(trust, witnesses={**trust.witnesses, "WN": (key,)}))
    assert report.finality.cosigners == ("AA", "B6", "DL", "UA")
    assert report.finality.required == 4
    assert report.fingerprint == trust.fingerprint
    made.log.close()


def test_a_trust_file_that_nothing_can_satisfy_is_its_readers_fault(house: House, pack: Path) -> None:
    with pytest.raises(ConfigurationError, match="tolerated as colluding"):
        verify_pack(pack, replace(house.trust, witnesses={}))


# A log that has gone bad


def forged(material: Material, note: bytes) -> dict[str, bytes]:
    replay = Replay()
    replay.extend(material.entries, verified=True)
    return lay_out(replace(material, checkpoint=note), replay.state)


def head_of(house: House, material: Material) -> str:
    """What an operator would sign for these entries."""
    replay = Replay()
    replay.extend(material.entries, verified=True)
    size, root, outcomes, state = replay.describe()
    lines = Extensions(replay.time, outcomes, state).lines
    return LogCheckpoint(house.consortium.origin, size, root, lines).text


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("cosigners", [(), ("AA",), ("AA", "B6")])
def test_a_checkpoint_that_is_not_final_shows_nothing(
    house: House, files: dict[str, bytes], verify: Any, cosigners: tuple[str, ...], trusted: bool
) -> None:
    material = take_apart(files)
    note = house.cosigned(parse_note(material.checkpoint).text, cosigners)
    with pytest.raises(IntegrityError, match=f"checkpoint: {len(cosigners)} entities.*3 make it final"):
        verify(forged(material, note), house.trust if trusted else None)


def test_a_ledger_without_a_final_checkpoint_gives_no_pack(tmp_path: Path) -> None:
    made = House.found(tmp_path)
    made.play(made.consortium.bootstrap())
    with pytest.raises(IntegrityError, match="No checkpoint covers"):
        made.build(job=None)
    made.finalise(["AA", "B6"])
    with pytest.raises(IntegrityError, match="2 entities have cosigned"):
        made.build(job=None)
    assert not (tmp_path / "evidence.zip").exists()
    made.finalise(["DL"])
    assert verify_pack(made.build(job=None), made.trust).entries == made.log.size
    made.log.close()


def test_the_operator_cannot_leave_entries_out(house: House, files: dict[str, bytes], verify: Any) -> None:
    whole = take_apart(files)
    shorter = replace(whole, entries=whole.entries[:-1])
    note = house.cosigned(head_of(house, shorter), [])
    with pytest.raises(IntegrityError, match="0 entities have cosigned"):
        verify(forged(shorter, note))
    stale = house.cosigned(parse_note(whole.checkpoint).text, MEMBERS)
    with pytest.raises(IntegrityError, match=r"outcomes has no well-formed line for entry \d+"):
        verify(forged(shorter, stale))


def test_the_operator_cannot_give_other_verdicts(house: House, files: dict[str, bytes], verify: Any) -> None:
    """Not even with all witnesses on its side: the reader replays the rules."""
    material = take_apart(files)
    place = next(e.index for e in material.entries if e.outcome.verdict == "role")
    entries = list(material.entries)
    entries[place] = replace(entries[place], outcome=replace(entries[place].outcome, verdict="accepted"))
    outcomes = Frontier()
    for entry in entries:
        outcomes.append(leaf_hash(entry.outcome.leaf))
    told = parse_note(material.checkpoint)
    replay = Replay()
    replay.extend(material.entries)
    size, root, _, state = replay.describe()
    lines = Extensions(replay.time, outcomes.root(), state).lines
    note = house.cosigned(LogCheckpoint(house.consortium.origin, size, root, lines).text, MEMBERS)
    changed = lay_out(replace(material, entries=tuple(entries), checkpoint=note), replay.state)
    assert parse_note(note).text != told.text
    with pytest.raises(IntegrityError, match=f"Entry {place}: The ledger says 'accepted'.*'role'"):
        verify(changed)


def test_a_checkpoint_by_another_log_key_is_named(house: House, files: dict[str, bytes], verify: Any) -> None:
    material = take_apart(files)
    other = SoftwareSigner.insecure_from_seed("ed25519", bytes(range(32)))
    note = house.cosigned(parse_note(material.checkpoint).text, MEMBERS, log=other)
    with pytest.raises(SignatureError, match="checkpoint: "):
        verify(forged(material, note))


def test_a_line_by_an_unknown_key_is_an_error(house: House, files: dict[str, bytes], verify: Any) -> None:
    material = take_apart(files)
    note = parse_note(material.checkpoint)
    other = SoftwareSigner.insecure_from_seed("ed25519", bytes(range(32)))
    line = cosign(note.text, "stranger.example", other, 1)
    more = SignedNote(note.text, (*note.signatures, line)).render()
    with pytest.raises(IntegrityError, match=r"checkpoint: .*1 signatures by keys that are not known"):
        verify(forged(material, more))


def test_a_checkpoint_of_another_state_is_named(house: House, files: dict[str, bytes], verify: Any) -> None:
    material = take_apart(files)
    lines = parse_note(material.checkpoint).text.split("\n")
    lines[5] = f"state {lines[2]}"
    note = house.cosigned("\n".join(lines), MEMBERS)
    with pytest.raises(IntegrityError, match=r"checkpoint: .*other outcomes"):
        verify(forged(material, note))


def test_a_ledger_that_nothing_makes_final_is_the_packs_fault(tmp_path: Path, verify: Any) -> None:
    """Before the other founders join there is one entity with a witness, and one may collude."""
    made = House.found(tmp_path)
    material = Material(made.log.read(0, 1), b"", None, {})
    note = made.cosigned(head_of(made, material), ["AA"])
    with pytest.raises(IntegrityError, match="checkpoint: Of 1 entities"):
        verify(forged(material, note), None)
    made.log.close()


# Bundles


def test_another_bundle_is_not_packed(house: House, tmp_path: Path) -> None:
    replace(BUNDLE, model_args={"width": 4}).save(tmp_path / "other")
    with pytest.raises(IntegrityError, match="another bundle"):
        house.build(out=tmp_path / "x.zip", bundle_folder=tmp_path / "other")
    with pytest.raises(ConfigurationError, match="Name the job"):
        house.build(out=tmp_path / "x.zip", job=None, bundle_folder=house.folder / "bundle")
    with pytest.raises(IntegrityError, match="cannot be read"):
        house.build(out=tmp_path / "x.zip", bundle_folder=tmp_path / "nothing")
    assert not (tmp_path / "x.zip").exists()


def test_a_job_that_is_not_there_gives_no_pack(house: House, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="not among the entries"):
        house.build(out=tmp_path / "x.zip", job=named("nothing"))


def test_another_bundle_under_the_jobs_name_is_named(
    house: House, files: dict[str, bytes], verify: Any
) -> None:
    material, other = take_apart(files), replace(BUNDLE, model_args={"width": 4})
    bundle = {**material.bundle, "manifest.json": canonical_json(other.manifest())}
    with pytest.raises(IntegrityError, match=r"bundle/manifest\.json: .*not the manifest"):
        verify(forged(replace(material, bundle=bundle), material.checkpoint))
    more = {**material.bundle, "src/more.py": b"evil"}
    with pytest.raises(IntegrityError, match=r"bundle/src/more\.py is missing, changed, or not of the job"):
        verify(forged(replace(material, bundle=more), material.checkpoint))


@pytest.mark.parametrize(
    "manifest",
    [
        [],
        {},
        {"sources": [], "weights": "0"},
        {"sources": {"late.py": 1}, "weights": None},
        {"sources": {"late.py": ["x"]}, "weights": {}},
        {"sources": {"../../evil.py": sha256(b"")}, "weights": sha256(b"")},
    ],
    ids=str,
)
def test_a_job_that_names_no_bundle_at_all_raises_the_same_error(
    tmp_path: Path, verify: Any, manifest: Any
) -> None:
    """A proposal can carry the digest of anything."""
    made = House.found(tmp_path)
    history(made, digest_of("fedhouse-bundle/1", manifest))
    made.finalise()
    material = take_apart(unpack_archive(made.build().read_bytes()))
    bundle = {"manifest.json": canonical_json(manifest), "weights.safetensors": b""}
    with pytest.raises(IntegrityError, match="bundle/"):
        verify(forged(replace(material, bundle=bundle), material.checkpoint), made.trust)
    made.log.close()


# Files


def test_a_pack_is_whole_or_absent(house: House, tmp_path: Path) -> None:
    out = tmp_path / "evidence.zip"
    out.write_bytes(b"an older pack")
    with pytest.raises(IntegrityError):
        house.build(out=out, job=named("nothing"))
    assert out.read_bytes() == b"an older pack"
    house.build(out=out)
    assert [path.name for path in tmp_path.iterdir()] == ["evidence.zip"]


def test_a_file_that_cannot_be_read_is_the_readers_matter(house: House, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        verify_pack(tmp_path / "nothing.zip", house.trust)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        verify_pack(tmp_path, house.trust)


def test_a_huge_file_is_refused_before_it_is_parsed(house: House, tmp_path: Path) -> None:
    path = tmp_path / "huge.zip"
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(IntegrityError, match="larger than 256 MiB"):
        verify_pack(path, house.trust)
