"""The one schema that describes a job, whether it is written as `JOB.yaml` or as Python arguments."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from fedhouse.config import FrozenModel
from fedhouse.dataset import Dataset, Name
from fedhouse.errors import JobError

_ENTRY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*:[A-Za-z_][A-Za-z0-9_]*")
_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")

# The lanes of the secure sum leave room for so many contributors.
MAX_CONTRIBUTORS = 32


def _entry(text: str) -> str:
    if not _ENTRY.fullmatch(text):
        raise ValueError("must read module:function, for example late:train")
    return text


def _arguments(value: dict[str, Any]) -> dict[str, Any]:
    for key in value:
        if not _ARGUMENT.fullmatch(key):
            raise ValueError(f"'{key}' is not the name of a Python argument")
    return value


Entry = Annotated[str, AfterValidator(_entry)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Scalar = bool | int | Annotated[float, Field(allow_inf_nan=False)] | str
Arguments = Annotated[dict[str, Scalar], AfterValidator(_arguments)]


class FeatureColumn(FrozenModel):
    """A column that the model sees.

    Without a vocabulary it is a number: standardised by the federated mean and standard deviation, a
    null becomes the mean, and with `flag_missing` a second feature says that it was null. With a
    vocabulary it is a category: one feature a word, and one for the rest, nulls included.
    """

    name: Name
    vocabulary: tuple[str, ...] | None = Field(default=None, min_length=1, max_length=4096)
    flag_missing: bool = False

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and isinstance(value.get("vocabulary"), (list, tuple)):
            return {**value, "vocabulary": tuple(str(word) for word in value["vocabulary"])}
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.vocabulary is not None and len(set(self.vocabulary)) != len(self.vocabulary):
            raise ValueError("a vocabulary names a word twice")
        if self.vocabulary is not None and self.flag_missing:
            raise ValueError("flag_missing is for numbers; a category's nulls are in its rest feature")
        return self

    @property
    def width(self) -> int:
        """Number of features that the column becomes."""
        return 1 + int(self.flag_missing) if self.vocabulary is None else len(self.vocabulary) + 1


class Holdout(FrozenModel):
    """Rows kept for evaluation: where an integer column leaves a remainder, or has one of the values."""

    column: Name
    modulo: int | None = Field(default=None, ge=2)
    remainder: int = Field(default=0, ge=0)
    values: tuple[int | str, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.modulo is None) == (self.values is None):
            raise ValueError("give either modulo (with remainder) or values")
        if self.modulo is not None and self.remainder >= self.modulo:
            raise ValueError("remainder must be less than modulo")
        return self


class Clip(FrozenModel):
    """Bounds of a silo's update before it is rounded: Euclidean norm, and size of each coordinate."""

    norm: Positive = 10.0
    coordinate: Positive = 1.0


class Server(FrozenModel):
    """How the coordinator turns the average update into the next model.

    `fedavg` adds it, `fedavgm` with momentum, `fedadam` with Adam's moments
    (Reddi et al., Adaptive Federated Optimization, ICLR 2021).
    """

    optimizer: Literal["fedavg", "fedavgm", "fedadam"] = "fedavg"
    learning_rate: Positive = 1.0
    momentum: Rate = 0.9
    beta1: Rate = 0.9
    beta2: Rate = 0.99
    epsilon: Positive = 1e-3


class Sampling(FrozenModel):
    """Which silos take part in a round: a seeded share of them, never fewer than `min_cohort`."""

    fraction: float = Field(default=1.0, gt=0, le=1)
    min_cohort: int = Field(default=2, ge=1, le=MAX_CONTRIBUTORS)


class Bounds(FrozenModel):
    """What the job's code may use; declared before it runs and enforced while it runs."""

    seconds: int = Field(default=600, ge=1, le=86_400, description="for one partition and round")
    parameters: int = Field(default=10_000_000, ge=1, le=24_000_000)
    scratch_mib: int = Field(default=64, ge=0, le=4096, description="largest file the code may write")


