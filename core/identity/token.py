"""Keys in a PKCS#11 token: a smart card, an HSM, or SoftHSM. The private key never leaves it.

Invariants
----------
1. A key is used only if the token calls it sensitive and not extractable, and if it is the only one of
   its label.
2. What the token signs is checked before it is handed on. A token whose key was exchanged, or a handle
   that after a restart of the token means another key, gives an error and not a wrong signature.
3. A lost session (token pulled out, library restarted) is opened again once for each signature. A PIN
   that was refused is forgotten: trying it again would lock the token.
4. The PIN stands in no message and in no representation.

PKCS#11 logs in a process, not a session: within one process all signers of a token share the login, and
the second one's PIN is not checked. A library need not be safe for threads, so one lock holds all calls.
A signer does not survive a fork.

Example::

    place = parse_pkcs11_uri(
        "pkcs11:token=consortium;object=steward-1?module-path=/usr/lib/softhsm/libsofthsm2.so"
    )
    pin = read_password(env="FEDHOUSE_TOKEN_PIN", prompt=True)
    signer = Pkcs11Signer(place.library, place.token, place.label, pin)
"""

from __future__ import annotations

import contextlib
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import quote, unquote

from fedhouse.errors import IntegrityError, KeyFileError, SignatureError
from fedhouse.identity.keys import PUBLIC_BYTES, PublicKey

if TYPE_CHECKING:
    from pkcs11 import Object, ObjectClass, Session
    from pkcs11.types import SignMixin

# The label of a token is a field of 32 bytes.
MAX_TOKEN_BYTES: Final = 32
MAX_LABEL_BYTES: Final = 64
MAX_URI: Final = 1024

_ED25519_OID: Final = "1.3.101.112"
# A point of 32 bytes as a DER OCTET STRING.
_POINT: Final = b"\x04\x20"
_URI = re.compile(r"pkcs11:token=([^;?&=]+);object=([^;?&=]+)\?module-path=(/[^;?&=]+)")
_FORM: Final = "pkcs11:token=NAME;object=LABEL?module-path=/path/of/the/library.so"
_LOCK = threading.RLock()


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """Where a key is: the PKCS#11 library, the token's label, the key's label. `str` gives its one spelling.

    Raises
    ------
    KeyFileError
        For an empty or long label, one with control characters, or a relative path.
    """

    library: Path
    token: str
    label: str

    def __post_init__(self) -> None:
        parts = (("token", self.token, MAX_TOKEN_BYTES), ("key", self.label, MAX_LABEL_BYTES))
        for what, text, longest in parts:
            if not text.isprintable() or not 1 <= len(text.encode()) <= longest:
                raise KeyFileError(
                    f"The label of a {what} has not 1 to {longest} printable bytes.",
                    mend=f"Give the label that the {what} has in the PKCS#11 library's own tool.",
                )
        if not self.library.is_absolute() or not str(self.library).isprintable():
            raise KeyFileError("The path of a PKCS#11 library is not absolute.", mend="Begin it with /.")

    def __str__(self) -> str:
        token, label = quote(self.token, safe=""), quote(self.label, safe="")
        return f"pkcs11:token={token};object={label}?module-path={quote(str(self.library))}"


def parse_pkcs11_uri(text: str) -> Pkcs11Uri:
    """The place in a URI of the form `pkcs11:token=NAME;object=LABEL?module-path=/library.so`.

    The subset of RFC 7512 that names one key; the PIN never stands in it. One spelling: what is neither a
    letter, a digit nor one of `-._~` (or, in the path, `/`) is percent-encoded UTF-8, and nothing else is.

    Raises
    ------
    KeyFileError
        Otherwise. The message does not repeat the text, which may hold a PIN.
    """
    if not isinstance(text, str) or len(text) > MAX_URI:
        _malformed(f"is longer than {MAX_URI} characters")
    if "pin-value=" in text or "pin-source=" in text:
        _malformed("holds a PIN; whoever reads the configuration would have it")
    found = _URI.fullmatch(text)
    if found is None:
        _malformed("is not of the one accepted form")
    token, label, library = (unquote(part) for part in found.groups())
    place = Pkcs11Uri(Path(library), token, label)
    if str(place) != text:
        _malformed("is not in its one spelling")
    return place


