"""Which connectors there are: ours and installed plug-ins, by the entry points `fedhouse.connectors`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from fedhouse.connectors.connector import Connector
from fedhouse.connectors.profiles import Profile
from fedhouse.errors import ConfigurationError, FedhouseError, ProfileError

GROUP = "fedhouse.connectors"


def kinds() -> dict[str, EntryPoint]:
    """Every installed connector by the `type` that a profile gives.

    Raises
    ------
    ConfigurationError
        If two distributions offer the same type: which one would run must not hang on chance.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise ConfigurationError(
                f"Two distributions offer a connector '{point.name}': {_origin(other)} and {_origin(point)}.",
                mend="Uninstall one of them.",
            )
    return found


def open_connector(profile: Profile) -> Connector:
    """The connector for a profile.

    Raises
    ------
    ProfileError
        If its type is unknown, or the connector refuses the profile.
    ConfigurationError
        If an installed plug-in does not load; names its distribution.
    """
    known = kinds()
    point = known.get(profile.type)
    if point is None:
        raise ProfileError(
            f"Profile {profile.name} has the unknown type '{profile.type}'.",
            mend=f"There are {', '.join(sorted(known))}.",
        )
    try:
        made = cast("Callable[[Profile], Connector]", point.load())
    except Exception as error:
        # A plug-in is somebody else's code: whatever its import raises is told by its class.
        raise ConfigurationError(
            f"Connector '{profile.type}' of {_origin(point)} does not load ({type(error).__name__}).",
            mend="Reinstall it in a version that fits.",
        ) from error
    try:
        return made(profile)
    except FedhouseError:
        raise
    except Exception as error:  # noqa: BLE001 - as above; its message could hold what the profile holds
        raise ConfigurationError(
            f"Connector '{profile.type}' of {_origin(point)} fails to open ({type(error).__name__})."
        ) from None


def _origin(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
