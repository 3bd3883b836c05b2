"""Keys in a token, against SoftHSM; and the text form that names them."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedhouse.errors import IntegrityError, KeyFileError
from fedhouse.identity.binding import check_binding, prove_binding
from fedhouse.identity.token import Pkcs11Signer, Pkcs11Uri, parse_pkcs11_uri, point_of

GOOD = "pkcs11:token=consortium;object=steward-1?module-path=/usr/lib/softhsm/libsofthsm2.so"


@pytest.fixture(scope="module")
def signer(token: SimpleNamespace) -> Iterator[Pkcs11Signer]:
    """A key made in the token."""
    made = Pkcs11Signer.generate(token.library, token.label, "steward-1", token.pin)
    yield made
    made.close()


def _opened(place: SimpleNamespace, label: str = "steward-1", **changes: Any) -> Pkcs11Signer:
    values = {"library": place.library, "token": place.label, "label": label, "pin": place.pin}
    return Pkcs11Signer(**(values | changes))


def _inside(token: SimpleNamespace) -> Any:
    """A session of our own, past the signer."""
    import pkcs11

    place = pkcs11.lib(str(token.library.resolve())).get_token(token_label=token.label)
    try:
        return place.open(rw=True, user_pin=token.pin.decode())
    except pkcs11.UserAlreadyLoggedIn:
        return place.open(rw=True)


def _generate(token: SimpleNamespace, label: str, **template: bool) -> None:
    import pkcs11
    from pkcs11.util.ec import encode_named_curve_parameters

    session = _inside(token)
    parameters = session.create_domain_parameters(
        pkcs11.KeyType.EC_EDWARDS,
        {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("1.3.101.112")},
        local=True,
    )
    parameters.generate_keypair(
        label=label,
        store=True,
        mechanism=pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
        private_template={pkcs11.Attribute[name]: value for name, value in template.items()},
    )
    session.close()


def test_a_token_signs_as_software_does(signer: Pkcs11Signer) -> None:
    assert signer.public.algorithm == "ed25519"
    for message in (b"", b"message", bytes(100_000)):
        signature = signer.sign(message)
        assert len(signature) == 64
        signer.public.verify(signature, message)
    check_binding(prove_binding(signer, "AA/steward-1"), "AA/steward-1", signer.public)


def test_the_key_is_there_again_when_opened_again(signer: Pkcs11Signer, token: SimpleNamespace) -> None:
    again = _opened(token)
    assert again.public == signer.public
    again.public.verify(again.sign(b"message"), b"message")
    again.close()
    again.close()
    again.public.verify(again.sign(b"message"), b"message")
    # Closing one logs the process out of the token; the other logs in again by itself.
    again.close()
    signer.public.verify(signer.sign(b"message"), b"message")


def test_the_private_key_does_not_come_out(signer: Pkcs11Signer, token: SimpleNamespace) -> None:
    import pkcs11

    session = _inside(token)
    key = session.get_key(pkcs11.ObjectClass.PRIVATE_KEY, pkcs11.KeyType.EC_EDWARDS, "steward-1")
    assert key[pkcs11.Attribute.SENSITIVE]
    assert key[pkcs11.Attribute.ALWAYS_SENSITIVE]
    assert key[pkcs11.Attribute.NEVER_EXTRACTABLE]
    with pytest.raises((pkcs11.AttributeSensitive, pkcs11.AttributeTypeInvalid, KeyError)):
        key[pkcs11.Attribute.VALUE]
    with pytest.raises(pkcs11.PKCS11Error):
        key[pkcs11.Attribute.EXTRACTABLE] = True
    session.close()


@pytest.mark.parametrize("template", [{"EXTRACTABLE": True}, {"SENSITIVE": False}])
def test_a_key_that_could_come_out_is_refused(template: dict[str, bool], token: SimpleNamespace) -> None:
    label = f"open {next(iter(template))}"
    _generate(token, label, **template)
    with pytest.raises(KeyFileError, match="would give its private key away"):
        _opened(token, label)


def test_a_label_names_one_key(signer: Pkcs11Signer, token: SimpleNamespace) -> None:
    with pytest.raises(KeyFileError, match=r"'steward-1' of token 'consortium AA' exists"):
        Pkcs11Signer.generate(token.library, token.label, "steward-1", token.pin)
    for _ in range(2):
        _generate(token, "twin", SENSITIVE=True, EXTRACTABLE=False)
    with pytest.raises(KeyFileError, match="is in the token 2 times"):
        _opened(token, "twin")


def test_a_lost_session_is_opened_again(token: SimpleNamespace, signer: Pkcs11Signer) -> None:
    import pkcs11

    pkcs11.lib(str(token.library.resolve())).reinitialize()
    signer.public.verify(signer.sign(b"message"), b"message")


def test_a_handle_that_now_means_another_key_signs_nothing(token: SimpleNamespace) -> None:
    """After a restart of the library, handles are given out anew: the old one may be another's key."""
    import pkcs11

    Pkcs11Signer.generate(token.library, token.label, "first", token.pin).close()
    Pkcs11Signer.generate(token.library, token.label, "second", token.pin).close()
    pkcs11.lib(str(token.library.resolve())).reinitialize()
    first = _opened(token, "first")
    pkcs11.lib(str(token.library.resolve())).reinitialize()
    second = _opened(token, "second")
    for signer in (first, second, first):
        signer.public.verify(signer.sign(b"message"), b"message")


