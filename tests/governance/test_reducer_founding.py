"""Founding a consortium: what a charter may say, and that a refused founding leaves no trace."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from fedhouse.errors import SignatureError, UnknownSignerError
from fedhouse.governance.envelope import NO_CONSORTIUM, parse_envelope
from fedhouse.governance.families.consortium import Charter
from fedhouse.governance.reducer import admit, apply
from fedhouse.governance.state import State
from fedhouse.identity.binding import prove_binding
from fedhouse.identity.signer import SoftwareSigner

STRANGER = SoftwareSigner.insecure_from_seed("ed25519", b"\x01" * 32)


def charter_of(world: Any) -> dict[str, Any]:
    """The charter that the sandbox's founding envelope names, to be changed."""
    return copy.deepcopy(dict(parse_envelope(world.sandbox.founding()).statement.body["charter"]))


def found(world: Any, charter: dict[str, Any], by: str = "AA/admin", **options: Any) -> str:
    """Try to found on a changed charter; gives the verdict."""
    options = {"consortium": NO_CONSORTIUM, "sequence": 1} | options
    return world.say(by, "consortium.created", {"charter": charter}, **options)


def key_of(charter: dict[str, Any], actor: str) -> dict[str, Any]:
    """The binding of an actor in a charter."""
    return next(key for item in charter["founders"] for key in item["keys"] if key["actor"] == actor)


def test_a_founder_is_active_at_once_and_the_others_once_they_join(new_world: Callable[..., Any]) -> None:
    world = new_world()
    world.play([world.sandbox.founding()])
    consortium = world.state.consortium
    assert consortium.id == world.sandbox.id
    assert consortium.charter == Charter.model_validate(charter_of(world)).digest()
    assert consortium.active() == ("AA",)
    assert {consortium.status(name) for name in ("B6", "DL")} == {"founding"}
    world.must("B6/admin", "member.joined", {"charter": consortium.charter})
    assert world.state.consortium.active() == ("AA", "B6")


def test_nobody_but_a_founder_founds(new_world: Callable[..., Any]) -> None:
    world = new_world()
    charter = charter_of(world)
    with pytest.raises(UnknownSignerError):
        found(world, charter, signer=STRANGER)
    with pytest.raises(UnknownSignerError):
        found(world, charter, by="UA/admin")
    with pytest.raises(UnknownSignerError):
        world.say("AA/admin", "member.left", {}, consortium=NO_CONSORTIUM)
    with pytest.raises(UnknownSignerError):
        world.say("AA/admin", "consortium.created", {"charter": {}}, consortium=NO_CONSORTIUM)
    assert world.state.digest() == State().digest()
    # By any founding member, though: the others have to join.
    assert found(world, charter, by="DL/admin") == "accepted"
    assert world.state.consortium.active() == ("DL",)


def test_the_founding_envelope_is_signed(new_world: Callable[..., Any]) -> None:
    good = new_world().sandbox.founding()
    other = new_world(seed="other").sandbox.founding()
    cut = b'"sig":"'
    with pytest.raises(SignatureError):
        admit(State(), parse_envelope(good[: good.index(cut)] + other[other.index(cut) :]))


@pytest.mark.parametrize(
    "actor", ["AA/steward", "AA/owner", "AA/officer", "AA/agent", "AA/witness", "AA/operator"]
)
def test_only_an_administrator_founds(new_world: Callable[..., Any], actor: str) -> None:
    world = new_world()
    assert found(world, charter_of(world), by=actor) == "role"


def test_the_checks_of_every_envelope_hold_for_the_founding_too(new_world: Callable[..., Any]) -> None:
    world = new_world()
    charter = charter_of(world)
    assert found(world, charter, sequence=2) == "sequence"
    assert found(world, charter, consortium="ab" * 32) == "other-consortium"
    assert found(world, charter, by="AA/owner", signer=world.sandbox.signer("AA/admin")) == "signer"
    assert found(world, charter, issued=world.time + 61) == "future-dated"
    assert found(world, charter, subjects=[("charter", "ab" * 32)]) == "subject"
    assert found(world, charter, subjects=[("consortium", NO_CONSORTIUM)]) == "subject"
    assert found(world, charter, version=2) == "unknown-type"
    assert world.state.digest() == State().digest()
    assert found(world, charter) == "accepted"


