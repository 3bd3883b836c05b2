"""One error tree, with the exit codes that schedulers rely on."""

from __future__ import annotations

import pickle

import pytest

from fedhouse import errors
from fedhouse.errors import FedhouseError, QuorumError

CODES = {
    "ConfigurationError": 2,
    "JobError": 2,
    "ProfileError": 2,
    "BundleError": 2,
    "SourceError": 2,
    "KeyFileError": 2,
    "EnvironmentUnfitError": 2,
    "QualityGateError": 3,
    "QuorumError": 4,
    "TimeLimitError": 4,
    "PolicyRefusedError": 5,
    "VerificationError": 6,
    "SourceChangedError": 6,
    "IntegrityError": 6,
    "SignatureError": 6,
    "EnvelopeError": 6,
    "UnknownSignerError": 6,
    "HistoryError": 6,
}
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_in_the_tree_and_has_its_exit_code(kind: type[FedhouseError]) -> None:
    assert issubclass(kind, FedhouseError)
    assert kind.exit_code == CODES.get(kind.__name__, 1)
    assert kind is FedhouseError or kind.__name__ in (errors.__doc__ or "")


def test_errors_survive_pickling_and_read_as_one_line() -> None:
    error = QuorumError("Two silos are left.", mend="Run it again.")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(again) is QuorumError
    assert str(again) == "Two silos are left. Run it again."
