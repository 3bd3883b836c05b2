"""The error tree: every error that fedhouse raises on purpose descends from `FedhouseError`.

    FedhouseError                        exit code 1
    ├── ConfigurationError               2   something that a person wrote must be changed
    │   ├── JobError                         a job or dataset file
    │   ├── ProfileError                     a connector profile
    │   ├── BundleError                      a bundle's files, digest or declared bounds
    │   ├── SourceError                      a warehouse cannot be reached or read as configured
    │   ├── KeyFileError                     a key file, token or password does not serve
    │   └── EnvironmentUnfitError            Java, Spark or a package is missing; see `fedhouse doctor`
    ├── QualityGateError                 3   the data is not what its dataset declares
    ├── QuorumError                      4   too few silos took part; a retry can succeed
    ├── TimeLimitError                   4   something took longer than its limit
    ├── PolicyRefusedError               5   a rule says no; a retry cannot succeed
    ├── VerificationError                6   bytes are not those that were promised
    │   ├── SourceChangedError               a table changed after its pin was taken
    │   ├── IntegrityError                   a stored or received object fails its check
    │   ├── SignatureError                   a signature is not by the key that it names
    │   ├── EnvelopeError                    bytes are no well-formed envelope, or not in their one encoding
    │   ├── UnknownSignerError               an envelope is by nobody that the ledger knows
    │   └── HistoryError                     two heads of one log contradict each other, or time ran backwards
    ├── UserCodeError                    1   the job's own code failed; says where, never with what value
    ├── UpdateRejectedError              1   what the job's code returned is outside what was declared
    ├── IllegalTransitionError           1   an event that the round's state does not allow
    └── SparkFailureError                1   Spark failed; only its error class is passed on

Foreign errors are wrapped at the boundary where they appear (`raise … from error`). A message says
what happened, where, and what to do; it never carries a value out of a row.
"""

from __future__ import annotations


class FedhouseError(Exception):
    """Base of all errors of fedhouse.

    Parameters
    ----------
    what
        One sentence: what happened and where.
    mend
        One sentence: what the reader can do about it. May be empty.
    """

    exit_code = 1

    def __init__(self, what: str, *, mend: str = "") -> None:
        super().__init__(what, mend)
        self.what = what
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.what} {self.mend}".rstrip()

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process boundaries inside Spark; keyword arguments need help to survive it.
        return _rebuild, (type(self), self.what, self.mend)


def _rebuild(kind: type[FedhouseError], what: str, mend: str) -> FedhouseError:
    return kind(what, mend=mend)


class ConfigurationError(FedhouseError):
    """Something that a person wrote must be changed."""

    exit_code = 2


class JobError(ConfigurationError):
    """A job or dataset description is wrong."""


class ProfileError(ConfigurationError):
    """A connector profile is wrong or refers to a secret that is not there."""


class BundleError(ConfigurationError):
    """A bundle's files, digest or declared bounds are wrong."""


class SourceError(ConfigurationError):
    """A warehouse cannot be reached or read as configured."""


class KeyFileError(ConfigurationError):
    """A key file, a token or a password does not serve. Never carries the password or the key."""


class EnvironmentUnfitError(ConfigurationError):
    """Java, Spark or a Python package is missing on this machine."""


class QualityGateError(FedhouseError):
    """The rows of a silo are not what their dataset declares."""

    exit_code = 3


class QuorumError(FedhouseError):
    """Too few silos took part; a retry can succeed."""

    exit_code = 4


class TimeLimitError(FedhouseError):
    """Something took longer than its limit; a retry can succeed."""

    exit_code = 4


class PolicyRefusedError(FedhouseError):
    """A rule says no; a retry cannot succeed."""

    exit_code = 5


class VerificationError(FedhouseError):
    """Bytes are not those that were promised."""

    exit_code = 6


class SourceChangedError(VerificationError):
    """A table changed after its pin was taken."""


class IntegrityError(VerificationError):
    """A stored or received object fails its check."""


class SignatureError(VerificationError):
    """A signature is not by the key that it names."""


class EnvelopeError(VerificationError):
    """Bytes are no well-formed envelope, or not in the one encoding that is accepted."""


class UnknownSignerError(VerificationError):
    """An envelope is by nobody that the ledger knows; it is not recorded."""


class HistoryError(VerificationError):
    """A log shows another history than before (rollback, split view), or its time is impossible."""


class UserCodeError(FedhouseError):
    """The job's own code failed. Names the file and line, never a value."""


class UpdateRejectedError(FedhouseError):
    """What the job's code returned is outside what the bundle declares."""


class IllegalTransitionError(FedhouseError):
    """An event that the round's state does not allow."""


class SparkFailureError(FedhouseError):
    """Spark failed. Its message may hold values, so only its error class is passed on."""
