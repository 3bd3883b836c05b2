"""Keys in files, protected by a password.

Invariants
----------
1. A key file is whole or absent, of mode 0600 from its first byte on, and never written over.
2. The password opens exactly what was written: everything else in the file (actor, purpose, algorithm,
   public key, cost) is authenticated with the private part. A changed byte is a file that does not open.
3. Reading costs a bounded amount of memory and time, whatever the file says.
4. Neither a password nor a private key stands in a message, a representation or a log.

One scheme for all keys: AES-256-GCM over the raw private bytes, under a key that scrypt (RFC 7914) makes
of the password. Canonical JSON, one encoding::

    {"actor":"AA/steward-1","algorithm":"ed25519","format":"fedhouse-key/1",
     "kdf":{"n":32768,"name":"scrypt","p":1,"r":8,"salt":"…"},
     "nonce":"…","private":"…","public":"…","purpose":"sign"}

Not promised: that a lost password can be mended (make a new key and rotate), or that this process's
memory holds no trace of an opened key.

Example::

    password = read_password(prompt=True)
    create_key(Path("steward.key"), actor="AA/steward-1", purpose="sign", password=password)
    signer = load_key(Path("steward.key"), password).signer
"""

from __future__ import annotations

import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from fedhouse.encoding import canonical_json, parse_json, write_atomic
from fedhouse.errors import ConfigurationError, FedhouseError, KeyFileError
from fedhouse.identity.actors import parse_actor
from fedhouse.identity.keys import Algorithm
from fedhouse.identity.sealing import SEALING_ALGORITHM, SEALING_SECRET_BYTES, SealingKey, private_parts
from fedhouse.identity.signer import SECRET_BYTES, SoftwareSigner, private_key, require_algorithm
from fedhouse.identity.text import b64, unb64

Purpose = Literal["sign", "seal", "log", "witness"]

FORMAT: Final = "fedhouse-key/1"
MIN_PASSWORD_BYTES: Final = 12
MAX_PASSWORD_BYTES: Final = 1024
MAX_KEY_FILE_BYTES: Final = 2**14

# 32 MiB and about a tenth of a second; a file may ask for four times that, never for less.
_COST: Final = 2**15
_MAX_COST: Final = 2**17
_BLOCK: Final = 8
_MAX_PARALLEL: Final = 4
_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16