class Pkcs11Signer:
    """An Ed25519 key in a PKCS#11 token, found by the labels of token and key.

    Raises
    ------
    KeyFileError
        If the package is not installed, the library does not load, token or key is not there exactly once,
        the PIN is refused, or the token would give the private key away.
    """

    __slots__ = ("_pin", "_place", "_private", "_public", "_session")

    def __init__(self, library: Path, token: str, label: str, pin: bytes) -> None:
        self._place = Pkcs11Uri(library, token, label)
        self._pin: str | None = _decode_pin(pin)
        self._session: Session | None = None
        self._private: SignMixin | None = None
        try:
            with _calling(self._place):
                self._open()
                assert self._session is not None
                self._public: PublicKey = _find_public(self._session, self._place)
        except KeyFileError:
            self.close()
            raise

    @classmethod
    def generate(cls, library: Path, token: str, label: str, pin: bytes) -> Pkcs11Signer:
        """Make a key pair in the token, its private part sensitive and not extractable, and open it.

        Raises
        ------
        KeyFileError
            As for opening; also if the token has a key of that label.
        """
        place = Pkcs11Uri(library, token, label)
        with _calling(place):
            session = _open_session(place, _decode_pin(pin), rw=True)
            try:
                _make_pair(session, place)
            finally:
                session.close()
        return cls(library, token, label, pin)

    @property
    def public(self) -> PublicKey:
        """The key that its signatures are checked by."""
        return self._public

    def sign(self, message: bytes) -> bytes:
        """The signature over `message`, 64 bytes, checked.

        Raises
        ------
        KeyFileError
            If the token does not sign, or signs by another key than it did at first.
        """
        with _LOCK:
            with contextlib.suppress(KeyFileError):
                return self._sign_once(message)
            return self._sign_once(message)

    def close(self) -> None:
        """End the session. Signing opens a new one."""
        with _LOCK:
            session, self._session, self._private = self._session, None, None
            if session is not None:
                # All errors of PKCS#11 are of this type. A lost session cannot be closed, and need not be.
                with contextlib.suppress(RuntimeError):
                    session.close()

    def _sign_once(self, message: bytes) -> bytes:
        from pkcs11 import Mechanism

        try:
            with _calling(self._place):
                if self._private is None:
                    self._open()
                assert self._private is not None
                signature: bytes = self._private.sign(message, mechanism=Mechanism.EDDSA)
            self._check(signature, message)
        except KeyFileError:
            self.close()
            raise
        return signature

    def _check(self, signature: bytes, message: bytes) -> None:
        try:
            self._public.verify(signature, message)
        except SignatureError as error:
            raise KeyFileError(
                f"{_name(self._place)} signs by another key than when it was opened.",
                mend="Find out who changed the token; then start again.",
            ) from error

    def _open(self) -> None:
        if self._pin is None:
            raise KeyFileError(
                f"{_name(self._place)} refused the PIN before, so it is not tried again.",
                mend="Start again with the right PIN.",
            )
        try:
            self._session = _open_session(self._place, self._pin)
        except _refusals():
            self._pin = None
            raise
        self._private = _find_private(self._session, self._place)

    def __repr__(self) -> str:
        return f"Pkcs11Signer({self._place} {self._public.key_id})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A signer is neither pickled nor copied; pass its URI instead.")


def _open_session(place: Pkcs11Uri, pin: str, *, rw: bool = False) -> Session:
    import pkcs11

    # One spelling of the path: a library that is loaded a second time refuses to be started.
    token = pkcs11.lib(str(place.library.resolve())).get_token(token_label=place.token)
    try:
        return token.open(rw=rw, user_pin=pin)
    except pkcs11.UserAlreadyLoggedIn:
        return token.open(rw=rw)


def _only(session: Session, place: Pkcs11Uri, kind: ObjectClass) -> Object:
    """The one key of its label and kind."""
    from pkcs11 import Attribute, KeyType

    wanted = {Attribute.CLASS: kind, Attribute.KEY_TYPE: KeyType.EC_EDWARDS, Attribute.LABEL: place.label}
    # To the end: a search that is left open would hinder the next call.
    found = list(session.get_objects(wanted))
    if len(found) != 1:
        raise KeyFileError(
            f"{_name(place)} is in the token {len(found)} times.",
            mend="Check its label; give each Ed25519 key a label of its own.",
        )
    return found[0]


