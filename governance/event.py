"""What an event family is made of: bodies with a schema, rules, refusals and effects.

A family is one module under `fedhouse.governance.families`. It has a slice of the state (a `Record`), a
`Body` for each of its events, and for each a rule

    rule(state, event, time) -> (state, effects)

that is a pure function and raises `Refused` where the event must not count. `EVENTS` of the module lists
them; `fedhouse.governance.reducer` puts the families together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from fedhouse.governance.envelope import MAX_INTEGER, PayloadRef

if TYPE_CHECKING:
    from fedhouse.governance.families.keys import BoundKey
    from fedhouse.governance.state import State

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""A name: of a member, a dataset, a job, a column; the same rule as `fedhouse.types.require_name`."""
ActorName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}/[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
]
Count = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
Seconds = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
"""A point in time: whole seconds since 1970, UTC."""
DecimalText = Annotated[str, Field(pattern=r"^-?(0|[1-9][0-9]{0,37})(\.[0-9]{1,18})?$")]
"""A number that is no integer, or may be large: an amount, a metric. Never negative zero by our writers."""


class Body(BaseModel):
    """Base of all event bodies: frozen, strict about types, no unknown keys, values never in messages."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    def subjects(self) -> tuple[tuple[str, str], ...]:
        """Name and digest of what the event is about; empty stands for the consortium itself."""
        return ()


BodyType = TypeVar("BodyType", bound=Body)


@dataclass(frozen=True, slots=True)
class Event(Generic[BodyType]):
    """An envelope whose signer is known and whose body has the schema of its type."""

    digest: str
    type: str
    signer: BoundKey
    body: BodyType
    payloads: tuple[PayloadRef, ...] = ()

    @property
    def actor(self) -> str:
        """Who signed: `MEMBER/NAME`."""
        return self.signer.actor

    @property
    def member(self) -> str:
        """The organisation that the signer acts for."""
        return self.signer.member


class Refused(Exception):
    """Raised by a rule: the event is recorded and does not count. `code` becomes the verdict."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


ACCEPTED: Final = "accepted"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules made of an event: `accepted`, or `refused` with a code. Part of the outcome tree."""

    code: str

    @property
    def accepted(self) -> bool:
        """Whether the event counts."""
        return self.code == ACCEPTED

    def __str__(self) -> str:
        return self.code if self.accepted else f"refused ({self.code})"


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that whoever hears of the event has to do outside the state."""

    kind: Literal["stop-work", "delete-prepared", "erase-payload"]
    subject: str
    """The job, the dataset's name or the payload's digest."""
    member: str = ""
    """Whom it concerns; empty for all."""


Result: TypeAlias = "tuple[State, tuple[Effect, ...]]"
Rule: TypeAlias = "Callable[[State, Event[Any], int], Result]"


@dataclass(frozen=True, slots=True)
class EventType:
    """One type of event: its body's schema and the rule that judges it."""

    body: type[Body]
    rule: Rule
    while_inactive: bool = False
    """Whether members that are not active (invited, suspended, gone) may sign it."""


def require(condition: bool, code: str) -> None:
    """Refuse the event with `code` unless `condition` holds."""
    if not condition:
        raise Refused(code)


def require_role(event: Event[Any], *roles: str) -> None:
    """Refuse unless a person with one of `roles` signed."""
    if event.signer.kind != "person" or not set(roles) & set(event.signer.roles):
        raise Refused("role")


def require_kind(event: Event[Any], kind: str) -> None:
    """Refuse unless the signer is an agent, a witness or an operator, as `kind` says."""
    if event.signer.kind != kind:
        raise Refused("role")
