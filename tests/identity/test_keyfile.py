"""Key files: what opens, what is refused, and that nothing secret is told."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import pickle
import pty
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fedhouse.encoding import canonical_json
from fedhouse.errors import ConfigurationError, KeyFileError
from fedhouse.identity import keyfile
from fedhouse.identity.keyfile import MIN_PASSWORD_BYTES, StoredKey, create_key, load_key, read_password
from fedhouse.identity.sealing import seal
from fedhouse.identity.signer import SoftwareSigner
from fedhouse.identity.text import b64, unb64

PASSWORD = b"canary horse battery staple"
ACTOR = "AA/steward-1"


def _make(path: Path, purpose: str = "sign", algorithm: str = "ed25519") -> StoredKey:
    return create_key(path, actor=ACTOR, purpose=purpose, password=PASSWORD, algorithm=algorithm)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a key file; making one costs a tenth of a second."""
    path = tmp_path_factory.mktemp("key") / "steward.key"
    _make(path)
    return path.read_bytes()


@pytest.fixture
def place(tmp_path: Path, written: bytes) -> Path:
    """A key file of one's own to damage."""
    path = tmp_path / "steward.key"
    path.write_bytes(written)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("purpose", "algorithm"),
    [("sign", "ed25519"), ("sign", "ml-dsa-65"), ("log", "ed25519"), ("witness", "ed25519")],
)
def test_a_signing_key_opens_with_its_password(purpose: str, algorithm: str, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "it.key"
    made = _make(path, purpose, algorithm)
    found = load_key(path, PASSWORD)
    assert (found.actor, found.purpose, found.sealing) == (ACTOR, purpose, None)
    assert found.signer.public == made.signer.public
    assert found.signer.public.algorithm == algorithm
    made.signer.public.verify(found.signer.sign(b"message"), b"message")


def test_a_delivery_key_opens_with_its_password(tmp_path: Path) -> None:
    made = _make(tmp_path / "it.key", "seal")
    found = load_key(tmp_path / "it.key", PASSWORD)
    assert found.signer is None
    assert found.purpose == "seal"
    assert found.sealing.open(seal(b"share", made.sealing.public, info=b""), info=b"") == b"share"


@pytest.mark.parametrize(
    ("purpose", "algorithm", "how"),
    [
        ("log", "ml-dsa-65", "must be of ed25519"),
        ("witness", "ml-dsa-65", "must be of ed25519"),
        ("seal", "ml-dsa-65", "delivery key cannot be of"),
        ("sign", "mlkem768-x25519", "no algorithm for signatures"),
        ("sign", "rsa", "no algorithm for signatures"),
        ("encrypt", "ed25519", "no known purpose"),
        (None, "ed25519", "no known purpose"),
    ],
)
def test_purposes_have_their_algorithms(purpose: Any, algorithm: str, how: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=how):
        _make(tmp_path / "it.key", purpose, algorithm)
    assert not list(tmp_path.iterdir())


def test_only_actors_have_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="names no actor"):
        create_key(tmp_path / "it.key", actor="AA", purpose="sign", password=PASSWORD)


@pytest.mark.parametrize("password", [b"", b"x" * (MIN_PASSWORD_BYTES - 1), b"x" * 1025])
def test_a_new_password_has_a_length(password: bytes, tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="has not 12 to 1024 bytes"):
        create_key(tmp_path / "it.key", actor=ACTOR, purpose="sign", password=password)
    assert not list(tmp_path.iterdir())