def test_a_key_that_was_exchanged_is_noticed(token: SimpleNamespace) -> None:
    import pkcs11

    victim = Pkcs11Signer.generate(token.library, token.label, "exchanged", token.pin)
    session = _inside(token)
    for key in list(session.get_objects({pkcs11.Attribute.LABEL: "exchanged"})):
        key.destroy()
    session.close()
    _generate(token, "exchanged", SENSITIVE=True, EXTRACTABLE=False)
    with pytest.raises(KeyFileError, match="signs by another key than when it was opened"):
        victim.sign(b"message")


def test_threads_share_a_signer(signer: Pkcs11Signer) -> None:
    messages = [f"message {number}".encode() for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        signatures = list(pool.map(signer.sign, messages))
    for signature, message in zip(signatures, messages, strict=True):
        signer.public.verify(signature, message)


@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({"token": "nobody"}, "in a token that is not there"),
        ({"label": "nobody"}, "is in the token 0 times"),
        ({"library": Path("/usr/lib/nothing.so")}, "does not answer"),
        ({"library": Path(__file__)}, "does not answer"),
        ({"library": Path("libsofthsm2.so")}, "not absolute"),
        ({"label": ""}, "label of a key"),
        ({"label": "x" * 65}, "label of a key"),
        ({"label": "a\nb"}, "label of a key"),
        ({"token": "ä" * 17}, "label of a token"),
        ({"pin": b"canary\xff"}, "PIN is not UTF-8"),
    ],
)
def test_what_is_not_there_is_named(changes: dict[str, Any], how: str, token: SimpleNamespace) -> None:
    with pytest.raises(KeyFileError, match=how) as caught:
        _opened(token, **changes)
    _tells_no_pin(caught.value)
    assert caught.value.mend
    if how != "is in the token 0 times":
        values = {"library": token.library, "token": token.label, "label": "none", "pin": token.pin}
        with pytest.raises(KeyFileError, match=how) as caught:
            Pkcs11Signer.generate(**(values | changes))
        _tells_no_pin(caught.value)


def _tells_no_pin(error: BaseException | None) -> None:
    while error is not None:
        assert "canary" not in f"{error} {error!r} {error.args}"
        error = error.__cause__ or error.__context__


def test_a_refused_pin_is_neither_told_nor_tried_again(token: SimpleNamespace) -> None:
    """A token counts wrong PINs and locks, so the second try must not reach it."""
    import pkcs11

    signer = Pkcs11Signer.generate(token.library, token.label, "changed", token.pin)
    signer.close()
    pkcs11.lib(str(token.library.resolve())).reinitialize()  # nobody is logged in
    with pytest.raises(KeyFileError, match=r"refuses the PIN \(PinIncorrect\)") as caught:
        _opened(token, "changed", pin=b"canary-wrong-pin")
    _tells_no_pin(caught.value)
    session = _inside(token)
    session.set_pin(token.pin.decode(), "canary-other-pin")
    session.close()
    try:
        for _ in range(2):
            with pytest.raises(
                KeyFileError, match="refused the PIN before, so it is not tried again"
            ) as caught:
                signer.sign(b"message")
            _tells_no_pin(caught.value)
    finally:
        token.pin, before = b"canary-other-pin", token.pin
        session = _inside(token)
        session.set_pin("canary-other-pin", before.decode())
        session.close()
        token.pin = before
    with pytest.raises(KeyFileError, match="not tried again"):
        signer.sign(b"message")


