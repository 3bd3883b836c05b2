"""What a child process is told to do, and what it may answer: the protocol of the process boundary.

A task goes in as one object (forked child) or as bytes (spawned child); the answer always comes back
as bytes in a file that the child can write and the parent reads. The parent trusts none of it:
`Answer.parse` checks every length before it uses it, and a complaint is a code from a fixed list, which
the parent turns into a sentence: text that user code could choose never reaches a log.

Answer bytes: ``b"FHR1"``, u32 little endian length of a JSON header, the header, the payload.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fedhouse.bundle import Bundle, Entries
from fedhouse.encoding import canonical_json, derive_seed, parse_json
from fedhouse.errors import FedhouseError, IntegrityError, UpdateRejectedError, UserCodeError
from fedhouse.jobspec import JobSpec
from fedhouse.types import ParameterLayout

_MAGIC = b"FHR1"
_MAX_HEADER = 2**20

Operation = Literal["initialise", "train", "evaluate"]


@dataclass(frozen=True)
class ChildTask:
    """One run of user code on the rows of one partition.

    `weights` are the base parameters, float32 little endian in the layout's order; empty for
    `initialise`, which makes the model and returns its first weights. The spool has `width + 1`
    columns, the label last. `show_output` is for rehearsals on the owner's own rows only: elsewhere
    what the code prints is discarded and an exception's message stays inside, for either can hold rows.
    """

    operation: Operation
    bundle_digest: str
    sources: Mapping[str, str]
    entries: Entries
    layout: ParameterLayout
    model_args: Mapping[str, Any]
    train_args: Mapping[str, Any]
    weights: bytes
    width: int
    batch_size: int
    model_seed: int
    seed: int
    seconds: int
    scratch_mib: int
    max_parameters: int
    report: tuple[str, ...] = ()
    show_output: bool = False

    def to_bytes(self) -> bytes:
        """The task for a spawned child."""
        header = canonical_json(
            {
                "operation": self.operation,
                "bundle_digest": self.bundle_digest,
                "sources": dict(self.sources),
                "entries": self.entries.to_json(),
                "layout": self.layout.to_json(),
                "model_args": dict(self.model_args),
                "train_args": dict(self.train_args),
                "width": self.width,
                "batch_size": self.batch_size,
                "model_seed": str(self.model_seed),
                "seed": str(self.seed),
                "seconds": self.seconds,
                "scratch_mib": self.scratch_mib,
                "max_parameters": self.max_parameters,
                "report": list(self.report),
                "show_output": self.show_output,
            }
        )
        return struct.pack("<I", len(header)) + header + self.weights

    @classmethod
    def from_bytes(cls, data: bytes) -> ChildTask:
        """The task from what `to_bytes` gave; the parent is trusted."""
        (length,) = struct.unpack_from("<I", data)
        header = parse_json(data[4 : 4 + length], "A child's task")
        header["entries"] = Entries(**header["entries"])
        header["layout"] = ParameterLayout.from_json(header["layout"])
        header["report"] = tuple(header["report"])
        header["seed"], header["model_seed"] = int(header["seed"]), int(header["model_seed"])
        return cls(**header, weights=data[4 + length :])


def model_seed(spec: JobSpec) -> int:
    """The seed under which a job's model is built, everywhere."""
    return derive_seed("model", spec.seed)


def child_task(
    spec: JobSpec,
    bundle: Bundle,
    operation: Operation,
    weights: bytes,
    width: int,
    *,
    seed: int = 0,
    show_output: bool = False,
) -> ChildTask:
    """What a child is told, from a job and its bundle; `weights` as float32 in the layout's order."""
    return ChildTask(
        operation=operation,
        bundle_digest=bundle.digest,
        sources=dict(bundle.sources),
        entries=bundle.entries,
        layout=bundle.layout,
        model_args=dict(bundle.model_args),
        train_args=dict(bundle.train_args),
        weights=weights,
        width=width,
        batch_size=spec.batch_size,
        model_seed=model_seed(spec),
        seed=seed,
        seconds=spec.bounds.seconds,
        scratch_mib=spec.bounds.scratch_mib,
        max_parameters=spec.bounds.parameters,
        report=spec.report,
        show_output=show_output,
    )


@dataclass(frozen=True)
class Answer:
    """What a child sent back: a JSON header and a payload of raw little-endian numbers."""

    header: Mapping[str, Any]
    payload: bytes = field(default=b"", repr=False)

    def to_bytes(self) -> bytes:
        """The answer as the child writes it."""
        header = canonical_json(dict(self.header))
        return _MAGIC + struct.pack("<I", len(header)) + header + self.payload

    @classmethod
    def parse(cls, data: bytes) -> Answer:
        """The answer that hostile bytes hold.

        Raises
        ------
        UserCodeError
            If they hold none: the user's code ended the process, or wrote into the result itself.
        """
        if len(data) < 8 or data[:4] != _MAGIC:
            raise UserCodeError("The job's code ended its process without a result.")
        (length,) = struct.unpack_from("<I", data, 4)
        if length > _MAX_HEADER or 8 + length > len(data):
            raise UserCodeError("The job's code left a malformed result.")
        try:
            header = parse_json(data[8 : 8 + length], "A result")
        except (IntegrityError, UnicodeDecodeError) as error:
            raise UserCodeError("The job's code left a malformed result.") from error
        if not isinstance(header, dict):
            raise UserCodeError("The job's code left a malformed result.")
        return cls(header, data[8 + length :])


class Complaint(Exception):
    """What a child refuses: a code of `COMPLAINTS`, and what it is about."""

    def __init__(self, code: str, subject: str = "") -> None:
        super().__init__(code, subject)
        self.code, self.subject = code, subject


COMPLAINTS: Mapping[str, tuple[type[FedhouseError], str, str]] = {
    "entry": (UserCodeError, "Entry {0} names nothing that can be called.", "Correct it in the job file."),
    "no_module": (UserCodeError, "The model entry returned something that is not a torch.nn.Module.", ""),
    "too_large": (
        UpdateRejectedError,
        "The model has more parameters than the job declares.",
        "Raise bounds.parameters in the job.",
    ),
    "layout": (
        UpdateRejectedError,
        "The trained model is not of the declared layout: see {0}.",
        "The job's code must keep the names, shapes and types of the model's state.",
    ),
    "score_count": (UserCodeError, "predict did not return one score a row.", "Return a tensor of B scores."),
    "score_range": (
        UserCodeError,
        "predict returned scores that are not in [0, 1].",
        "Return probabilities.",
    ),
    "metrics": (UserCodeError, "evaluate did not return a dict of numbers.", ""),
    "metric": (
        UserCodeError,
        "evaluate did not return a finite number '{0}', which the job reports.",
        "Return it, or leave it out of report.",
    ),
    "raised": (
        UserCodeError,
        "The job's code raised {0}.",
        "Rehearse the job on mock rows to see the message.",
    ),
}