def test_the_file_is_of_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        _make(tmp_path / "keys" / "it.key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "keys" / "it.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_a_key_is_never_written_over(place: Path, written: bytes, tmp_path: Path) -> None:
    dangling = tmp_path / "link.key"
    dangling.symlink_to(tmp_path / "elsewhere.key")
    for path in (place, dangling, tmp_path):
        with pytest.raises(KeyFileError, match="exists, and a key is never written over"):
            _make(path)
    assert place.read_bytes() == written
    assert not (tmp_path / "elsewhere.key").exists()


def test_one_of_many_writers_wins(tmp_path: Path) -> None:
    path = tmp_path / "it.key"

    def make(_: int) -> StoredKey | None:
        try:
            return _make(path)
        except KeyFileError:
            return None

    with ThreadPoolExecutor(4) as pool:
        made = [key for key in pool.map(make, range(4)) if key is not None]
    assert len(made) == 1
    assert load_key(path, PASSWORD).signer.public == made[0].signer.public
    assert [item.name for item in tmp_path.iterdir()] == ["it.key"]


def test_a_failed_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(KeyFileError, match="cannot be written: No space left"):
        _make(tmp_path / "it.key")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyFileError, match=r"file/it\.key cannot be written: "):
        _make(tmp_path / "file" / "it.key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o601, 0o644, 0o777])
def test_a_file_that_others_can_reach_is_refused(mode: int, place: Path, tmp_path: Path) -> None:
    place.chmod(mode)
    link = tmp_path / "link.key"
    link.symlink_to(place)
    for path in (place, link):
        with pytest.raises(KeyFileError, match=f"chmod 600 {path}"):
            load_key(path, PASSWORD)
        with pytest.raises(KeyFileError, match=f"chmod 600 {path}"):
            read_password(file=path, prompt=False)


def test_a_link_to_a_private_file_serves(place: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.key"
    link.symlink_to(place)
    assert load_key(link, PASSWORD).actor == ACTOR


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    for name, how in (("pipe", "no regular file"), ("folder", "no regular file"), ("gone", "No such file")):
        with pytest.raises(KeyFileError, match=how):
            load_key(tmp_path / name, PASSWORD)


@pytest.mark.parametrize("password", [b"", b"canary horse battery stapl", PASSWORD + b"\n", b"x" * 10**6])
def test_another_password_does_not_open(password: bytes, place: Path) -> None:
    with pytest.raises(KeyFileError, match="does not open with this password"):
        load_key(place, password)


@pytest.mark.slow
def test_no_byte_of_a_file_can_be_changed(place: Path, written: bytes) -> None:
    """Flip a bit of every byte: as JSON, as a field, as a bound field or as the tag, it is refused."""
    for number in range(len(written)):
        changed = bytearray(written)
        changed[number] ^= 1 << number % 7
        place.write_bytes(changed)
        with pytest.raises(KeyFileError):
            load_key(place, PASSWORD)
    place.write_bytes(written)
    load_key(place, PASSWORD)


def _fields(written: bytes, **changes: Any) -> bytes:
    value = json.loads(written)
    for name, change in changes.items():
        if name in value["kdf"]:
            value["kdf"][name] = change
        else:
            value[name] = change
    return canonical_json(value)


def test_fields_are_bound_to_the_private_part(place: Path, written: bytes, tmp_path: Path) -> None:
    """Whoever can write the file but lacks the password cannot give the key another office."""
    _make(tmp_path / "other.key")
    other = json.loads((tmp_path / "other.key").read_bytes())
    for changes in (
        {"actor": "UA/steward-1"},
        {"purpose": "witness"},
        {"algorithm": "ml-dsa-65"},
        {"public": other["public"]},
        {"private": other["private"]},
        {"nonce": other["nonce"]},
        {"salt": other["kdf"]["salt"]},
        {"n": 2**16},
        {"p": 2},
    ):
        place.write_bytes(_fields(written, **changes))
        with pytest.raises(KeyFileError, match="does not open"):
            load_key(place, PASSWORD)


@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({"n": 2**18}, "costs too little or too much"),
        ({"n": 2**52}, "costs too little or too much"),
        ({"n": 2**14}, "costs too little or too much"),
        ({"n": 2**15 + 1}, "costs too little or too much"),
        ({"n": -(2**15)}, "costs too little or too much"),
        ({"r": 9}, "costs too little or too much"),
        ({"r": 2**30}, "costs too little or too much"),
        ({"p": 5}, "costs too little or too much"),
        ({"p": 0}, "costs too little or too much"),
        ({"n": 32768.5}, "not scrypt"),
        ({"n": "32768"}, "not scrypt"),
        ({"p": True}, "not scrypt"),
        ({"name": "pbkdf2"}, "not scrypt"),
        ({"salt": b64(bytes(15))}, "salt has not 16 bytes"),
        ({"salt": b64(bytes(16)) + "\n"}, "salt is not base64"),
        ({"salt": None}, "salt is no base64"),
        ({"kdf": []}, "key derivation has not the fields"),
        ({"kdf": {"name": "none"}}, "key derivation has not the fields"),
        ({"nonce": b64(bytes(11))}, "nonce or private part has another length"),
        ({"private": b64(bytes(47))}, "nonce or private part has another length"),
        ({"private": ""}, "nonce or private part has another length"),
        ({"public": 7}, "public key is no base64"),
        ({"format": "fedhouse-key/2"}, "has not the fields of one"),
        ({"comment": "hello"}, "has not the fields of one"),
        ({"algorithm": "rsa"}, "unknown algorithm"),
        ({"algorithm": ["ed25519"]}, "unknown algorithm"),
        ({"purpose": "encrypt"}, "no known purpose"),
        ({"purpose": ["sign"]}, "no known purpose"),
        ({"purpose": "seal"}, "do not go together"),
        ({"purpose": "log", "algorithm": "ml-dsa-65"}, "must be of ed25519"),
        ({"actor": "AA"}, "names no actor"),
        ({"actor": None}, "names no actor"),
    ],
)
def test_a_hostile_file_is_refused_before_it_costs_anything(
    changes: dict[str, Any], how: str, place: Path, written: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyfile, "Scrypt", None)  # what would be the cost must not be reached
    place.write_bytes(_fields(written, **changes))
    with pytest.raises(KeyFileError, match=how) as caught:
        load_key(place, PASSWORD)
    assert str(place) in str(caught.value)
    assert "Restore it from a backup" in caught.value.mend