def _find_private(session: Session, place: Pkcs11Uri) -> SignMixin:
    from pkcs11 import Attribute, ObjectClass
    from pkcs11.types import SignMixin

    key = _only(session, place, ObjectClass.PRIVATE_KEY)
    if not key[Attribute.SENSITIVE] or key[Attribute.EXTRACTABLE]:
        raise KeyFileError(
            f"{_name(place)} would give its private key away.",
            mend="Make a new key in the token, sensitive and not extractable, and rotate to it.",
        )
    if not isinstance(key, SignMixin):
        raise KeyFileError(f"{_name(place)} is not for signing.", mend="Make a new key in the token.")
    return key


def _find_public(session: Session, place: Pkcs11Uri) -> PublicKey:
    from pkcs11 import Attribute, ObjectClass

    key = _only(session, place, ObjectClass.PUBLIC_KEY)
    try:
        return PublicKey("ed25519", point_of(key[Attribute.EC_POINT]))
    except IntegrityError as error:
        raise KeyFileError(
            f"{_name(place)} has an unsound public key: {error.what}", mend="Make a new key in the token."
        ) from error


def point_of(attribute: bytes) -> bytes:
    """The 32 bytes of an Ed25519 point in CKA_EC_POINT: a DER OCTET STRING, or bare as some tokens have it.

    Raises
    ------
    IntegrityError
        For anything else.
    """
    size = PUBLIC_BYTES["ed25519"]
    if len(attribute) == size:
        return attribute
    if len(attribute) != len(_POINT) + size or not attribute.startswith(_POINT):
        raise IntegrityError("Its CKA_EC_POINT is no Ed25519 point.", mend="Use a key on the curve Ed25519.")
    return attribute.removeprefix(_POINT)


def _make_pair(session: Session, place: Pkcs11Uri) -> None:
    from pkcs11 import Attribute, KeyType, Mechanism
    from pkcs11.util.ec import encode_named_curve_parameters

    if list(session.get_objects({Attribute.LABEL: place.label})):
        raise KeyFileError(f"{_name(place)} exists.", mend="Choose another label, or delete the old key.")
    parameters = session.create_domain_parameters(
        KeyType.EC_EDWARDS, {Attribute.EC_PARAMS: encode_named_curve_parameters(_ED25519_OID)}, local=True
    )
    parameters.generate_keypair(
        id=secrets.token_bytes(16),
        label=place.label,
        store=True,
        mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
        private_template={
            Attribute.PRIVATE: True,
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: False,
            Attribute.SIGN: True,
        },
    )


def _decode_pin(pin: bytes) -> str:
    # The error is let go: it carries the PIN.
    with contextlib.suppress(UnicodeDecodeError):
        return pin.decode()
    raise KeyFileError("The PIN is not UTF-8.", mend="Type it as the token's maker says.")


def _refusals() -> tuple[type[Exception], ...]:
    import pkcs11

    return pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange, pkcs11.PinLocked, pkcs11.PinExpired


@contextlib.contextmanager
def _calling(place: Pkcs11Uri) -> Iterator[None]:
    """Call the token, alone, and turn its errors into ours."""
    try:
        import pkcs11
    except ImportError as error:
        raise KeyFileError(
            "The package 'python-pkcs11' is not installed.", mend="Install fedhouse[token]."
        ) from error
    with _LOCK:
        try:
            yield
        except pkcs11.PKCS11Error as error:
            how, mend = _explain(error)
            raise KeyFileError(f"{_name(place)} {how} ({type(error).__name__}).", mend=mend) from error


def _explain(error: Exception) -> tuple[str, str]:
    """What an error of PKCS#11 says of a key, and how to mend it."""
    import pkcs11

    if isinstance(error, _refusals()):
        return "refuses the PIN", "Check it before you try again: a token locks after a few wrong ones."
    match error:
        case pkcs11.NoSuchToken():
            return "is in a token that is not there", "Check the token's label, and that it is plugged in."
        case pkcs11.MultipleTokensReturned():
            return "is in a token whose label two have", "Give each token its own label."
        case _:
            return "does not answer", "Check the library's path and the token."


def _name(place: Pkcs11Uri) -> str:
    return f"Key '{place.label}' of token '{place.token}'"


def _malformed(how: str) -> NoReturn:
    raise KeyFileError(
        f"A PKCS#11 URI {how}.", mend=f"Write it as {_FORM}, percent-encoded, without the PIN."
    )
