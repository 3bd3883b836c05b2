"""Names of actors: two names and one stroke."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedhouse.errors import ConfigurationError
from fedhouse.identity.actors import MAX_ACTOR, parse_actor

NAME = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")


@given(NAME, NAME)
def test_every_pair_of_names_is_an_actor(member: str, name: str) -> None:
    assert parse_actor(f"{member}/{name}") == (member, name)


@given(st.text(max_size=20) | st.text("Aa1/.-_ \n", max_size=8))
def test_what_parses_is_its_two_parts(text: str) -> None:
    try:
        parts = parse_actor(text)
    except ConfigurationError:
        return
    assert "/".join(parts) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "AA",
        "/",
        "AA/",
        "/agent",
        "AA//agent",
        "AA/agent/1",
        "AA/agent\n",
        " AA/agent",
        "AA/../x",
        "AA/.x",
        "AA/ä",
        "A" * 65 + "/x",
        "A" * MAX_ACTOR + "/x",
        "AA\\agent",
        None,
        b"AA/agent",
        ("AA", "agent"),
    ],
)
def test_other_texts_are_refused(text: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_actor(text)
    assert caught.value.mend
    assert len(str(caught.value)) < 300