def test_a_file_has_one_encoding(place: Path, written: bytes) -> None:
    value = json.loads(written)
    for data in (
        written + b"\n",
        b" " + written,
        json.dumps(value).encode(),
        written.replace(b'{"actor"', b'{"actor":"UA/x","actor"'),
        written.replace(b"AA/", b"A\\u0041/"),
        written.replace(b"32768", b"32768.0"),
        written.replace(b"32768", b"3.2768e4"),
        b"\xef\xbb\xbf" + written,
        written[:-1],
        b"",
        b"null",
        b"[" * 10_000,
        b"\0" * 100,
        b'"\\ud800"',
    ):
        assert data != written
        place.write_bytes(data)
        with pytest.raises(KeyFileError, match=r"is no key file"):
            load_key(place, PASSWORD)
    place.write_bytes(written + b" " * 2**14)
    with pytest.raises(KeyFileError, match="longer than 16384 bytes"):
        load_key(place, PASSWORD)


def test_a_file_that_names_another_public_key_is_refused(place: Path, written: bytes) -> None:
    """By whoever has the password: what is shown without it would be another key than the one that signs."""
    file, private = keyfile._KeyFile.parse(written)
    secret = file.decrypt(private, PASSWORD)
    liar = dataclasses.replace(file, public=SoftwareSigner.generate().public.raw)
    sealed = b64(liar.encrypt(secret, PASSWORD))
    place.write_bytes(canonical_json(liar.to_json() | {"private": sealed}))
    with pytest.raises(KeyFileError, match="names another public key than its own"):
        load_key(place, PASSWORD)


def test_two_files_of_one_password_share_nothing_secret(tmp_path: Path) -> None:
    values = []
    for name in ("a", "b"):
        _make(tmp_path / name)
        values.append(json.loads((tmp_path / name).read_bytes()))
    first, second = values
    for name in ("nonce", "private", "public"):
        assert first[name] != second[name]
    assert first["kdf"]["salt"] != second["kdf"]["salt"]
    assert len(unb64(first["private"], "it")) == 32 + 16


