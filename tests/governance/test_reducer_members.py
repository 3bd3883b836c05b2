"""Members: invited, joined, approved, suspended, gone; amendments; and votes that count by entity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fedhouse.governance.event import Effect
from fedhouse.governance.families.consortium import Amended
from fedhouse.governance.sandbox import named

FIVE = ("AA", "B6", "DL", "UA", "WN")


def amendment(world: Any, **rules: int) -> dict[str, Any]:
    """The body of a vote for other rules on top of the charter in force."""
    usual = {"job_approvals": 2, "member_approvals": 2, "lift_approvals": 2, "colluding": 1}
    return {"previous": world.state.consortium.charter, "rules": usual | rules}


def join(world: Any, member: str, **options: Any) -> str:
    """Let an invited member join under the charter in force; gives the verdict."""
    return world.say(
        f"{member}/admin", "member.joined", {"charter": world.state.consortium.charter}, **options
    )


def status(world: Any, member: str) -> str:
    """What a member is now."""
    return world.state.consortium.status(member)


def test_the_way_in_and_out(world: Any) -> None:
    assert world.invite("UA", by="B6") == "accepted"
    assert status(world, "UA") == "invited"
    assert world.vote("member.approved", "UA", "AA") == ["not-open"], "it has not joined"
    assert join(world, "UA") == "accepted"
    assert status(world, "UA") == "joined"
    assert join(world, "UA") == "not-invited"
    assert world.vote("member.approved", "UA", "AA", "AA", "DL") == ["accepted", "already-voted", "accepted"]
    assert status(world, "UA") == "active"
    assert world.vote("member.approved", "UA", "B6") == ["not-open"], "it is decided"
    assert world.vote("member.suspended", "UA", "AA", "B6") == ["accepted", "accepted"]
    assert status(world, "UA") == "suspended"
    assert world.vote("member.suspended", "UA", "DL") == ["not-open"]
    assert world.vote("member.approved", "UA", "AA", "B6") == ["accepted", "accepted"]
    assert status(world, "UA") == "active"
    world.must("UA/admin", "member.left", {})
    assert world.effects == (Effect("delete-prepared", "", "UA"),)
    assert status(world, "UA") == "left"
    assert world.invite("UA", by="AA") == "member-known", "who left does not come back under the same name"
    assert world.vote("member.approved", "UA", "AA") == ["not-open"]
    assert join(world, "UA") == "not-invited"
    assert world.say("UA/admin", "member.left", {}) == "member-inactive"


@pytest.mark.parametrize(
    "actor", ["AA/officer", "AA/steward", "AA/owner", "AA/agent", "AA/witness", "AA/operator"]
)
def test_only_administrators_decide_about_members(world: Any, actor: str) -> None:
    founder = world.sandbox.founder("UA")
    for event, body in (
        ("member.invited", {"founder": founder}),
        ("member.joined", {"charter": world.state.consortium.charter}),
        ("member.approved", {"member": "DL"}),
        ("member.suspended", {"member": "DL"}),
        ("member.left", {}),
        ("affiliation.declared", {"member": "DL"}),
        ("charter.amended", amendment(world)),
    ):
        assert world.say(actor, event, body) == "role"


def test_an_invitation_says_nothing_of_who_is_there_already(world: Any) -> None:
    assert world.invite("AA", by="AA") == "member-known"
    assert world.invite("B6", by="AA") == "member-known"
    box = world.sandbox
    mine = {"member": "UA", "entity": "UA", "keys": [box.binding("UA/admin", box.signer("B6/admin"))]}
    assert world.say("B6/admin", "member.invited", {"founder": mine}) == "key-known"
    theirs = {"member": "UA", "entity": "UA", "keys": [box.binding("DL/admin-2")]}
    assert world.say("B6/admin", "member.invited", {"founder": theirs}) == "other-member"
    mine["keys"] = [box.binding("UA/admin") | {"proof": box.binding("UA/owner")["proof"]}]
    assert world.say("B6/admin", "member.invited", {"founder": mine}) == "key-proof"
    mine["keys"] = [box.binding("UA/admin") | {"roles": []}]
    assert world.say("B6/admin", "member.invited", {"founder": mine}) == "role"
    mine["keys"] = [box.binding("UA/admin"), box.binding("UA/admin")]
    assert world.say("B6/admin", "member.invited", {"founder": mine}) == "key-in-use"
    mine["keys"] = [box.binding("UA/admin") | {"key": {"algorithm": "ed25519", "public": "AAAA"}}]
    assert world.say("B6/admin", "member.invited", {"founder": mine}) == "key"
    assert status(world, "UA") == ""
    assert world.invite("UA", by="B6") == "accepted"


def test_joining_names_the_charter_in_force(new_world: Callable[..., Any]) -> None:
    world = new_world()
    world.play([world.sandbox.founding()])
    old = world.state.consortium.charter
    world.must("B6/admin", "member.joined", {"charter": old})
    assert world.invite("UA", by="AA") == "accepted"
    for actor in ("AA/admin", "B6/admin"):
        world.must(actor, "charter.amended", amendment(world, lift_approvals=1))
    for newcomer in ("UA", "DL"):
        assert world.say(f"{newcomer}/admin", "member.joined", {"charter": old}) == "other-charter"
        assert world.say(f"{newcomer}/admin", "member.joined", {"charter": named("x")}) == "other-charter"
        assert join(world, newcomer) == "accepted"
    assert status(world, "DL") == "active", "a founder"
    assert status(world, "UA") == "joined"


def test_nobody_decides_about_itself_or_its_affiliate(new_world: Callable[..., Any]) -> None:
    world = new_world(FIVE).start()
    world.affiliate("AA", "B6")
    assert world.vote("member.suspended", "AA", "AA", "B6") == ["own-matter", "own-matter"]
    assert world.vote("member.suspended", "AA", "DL", "UA") == ["accepted", "accepted"]
    assert world.vote("member.approved", "AA", "B6", "DL", "UA") == ["own-matter", "accepted", "accepted"]
    assert world.vote("member.approved", "XX", "AA") == ["not-open"]
    assert world.vote("member.suspended", "XX", "AA") == ["not-open"]


def test_votes_of_affiliates_count_once(new_world: Callable[..., Any]) -> None:
    world = new_world(FIVE, entities={"B6": "jet", "DL": "jet"}).start()
    assert world.vote("member.suspended", "WN", "B6", "DL") == ["accepted", "accepted"]
    assert status(world, "WN") == "active"
    assert world.vote("member.suspended", "WN", "AA") == ["accepted"]
    assert status(world, "WN") == "suspended"


def test_entities_are_counted_when_enough_have_voted_and_not_before(new_world: Callable[..., Any]) -> None:
    world = new_world(FIVE, rules={"member_approvals": 3}).start()
    assert world.vote("member.suspended", "WN", "AA", "B6") == ["accepted"] * 2
    world.affiliate("AA", "B6")
    assert world.vote("member.suspended", "WN", "DL") == ["accepted"], "the third member, the second entity"
    assert status(world, "WN") == "active"
    assert world.vote("member.suspended", "WN", "UA") == ["accepted"]
    assert status(world, "WN") == "suspended"


def test_a_vote_stops_counting_when_its_member_does(new_world: Callable[..., Any]) -> None:
    world = new_world((*FIVE, "YX")).start()
    assert world.vote("member.suspended", "WN", "AA") == ["accepted"]
    world.must("AA/admin", "member.left", {})
    assert world.vote("member.suspended", "WN", "B6") == ["accepted"]
    assert status(world, "WN") == "active", "the vote of one that left"
    assert world.vote("member.suspended", "B6", "DL", "UA") == ["accepted"] * 2
    assert world.vote("member.suspended", "WN", "DL") == ["accepted"]
    assert status(world, "WN") == "active", "the vote of one that is suspended"
    assert world.vote("member.suspended", "WN", "UA") == ["accepted"]
    assert status(world, "WN") == "suspended"
    assert world.vote("member.approved", "WN", "B6") == ["member-inactive"]


def test_no_vote_outlives_what_it_was_about(new_world: Callable[..., Any]) -> None:
    world = new_world(FIVE).start()
    assert world.vote("member.suspended", "WN", "AA", "B6") == ["accepted"] * 2
    assert world.vote("member.approved", "WN", "AA") == ["accepted"]
    world.must("WN/admin", "member.left", {})
    assert world.vote("member.approved", "WN", "B6") == ["not-open"]
    # Suspended, taken in again: votes for a second suspension begin at none.
    assert world.vote("member.suspended", "UA", "AA", "B6") == ["accepted"] * 2
    assert world.vote("member.approved", "UA", "AA", "B6") == ["accepted"] * 2
    assert world.vote("member.suspended", "UA", "DL") == ["accepted"]
    assert status(world, "UA") == "active"


def test_one_vote_of_two_stops_nobodys_work(world: Any) -> None:
    assert world.vote("member.suspended", "DL", "AA") == ["accepted"]
    assert world.effects == ()
    assert world.vote("member.suspended", "DL", "B6") == ["accepted"]
    assert world.effects == (Effect("stop-work", "", "DL"),)
    assert world.vote("member.approved", "DL", "AA", "B6") == ["accepted"] * 2
    assert world.effects == ()


def test_an_amendment_takes_votes_for_the_same_rules_on_the_same_charter(world: Any) -> None:
    body = amendment(world, job_approvals=3)
    assert world.say("AA/admin", "charter.amended", body) == "accepted"
    assert world.say("AA/admin", "charter.amended", body) == "already-voted"
    other = amendment(world, job_approvals=1)
    assert world.say("B6/admin", "charter.amended", other) == "accepted"
    assert world.state.consortium.job_approvals == 2, "two votes, for different things"
    assert world.say("DL/admin", "charter.amended", body) == "accepted"
    assert world.state.consortium.job_approvals == 3
    assert world.state.consortium.charter == Amended.model_validate(body).charter()
    assert world.say("B6/admin", "charter.amended", body) == "other-charter"
    assert world.say("DL/admin", "charter.amended", other) == "other-charter"
    # Back to the rules before: another charter than the first one, with votes of its own.
    back = amendment(world)
    assert world.say("AA/admin", "charter.amended", back) == "accepted"
    assert world.state.consortium.job_approvals == 3


@pytest.mark.parametrize(
    "rules", [{"job_approvals": 4}, {"member_approvals": 4}, {"lift_approvals": 4}, {"colluding": 3}]
)
def test_nobody_amends_a_charter_to_what_can_never_be_met(world: Any, rules: dict[str, int]) -> None:
    assert world.say("AA/admin", "charter.amended", amendment(world, **rules)) == "rules"
    within = {name: number - 1 for name, number in rules.items()}
    assert world.say("AA/admin", "charter.amended", amendment(world, **within)) == "accepted"


def test_only_active_entities_are_enough_for_an_amendment(new_world: Callable[..., Any]) -> None:
    world = new_world(FIVE).start()
    assert world.say("AA/admin", "charter.amended", amendment(world, member_approvals=5)) == "accepted"
    world.must("WN/admin", "member.left", {})
    world.affiliate("AA", "B6")
    assert world.say("AA/admin", "charter.amended", amendment(world, member_approvals=4)) == "rules"
    assert world.say("B6/admin", "charter.amended", amendment(world, member_approvals=5)) == "rules"


def test_an_affiliation_takes_both_sides(new_world: Callable[..., Any]) -> None:
    world = new_world(FIVE).start()
    assert world.say("AA/admin", "affiliation.declared", {"member": "B6"}) == "accepted"
    assert world.state.consortium.entity("B6") == "B6", "nobody is merged by another's word"
    assert world.say("AA/admin", "affiliation.declared", {"member": "B6"}) == "already-voted"
    assert world.say("DL/admin", "affiliation.declared", {"member": "B6"}) == "accepted"
    assert world.state.consortium.entity("B6") == "B6"
    assert world.say("B6/admin", "affiliation.declared", {"member": "AA"}) == "accepted"
    assert {world.state.consortium.entity(name) for name in ("AA", "B6")} == {"AA"}
    assert world.say("B6/admin", "affiliation.declared", {"member": "AA"}) == "already-affiliated"
    assert world.say("AA/admin", "affiliation.declared", {"member": "AA"}) == "already-affiliated"
    assert world.say("AA/admin", "affiliation.declared", {"member": "XX"}) == "unknown-member"
    world.must("WN/admin", "member.left", {})
    assert world.say("AA/admin", "affiliation.declared", {"member": "WN"}) == "unknown-member"


def test_affiliation_spreads_to_all_who_shared_an_entity(new_world: Callable[..., Any]) -> None:
    world = new_world(FIVE).start()
    world.affiliate("DL", "UA")
    world.affiliate("AA", "B6")
    # Any member of an entity speaks for it here.
    world.must("UA/admin", "affiliation.declared", {"member": "B6"})
    world.must("AA/admin", "affiliation.declared", {"member": "DL"})
    consortium = world.state.consortium
    assert [consortium.entity(name) for name in FIVE] == ["AA", "AA", "AA", "AA", "WN"]
    assert dict(consortium.merged.items()) == {"B6": "AA", "DL": "AA", "UA": "AA"}


def test_a_declaration_of_one_that_is_suspended_since_does_not_count(new_world: Callable[..., Any]) -> None:
    world = new_world(FIVE).start()
    world.must("AA/admin", "affiliation.declared", {"member": "B6"})
    assert world.vote("member.suspended", "AA", "DL", "UA") == ["accepted"] * 2
    world.must("B6/admin", "affiliation.declared", {"member": "AA"})
    assert world.state.consortium.entity("B6") == "B6"


def test_a_newcomer_does_not_take_the_name_of_another_entity(new_world: Callable[..., Any]) -> None:
    # A stranger in somebody's entity would vote, witness and count in its place.
    world = new_world(FIVE, entities={"B6": "jet"}).start()
    assert world.invite("XX", by="AA", entity="jet") == "other-entity"
    assert world.invite("XX", by="AA", entity="DL") == "other-entity"
    assert world.invite("XX", by="B6", entity="jet") == "accepted"
    assert world.state.consortium.entity("XX") == "jet"
    assert world.invite("YY", by="AA", entity="jet") == "other-entity"
    assert world.invite("YY", by="AA", entity="YY") == "accepted"
    assert world.invite("ZZ", by="B6", entity="YY") == "other-entity", "of one that is only invited, too"


def test_a_name_that_was_merged_stays_merged(new_world: Callable[..., Any]) -> None:
    world = new_world(FIVE).start()
    world.affiliate("AA", "B6")
    assert world.invite("XX", by="DL", entity="B6") == "other-entity"
    assert world.invite("XX", by="AA", entity="B6") == "accepted"
    assert world.state.consortium.entity("XX") == "AA", "not a second entity behind an old name"


def test_an_entity_whose_members_all_left_may_come_back(new_world: Callable[..., Any]) -> None:
    world = new_world(FIVE).start()
    world.must("WN/admin", "member.left", {})
    assert world.invite("WN-2", by="AA", entity="WN") == "accepted"


def test_a_founder_that_never_joined_counts_for_nothing(new_world: Callable[..., Any]) -> None:
    world = new_world(FIVE)
    world.play([world.sandbox.founding()])
    assert world.vote("member.suspended", "B6", "AA") == ["not-open"]
    assert world.vote("member.approved", "B6", "AA") == ["not-open"]
    assert world.say("B6/admin", "charter.amended", amendment(world)) == "member-inactive"
    assert world.say("AA/admin", "charter.amended", amendment(world)) == "rules", "nobody else is active"
    world.must("B6/admin", "member.left", {})
    assert join(world, "B6") == "not-invited"


def test_the_order_of_votes_leaves_no_trace(new_world: Callable[..., Any]) -> None:
    def after(*voters: str) -> str:
        world = new_world(FIVE).found()
        for event, about in (("member.suspended", "WN"), ("member.approved", "WN")):
            world.vote(event, about, *voters)
        return world.state.digest()

    assert after("AA", "B6", "DL") == after("DL", "AA", "B6") == after("B6", "DL", "AA")