def test_a_refused_founding_does_not_use_up_the_number_of_another(new_world: Callable[..., Any]) -> None:
    # Anybody may put a charter of his own in front, with actors of any name.
    world, squatter = new_world(), new_world(seed="squatter")
    squatted = charter_of(squatter)
    key_of(squatted, "AA/admin")["roles"] = ["steward"]
    attempt = squatter.sandbox.sign(
        "AA/admin", "consortium.created", {"charter": squatted}, consortium=NO_CONSORTIUM
    )
    assert world.put(attempt) == "role"
    assert world.state.digest() == State().digest()
    assert world.put(world.sandbox.founding()) == "accepted"


def _twice(charter: dict[str, Any]) -> None:
    charter["founders"].append(charter["founders"][0])


def _same_member(charter: dict[str, Any]) -> None:
    charter["founders"][1]["member"] = "AA"


def _same_actor(charter: dict[str, Any]) -> None:
    charter["founders"][0]["keys"].append(charter["founders"][0]["keys"][0])


def _same_key(charter: dict[str, Any]) -> None:
    key = charter["founders"][0]["keys"][1]
    owner = SoftwareSigner.insecure_from_seed("ed25519", b"\x03" * 32)
    for actor in ("AA/one", "AA/two"):
        proof = prove_binding(owner, actor)
        binding = key | {"actor": actor, "key": owner.public.to_json(), "proof": proof}
        charter["founders"][0]["keys"].append(binding)


def _key_for_another_member(charter: dict[str, Any]) -> None:
    charter["founders"][0]["keys"].append(charter["founders"][1]["keys"].pop())


def _borrowed_proof(charter: dict[str, Any]) -> None:
    key_of(charter, "B6/owner")["proof"] = key_of(charter, "B6/admin")["proof"]


def _borrowed_key(charter: dict[str, Any]) -> None:
    key_of(charter, "B6/owner")["key"] = STRANGER.public.to_json()


def _proof_in_another_spelling(charter: dict[str, Any]) -> None:
    key_of(charter, "B6/owner")["proof"] += "\n"


def _person_without_roles(charter: dict[str, Any]) -> None:
    key_of(charter, "B6/owner")["roles"] = []


def _agent_with_a_role(charter: dict[str, Any]) -> None:
    key_of(charter, "B6/agent")["roles"] = ["admin"]


def _log_key_not_a_key(charter: dict[str, Any]) -> None:
    charter["log"]["public"] = "AAAA"


def _log_key_of_small_order(charter: dict[str, Any]) -> None:
    charter["log"]["public"] = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


def _log_key_that_signs_no_checkpoints(charter: dict[str, Any]) -> None:
    charter["log"] = SoftwareSigner.insecure_from_seed("ml-dsa-65", b"\x05" * 32).public.to_json()


def _more_approvals_than_entities(charter: dict[str, Any]) -> None:
    charter["rules"]["job_approvals"] = 4


def _more_votes_than_entities(charter: dict[str, Any]) -> None:
    charter["rules"]["member_approvals"] = 4


def _more_lifts_than_entities(charter: dict[str, Any]) -> None:
    charter["rules"]["lift_approvals"] = 4


def _affiliates_are_one_entity(charter: dict[str, Any]) -> None:
    charter["rules"]["member_approvals"] = 3
    charter["founders"][1]["entity"] = "DL"


def _everybody_may_collude(charter: dict[str, Any]) -> None:
    charter["rules"]["colluding"] = 3