def test_nothing_secret_is_told(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = b"canary wrong password"
    with pytest.raises(KeyFileError) as caught:
        load_key(place, wrong)
    error: BaseException | None = caught.value
    while error is not None:
        assert "canary" not in f"{error} {error!r}"
        error = error.__cause__ or error.__context__
    opened = load_key(place, PASSWORD)
    assert "canary" not in f"{opened} {opened!r}"
    assert opened.signer.public.key_id in repr(opened)
    with pytest.raises(TypeError, match="neither pickled nor copied"):
        pickle.dumps(opened)
    assert not caplog.records


# --- passwords --------------------------------------------------------------------------------------


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_bytes(b"from the file\n")
    path.chmod(0o600)
    return path


def test_a_file_goes_before_the_environment(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDHOUSE_KEY_PASSWORD", "from the environment")
    monkeypatch.setenv("OTHER", "from ä variable")
    assert read_password(file=secret, prompt=False) == b"from the file"
    assert read_password(prompt=False) == b"from the environment"
    assert read_password(env="OTHER", prompt=True) == "from ä variable".encode()


@pytest.mark.parametrize(
    ("data", "password"),
    [
        (b"x", b"x"),
        (b"x\n", b"x"),
        (b"x\r\n", b"x"),
        (b" x \n", b" x "),
        (b"\xff\n", b"\xff"),
        (b"x" * 1024, b"x" * 1024),
    ],
)
def test_a_file_gives_its_line(data: bytes, password: bytes, secret: Path) -> None:
    secret.write_bytes(data)
    assert read_password(file=secret, prompt=False) == password


@pytest.mark.parametrize("data", [b"", b"\n", b"canary\nb\n", b"canary\n\n", b"canary\0", b"x" * 1025])
def test_a_file_without_one_line_is_refused(
    data: bytes, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDHOUSE_KEY_PASSWORD", "never fallen back on")
    secret.write_bytes(data)
    with pytest.raises(KeyFileError, match="no password of one line") as caught:
        read_password(file=secret, prompt=False)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_password_three_ways_are_named(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDHOUSE_KEY_PASSWORD", raising=False)
    if value is not None:
        monkeypatch.setenv("FEDHOUSE_KEY_PASSWORD", value)
    with pytest.raises(
        KeyFileError, match=r"password file .*, set FEDHOUSE_KEY_PASSWORD, or run at a terminal"
    ):
        read_password(prompt=False)


PROGRAM = """
import sys
from fedhouse.errors import KeyFileError
from fedhouse.identity.keyfile import read_password
try:
    print("got", read_password(prompt=True, twice="twice" in sys.argv).hex())
except KeyFileError as error:
    print(error)
"""


def _typed(text: bytes, *arguments: str) -> tuple[str, bytes]:
    """What the program says when this is typed at its terminal, and what the terminal showed."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "FEDHOUSE_KEY_PASSWORD"}
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, *arguments],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        start_new_session=True,  # without a terminal of its own, so that it asks at this one
        env=environment,
        text=True,
    ) as child:
        os.close(theirs)
        shown = b""
        for asked, line in enumerate(text.splitlines(keepends=True), 1):
            while shown.count(b":") < asked:  # what is typed before it asks is thrown away
                shown += os.read(ours, 1000)
            os.write(ours, line)
        said, _ = child.communicate(timeout=60)
    os.close(ours)
    return said, shown


def test_a_terminal_is_asked_and_does_not_show_the_answer() -> None:
    said, shown = _typed(b"canary typed\n")
    assert said == f"got {b'canary typed'.hex()}\n"
    assert b"Password:" in shown
    assert b"canary" not in shown


def test_a_new_password_is_typed_twice() -> None:
    assert _typed(b"canary typed\ncanary typed\n", "twice")[0] == f"got {b'canary typed'.hex()}\n"
    said, _ = _typed(b"canary typed\ncanary tpyed\n", "twice")
    assert said.startswith("The two passwords differ.")
    assert "canary" not in said


def test_an_empty_answer_is_refused() -> None:
    assert _typed(b"\n")[0].startswith("The terminal gives no password of one line.")
    assert _typed(b"\x04\n")[0].startswith(("No password was typed.", "The terminal gives no password"))


def test_without_a_terminal_nobody_is_asked() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={},
        check=True,
    )
    assert done.stdout.startswith("There is no password for the key.")