def test_a_signer_shows_its_place_and_nothing_else(signer: Pkcs11Signer) -> None:
    shown = f"{signer} {signer!r}"
    assert "token=consortium%20AA;object=steward-1" in shown
    assert signer.public.key_id in shown
    assert "canary" not in shown
    for take in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="neither pickled nor copied"):
            take(signer)


def test_without_the_package_the_extra_is_named() -> None:
    program = (
        "import sys; sys.modules['pkcs11'] = None\n"
        "from pathlib import Path\n"
        "from fedhouse.errors import KeyFileError\n"
        "from fedhouse.identity.token import Pkcs11Signer\n"
        "for call in (Pkcs11Signer, Pkcs11Signer.generate):\n"
        "    try:\n"
        "        call(Path('/x.so'), 'token', 'label', b'canary')\n"
        "    except KeyFileError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.count("Install fedhouse[token].") == 2
    assert "canary" not in done.stdout + done.stderr


def test_the_package_is_loaded_only_for_a_token() -> None:
    program = "import sys, fedhouse.identity.token; print('pkcs11' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# --- the text form ----------------------------------------------------------------------------------

LABEL = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8)
FOLDER = st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters="/."), min_size=1, max_size=8
)


@given(LABEL, LABEL, st.lists(FOLDER, min_size=1, max_size=3))
def test_every_place_has_a_text(token: str, label: str, folders: list[str]) -> None:
    place = Pkcs11Uri(Path("/" + "/".join(folders)), token, label)
    assert parse_pkcs11_uri(str(place)) == place


@given(st.lists(st.sampled_from([*"aA/;?=&% ", "%20", "%2f", "%2F", "%61", "token=", "ä"]), max_size=6))
def test_no_two_texts_name_the_same_place(parts: list[str]) -> None:
    text = GOOD.replace("steward-1", "x" + "".join(parts))
    try:
        place = parse_pkcs11_uri(text)
    except KeyFileError:
        return
    assert str(place) == text


def test_the_form_is_that_of_rfc_7512() -> None:
    place = parse_pkcs11_uri(GOOD)
    assert place == Pkcs11Uri(Path("/usr/lib/softhsm/libsofthsm2.so"), "consortium", "steward-1")
    spaced = parse_pkcs11_uri(GOOD.replace("consortium", "My%20token%20%2311"))
    assert spaced == Pkcs11Uri(place.library, "My token #11", "steward-1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        None,
        b"pkcs11:",
        "pkcs11:",
        GOOD + "\n",
        GOOD + "&pin-value=canary",
        GOOD + "&pin-source=file:/canary",
        GOOD.replace("?", ";pin-value=canary?"),
        GOOD + "&module-name=x",
        GOOD.replace("object=steward-1", "id=%01"),
        GOOD.replace("token=consortium;object=steward-1", "object=steward-1;token=consortium"),
        GOOD.replace("token=consortium;", "token=a;token=consortium;"),
        GOOD.replace("token=consortium", "token="),
        GOOD.replace("/usr/lib", "usr/lib"),
        GOOD.replace("/usr/lib/", "/usr//lib/"),
        GOOD.replace("/usr/lib/", "/usr/./lib/"),
        GOOD.replace("/softhsm/", "%2Fsofthsm/"),
        GOOD.replace("consortium", "%63onsortium"),
        GOOD.replace("consortium", "con%zzium"),
        GOOD.replace("consortium", "con%ff"),
        GOOD.replace("consortium", "a%0Ab"),
        GOOD.replace("consortium", "a%00b"),
        GOOD.replace("consortium", "x" * 33),
        GOOD.replace("steward-1", "x" * 65),
        GOOD.replace("steward-1", "a b"),
        GOOD.replace("pkcs11:", "PKCS11:"),
        GOOD.replace("/usr", "/" + "x" * 1024),
    ],
)
def test_other_texts_are_refused_without_being_shown(text: Any) -> None:
    with pytest.raises(KeyFileError) as caught:
        parse_pkcs11_uri(text)
    assert caught.value.mend
    assert "canary" not in str(caught.value)


def test_a_point_is_read_in_its_two_forms() -> None:
    raw = bytes(range(32))
    assert point_of(b"\x04\x20" + raw) == raw
    assert point_of(raw) == raw
    for other in (
        b"",
        raw[:-1],
        b"\x03\x20" + raw,
        b"\x04\x21" + raw,
        b"\x04\x20" + raw + b"\0",
        b"\x03\x21\0" + raw,
    ):
        with pytest.raises(IntegrityError, match="no Ed25519 point"):
            point_of(other)