REFUSED_CHARTERS: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (_twice, "member-known"),
    (_same_member, "member-known"),
    (_same_actor, "key-in-use"),
    (_same_key, "key-known"),
    (_key_for_another_member, "other-member"),
    (_borrowed_proof, "key-proof"),
    (_borrowed_key, "key-proof"),
    (_proof_in_another_spelling, "key-proof"),
    (_person_without_roles, "role"),
    (_agent_with_a_role, "role"),
    (_log_key_not_a_key, "key"),
    (_log_key_of_small_order, "key"),
    (_log_key_that_signs_no_checkpoints, "key"),
    (_more_approvals_than_entities, "rules"),
    (_more_votes_than_entities, "rules"),
    (_more_lifts_than_entities, "rules"),
    (_affiliates_are_one_entity, "rules"),
    (_everybody_may_collude, "rules"),
]


@pytest.mark.parametrize(("change", "code"), REFUSED_CHARTERS)
def test_a_charter_that_cannot_hold_is_refused(
    new_world: Callable[..., Any], change: Callable[[dict[str, Any]], None], code: str
) -> None:
    world = new_world()
    charter = charter_of(world)
    change(charter)
    assert found(world, charter) == code
    assert world.state.digest() == State().digest()


def _other_reducer(charter: dict[str, Any]) -> None:
    charter["reducer"] = "fedhouse-reducer/2"


def _key_no_key(charter: dict[str, Any]) -> None:
    key_of(charter, "B6/owner")["key"]["public"] = "????"


def _key_in_another_spelling(charter: dict[str, Any]) -> None:
    key_of(charter, "B6/owner")["key"]["public"] += "\n"


def _unknown_algorithm(charter: dict[str, Any]) -> None:
    key_of(charter, "B6/owner")["key"]["algorithm"] = "rsa"


def _unknown_role(charter: dict[str, Any]) -> None:
    key_of(charter, "B6/owner")["roles"] = ["root"]


def _no_founders(charter: dict[str, Any]) -> None:
    charter["founders"] = []


def _sixty_five_founders(charter: dict[str, Any]) -> None:
    charter["founders"] = [item | {"keys": item["keys"][:1]} for item in charter["founders"][:1]] * 65


def _origin_with_spaces(charter: dict[str, Any]) -> None:
    charter["origin"] = "example.org log"


@pytest.mark.parametrize(
    "change",
    [
        _other_reducer,
        _key_no_key,
        _key_in_another_spelling,
        _unknown_algorithm,
        _unknown_role,
        _no_founders,
        _sixty_five_founders,
        _origin_with_spaces,
    ],
)
def test_what_is_no_charter_founds_nothing_and_is_not_recorded(
    new_world: Callable[..., Any], change: Callable[[dict[str, Any]], None]
) -> None:
    world = new_world()
    charter = charter_of(world)
    change(charter)
    with pytest.raises(UnknownSignerError):
        found(world, charter)


def test_a_charter_is_named_by_what_it_means(new_world: Callable[..., Any]) -> None:
    world = new_world()
    charter = charter_of(world)
    spelt, short = Charter.model_validate(charter), copy.deepcopy(charter)
    del short["reducer"]
    assert Charter.model_validate(short).digest() == spelt.digest(), "a default is part of it"
    for change in (
        {"name": "x"},
        {"origin": "x.example"},
        {"log": STRANGER.public.to_json()},
        {"rules": {"colluding": 0}},
        {"founders": charter["founders"][:2]},
        {"founders": charter["founders"][::-1]},
    ):
        assert Charter.model_validate(charter | change).digest() != spelt.digest()


def test_one_member_alone_can_found_and_grow(new_world: Callable[..., Any]) -> None:
    world = new_world(("AA",)).start()
    assert world.invite("B6", by="AA") == "accepted"
    world.must("B6/admin", "member.joined", {"charter": world.state.consortium.charter})
    assert world.vote("member.approved", "B6", "AA") == ["accepted"]
    assert world.state.consortium.active() == ("AA", "B6")


def test_a_founding_that_was_admitted_by_no_state_does_nothing(new_world: Callable[..., Any]) -> None:
    envelope = parse_envelope(new_world().sandbox.sign("AA/admin", "member.left", {}))
    with pytest.raises(UnknownSignerError):
        apply(State(), envelope, 0)
