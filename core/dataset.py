"""What a dataset promises: its schema, its key, and the bounds that the quality gate checks.

A `Dataset` is shared by all silos of a job and holds no rows. Each silo says in its own
configuration which table of its warehouse stands behind the name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from fedhouse.config import FrozenModel, parse, read_yaml
from fedhouse.encoding import digest_of
from fedhouse.errors import ConfigurationError, JobError
from fedhouse.types import require_name

ColumnType = Literal["integer", "number", "string", "boolean", "date", "timestamp"]


def _name(text: str) -> str:
    try:
        return require_name(text, "name")
    except ConfigurationError as error:
        raise ValueError(str(error)) from None


Name = Annotated[str, AfterValidator(_name)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Bound = Annotated[float, Field(allow_inf_nan=False)]


class Column(FrozenModel):
    """One column: its type and the bounds that every silo's rows must keep.

    `minimum` and `maximum` bound numbers, `allowed` lists the values of a category or a label.
    Nulls count apart: at most `max_null_fraction` of the rows; NaN counts as null.
    """

    type: ColumnType
    minimum: Bound | None = None
    maximum: Bound | None = None
    allowed: tuple[int | str, ...] | None = Field(default=None, min_length=1)
    max_null_fraction: Fraction = 0.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        bounded = self.minimum is not None or self.maximum is not None
        if bounded and self.type not in ("integer", "number"):
            raise ValueError("minimum and maximum are for integer and number columns")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("minimum is greater than maximum")
        if self.allowed is not None and self.type not in ("integer", "string"):
            raise ValueError("allowed is for integer and string columns")
        return self


class Dataset(FrozenModel):
    """Name, schema, key and quality bounds of a table that every silo has in its own warehouse."""

    name: Name
    columns: dict[Name, Column] = Field(min_length=1)
    key: tuple[Name, ...] = Field(
        min_length=1, description="columns that identify a row; they order and partition it"
    )
    min_rows: int = Field(default=1, ge=1)
    max_rows: int = Field(default=10**9, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in self.key:
            if name not in self.columns:
                raise ValueError(f"key column '{name}' is not among the columns")
        if self.min_rows > self.max_rows:
            raise ValueError("min_rows is greater than max_rows")
        return self

    @property
    def digest(self) -> str:
        """Digest of the schema and its bounds."""
        return digest_of("fedhouse-dataset/1", self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: Path) -> Dataset:
        """Read a dataset file.

        Raises
        ------
        JobError
            If it is malformed.
        """
        return parse(cls, read_yaml(path, error=JobError), str(path), error=JobError)