_SECRET_BYTES: Final = {
    "ed25519": SECRET_BYTES,
    "ml-dsa-65": SECRET_BYTES,
    SEALING_ALGORITHM: SEALING_SECRET_BYTES,
}


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An opened key file: whose key it is, what for, and the key: `sealing` for `seal`, else `signer`."""

    actor: str
    purpose: Purpose
    signer: SoftwareSigner | None
    sealing: SealingKey | None


def create_key(
    path: Path, *, actor: str, purpose: Purpose, password: bytes, algorithm: Algorithm = "ed25519"
) -> StoredKey:
    """Make a key and write it to `path`, which must not exist yet.

    `sign` is for events, `log` and `witness` for checkpoints (Ed25519 only), `seal` for what is delivered to
    the actor; a delivery key is of one kind, and `algorithm` does not concern it.

    Raises
    ------
    ConfigurationError
        If actor, purpose and algorithm do not go together.
    KeyFileError
        If the password is too short, `path` exists, or it cannot be written.
    """
    parse_actor(actor)
    kind = _algorithm_for(purpose, algorithm)
    if not MIN_PASSWORD_BYTES <= len(password) <= MAX_PASSWORD_BYTES:
        raise KeyFileError(
            f"The password for {path} has not {MIN_PASSWORD_BYTES} to {MAX_PASSWORD_BYTES} bytes.",
            mend="Choose a longer one: four random words, for example.",
        )
    secret = secrets.token_bytes(_SECRET_BYTES[kind])
    key = _stored(actor, purpose, kind, secret)
    file = _KeyFile(
        actor=actor,
        algorithm=kind,
        purpose=purpose,
        public=_public(key),
        cost=_COST,
        parallel=1,
        salt=secrets.token_bytes(_SALT_BYTES),
        nonce=secrets.token_bytes(_NONCE_BYTES),
    )
    _write_new(path, canonical_json(file.to_json() | {"private": b64(file.encrypt(secret, password))}))
    return key


def load_key(path: Path, password: bytes) -> StoredKey:
    """Open a key file.

    Raises
    ------
    KeyFileError
        If others than the owner can read it, if it is no key file, or does not open with this password.
    """
    data = _read_private(path, MAX_KEY_FILE_BYTES)
    try:
        file, private = _KeyFile.parse(data)
    except FedhouseError as error:
        raise KeyFileError(
            f"{path} is no key file: {error.what}", mend="Restore it from a backup, or make a new key."
        ) from error
    if len(password) > MAX_PASSWORD_BYTES:
        raise _does_not_open(path)
    try:
        secret = file.decrypt(private, password)
    except InvalidTag as error:
        raise _does_not_open(path) from error
    key = _stored(file.actor, file.purpose, file.algorithm, secret)
    if _public(key) != file.public:
        raise KeyFileError(
            f"{path} names another public key than its own.",
            mend="Restore it from a backup, or make a new key.",
        )
    return key


def read_password(
    *, env: str = "FEDHOUSE_KEY_PASSWORD", file: Path | None = None, prompt: bool, twice: bool = False
) -> bytes:
    """A password: from `file` if given, else from the environment, else asked for on a terminal.

    A file holds one line, and only its owner may read it. `twice` asks again, for a new password.

    Raises
    ------
    KeyFileError
        If there is none, it is empty or too long, the file is unfit, or the two answers differ.
    """
    if file is not None:
        password = _read_private(file, MAX_PASSWORD_BYTES + 2)
        password = password.removesuffix(b"\n").removesuffix(b"\r")
        where = str(file)
    elif os.environ.get(env):
        password, where = os.fsencode(os.environ[env]), f"Environment variable {env}"
    elif prompt and os.isatty(0):
        password, where = _ask(twice), "The terminal"
    else:
        raise KeyFileError(
            "There is no password for the key.",
            mend=f"Give a password file (mode 600), set {env}, or run at a terminal to be asked.",
        )
    if not password or len(password) > MAX_PASSWORD_BYTES or b"\n" in password or b"\0" in password:
        raise KeyFileError(
            f"{where} gives no password of one line.",
            mend=f"It needs 1 to {MAX_PASSWORD_BYTES} bytes in one line.",
        )
    return password


def _ask(twice: bool) -> bytes:
    import getpass

    try:
        first = getpass.getpass("Password: ")
        same = not twice or getpass.getpass("Again: ") == first
    except EOFError:
        raise KeyFileError("No password was typed.", mend="Run it again and type one.") from None
    if not same:
        raise KeyFileError("The two passwords differ.", mend="Run it again and type the same one twice.")
    return os.fsencode(first)


@dataclass(frozen=True, slots=True)
class _KeyFile:
    """All of a key file but the encrypted private part, which these fields are bound to."""

    actor: str
    algorithm: str
    purpose: Purpose
    public: bytes = field(repr=False)
    cost: int
    parallel: int
    salt: bytes = field(repr=False)
    nonce: bytes = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """The authenticated fields as a JSON value."""
        return {
            "actor": self.actor,
            "algorithm": self.algorithm,
            "format": FORMAT,
            "kdf": {
                "n": self.cost,
                "name": "scrypt",
                "p": self.parallel,
                "r": _BLOCK,
                "salt": b64(self.salt),
            },
            "nonce": b64(self.nonce),
            "public": b64(self.public),
            "purpose": self.purpose,
        }

    @classmethod
    def parse(cls, data: bytes) -> tuple[_KeyFile, bytes]:
        """The fields and the encrypted private part in hostile bytes; raises a `FedhouseError`."""
        value = parse_json(data, "its text")
        fields = {"actor", "algorithm", "format", "kdf", "nonce", "private", "public", "purpose"}
        if not isinstance(value, dict) or value.keys() != fields or value["format"] != FORMAT:
            raise KeyFileError("It has not the fields of one.")
        cost, parallel, salt = _parse_kdf(value["kdf"])
        purpose, algorithm, actor = value["purpose"], value["algorithm"], value["actor"]
        if not isinstance(algorithm, str) or algorithm not in _SECRET_BYTES:
            raise KeyFileError("It is of an unknown algorithm.")
        if _algorithm_for(purpose, algorithm) != algorithm:
            raise KeyFileError("Its purpose and algorithm do not go together.")
        parse_actor(actor)
        public = unb64(value["public"], "Its public key")
        file = cls(
            actor, algorithm, purpose, public, cost, parallel, salt, unb64(value["nonce"], "Its nonce")
        )
        private = unb64(value["private"], "Its private part")
        if len(file.nonce) != _NONCE_BYTES or len(private) != _SECRET_BYTES[algorithm] + _TAG_BYTES:
            raise KeyFileError("Its nonce or private part has another length.")
        if canonical_json(file.to_json() | {"private": b64(private)}) != data:
            raise KeyFileError("It is not canonical JSON (RFC 8785).")
        return file, private

    def encrypt(self, secret: bytes, password: bytes) -> bytes:
        """The private part, encrypted and bound to these fields."""
        return AESGCM(self._derive(password)).encrypt(self.nonce, secret, canonical_json(self.to_json()))

    def decrypt(self, private: bytes, password: bytes) -> bytes:
        """The private part; raises `InvalidTag` for another password or changed fields."""
        return AESGCM(self._derive(password)).decrypt(self.nonce, private, canonical_json(self.to_json()))

    def _derive(self, password: bytes) -> bytes:
        return Scrypt(salt=self.salt, length=32, n=self.cost, r=_BLOCK, p=self.parallel).derive(password)


def _parse_kdf(value: Any) -> tuple[int, int, bytes]:
    if not isinstance(value, dict) or value.keys() != {"n", "name", "p", "r", "salt"}:
        raise KeyFileError("Its key derivation has not the fields of one.")
    cost, parallel = value["n"], value["p"]
    if value["name"] != "scrypt" or any(type(value[name]) is not int for name in ("n", "p", "r")):
        raise KeyFileError("Its key derivation is not scrypt.")
    # The power of two is scrypt's own condition.
    sound = _COST <= cost <= _MAX_COST and cost & (cost - 1) == 0 and 1 <= parallel <= _MAX_PARALLEL
    if not sound or value["r"] != _BLOCK:
        raise KeyFileError("Its key derivation costs too little or too much.")
    salt = unb64(value["salt"], "Its salt")
    if len(salt) != _SALT_BYTES:
        raise KeyFileError(f"Its salt has not {_SALT_BYTES} bytes.")
    return cost, parallel, salt


def _algorithm_for(purpose: Any, algorithm: Any) -> str:
    """The algorithm of a key for `purpose`, where `algorithm` is asked for."""
    if purpose not in get_args(Purpose):
        raise ConfigurationError(
            "A key is for no known purpose.", mend=f"Use {', '.join(get_args(Purpose))}."
        )
    if purpose == "seal":
        if algorithm not in ("ed25519", SEALING_ALGORITHM):
            raise ConfigurationError(
                f"A delivery key cannot be of {algorithm}.", mend="Leave the algorithm out."
            )
        return SEALING_ALGORITHM
    require_algorithm(algorithm)
    if purpose != "sign" and algorithm != "ed25519":
        raise ConfigurationError(
            f"A key for purpose '{purpose}' must be of ed25519.", mend="Checkpoints know no other algorithm."
        )
    return str(algorithm)


def _stored(actor: str, purpose: Purpose, algorithm: str, secret: bytes) -> StoredKey:
    if algorithm == SEALING_ALGORITHM:
        return StoredKey(actor, purpose, None, SealingKey(*private_parts(secret)))
    kind: Algorithm = "ed25519" if algorithm == "ed25519" else "ml-dsa-65"
    return StoredKey(actor, purpose, SoftwareSigner(private_key(kind, secret)), None)


def _public(key: StoredKey) -> bytes:
    if key.signer is not None:
        return key.signer.public.raw
    assert key.sealing is not None
    return key.sealing.public.raw


def _read_private(path: Path, longest: int) -> bytes:
    """A file that nobody but its owner can read; what is checked is the open file, not its name."""
    try:
        # A pipe in its place must not hold us up.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _require_private(path, os.fstat(descriptor).st_mode)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(longest + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise KeyFileError(
            f"{path} cannot be read: {error.strerror}.", mend="Check the path and who owns it."
        ) from error
    if len(data) > longest:
        raise KeyFileError(
            f"{path} is longer than {longest} bytes.", mend="Check the path: it is another file."
        )
    return data


def _require_private(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise KeyFileError(f"{path} is no regular file.", mend="Name the file itself.")
    if mode & 0o077:
        raise KeyFileError(f"{path} is open to its group or to others.", mend=f"Run: chmod 600 {path}")


def _write_new(path: Path, data: bytes) -> None:
    """Write a file that must not exist yet. Its empty name is taken first, so two writers cannot both win."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError as error:
            raise KeyFileError(
                f"{path} exists, and a key is never written over.",
                mend="Choose another path, or move it away.",
            ) from error
        try:
            write_atomic(path, data, mode=0o600)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise KeyFileError(
            f"{path} cannot be written: {error.strerror}.", mend="Check the folder and its permissions."
        ) from error


def _does_not_open(path: Path) -> KeyFileError:
    return KeyFileError(
        f"{path} does not open with this password.",
        mend="Check the password; if it is right, the file was changed: restore it from a backup.",
    )