class JobSpec(FrozenModel):
    """A job as its owner describes it; every key of `JOB.yaml` and of `fedhouse.job(...)`."""

    name: Name
    data: Name
    purpose: Name = Field(
        default="model-training",
        description="what for; each silo permits the use of its columns for a purpose",
    )
    columns: tuple[FeatureColumn, ...] = Field(min_length=1)
    label: Name
    model: Entry
    train: Entry
    evaluate: Entry
    predict: Entry | None = Field(
        default=None,
        description="predict(model, features) -> scores in [0, 1]; without it, sigmoid(model(features))",
    )
    files: tuple[str, ...] = Field(default=(), description="further source files of the bundle")
    model_args: Arguments = Field(default_factory=dict)
    train_args: Arguments = Field(default_factory=dict)
    batch_size: int = Field(default=256, ge=1, le=2**20)
    partitions: int = Field(default=2, ge=1, le=10_000)
    holdout: Holdout | None = None
    rounds: int = Field(default=10, ge=1, le=10_000)
    metric: Annotated[str, BeforeValidator(str)] = "auc"
    report: tuple[Name, ...] = Field(
        default=("loss",), max_length=64, description="numbers that evaluate returns and silos average"
    )
    target: float | None = Field(
        default=None, allow_inf_nan=False, description="stop when the metric reaches it"
    )
    patience: int | None = Field(
        default=None, ge=1, description="stop after so many rounds without a better metric"
    )
    clip: Clip = Clip()
    bits: Literal[8, 12, 16, 24] = 16
    max_examples: int = Field(
        default=100_000, ge=1, le=2**31, description="weight at which a silo's rows stop counting more"
    )
    server: Server = Server()
    sampling: Sampling = Sampling()
    bounds: Bounds = Bounds()
    seed: int = Field(default=0, ge=0, lt=2**53)

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            raise ValueError("columns names a column twice")
        if self.label in names:
            raise ValueError("the label must not be among the columns")
        if self.metric != "auc" and self.metric not in self.report:
            raise ValueError(f"metric '{self.metric}' is neither auc nor in report")
        return self

    @property
    def width(self) -> int:
        """Number of features of an encoded row."""
        return sum(column.width for column in self.columns)

    @property
    def higher_is_better(self) -> bool:
        """Whether a greater metric is the better one: all but losses and errors."""
        return not (self.metric.endswith("loss") or self.metric.endswith("error"))

    def check_dataset(self, dataset: Dataset) -> None:
        """Check that the columns, the label and the holdout fit the dataset.

        Raises
        ------
        JobError
            Naming the first column that does not.
        """
        for column in self.columns:
            declared = dataset.columns.get(column.name)
            if declared is None:
                raise JobError(
                    f"Job {self.name}: column '{column.name}' is not in dataset {dataset.name}.",
                    mend=f"It has {', '.join(dataset.columns)}.",
                )
            numeric = declared.type in ("integer", "number", "boolean")
            if column.vocabulary is None and not numeric:
                raise JobError(
                    f"Job {self.name}: column '{column.name}' is a {declared.type} and has no vocabulary.",
                    mend="Give it as {name, vocabulary}.",
                )
        label = dataset.columns.get(self.label)
        if label is None or label.type not in ("integer", "number", "boolean"):
            raise JobError(
                f"Job {self.name}: label '{self.label}' is not a numeric column of dataset {dataset.name}."
            )
        if self.holdout is not None:
            held = dataset.columns.get(self.holdout.column)
            if held is None or (self.holdout.modulo is not None and held.type != "integer"):
                raise JobError(
                    f"Job {self.name}: holdout column '{self.holdout.column}' does not serve in dataset "
                    f"{dataset.name}.",
                    mend="It must exist, and be an integer where modulo is used.",
                )

    def columns_read(self, dataset: Dataset) -> tuple[str, ...]:
        """Every column that a silo reads for this job, in the dataset's order."""
        wanted = {column.name for column in self.columns} | {self.label} | set(dataset.key)
        if self.holdout is not None:
            wanted.add(self.holdout.column)
        return tuple(name for name in dataset.columns if name in wanted)
