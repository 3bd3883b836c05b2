"""Names of those who act: `MEMBER/NAME`, for example `AA/steward-1`, `AA/agent`, `AA/witness`.

An actor is an organisation's office, not a person's name: each member keeps its own register of who
holds it. A person has roles; agents, witnesses and operators are programs and have none.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from fedhouse.errors import ConfigurationError
from fedhouse.types import require_name

ActorId: TypeAlias = str
Kind = Literal["person", "agent", "witness", "operator"]
Role = Literal["owner", "steward", "officer", "admin"]

# Two names of up to 64 characters and what separates them.
MAX_ACTOR = 64 + 1 + 64


def parse_actor(text: ActorId) -> tuple[str, str]:
    """Member and name of an actor.

    Raises
    ------
    ConfigurationError
        If `text` is not `MEMBER/NAME` with two names that may stand in paths and identifiers.
    """
    parts = text.split("/") if isinstance(text, str) and len(text) <= MAX_ACTOR else []
    if len(parts) != 2:
        raise ConfigurationError(
            f"{str(text)[:40]!r} names no actor.", mend="Write MEMBER/NAME, for example AA/steward-1."
        )
    return require_name(parts[0], "member name"), require_name(parts[1], "actor name")
