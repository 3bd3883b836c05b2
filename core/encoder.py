"""How a row becomes features: the encoder that training, evaluation and scoring share.

An `Encoder` is data: means, standard deviations and vocabularies. Each engine turns it into its own
expressions (Spark in `spark_jobs`, NumPy for scoring); the arithmetic is the same IEEE double
operations in the same order, so the features are the same bits.

A number x becomes (x - mean) / scale, a null becomes 0 (the mean); with `flag_missing` one more
feature is 1 where it was null. A category becomes one 0/1 feature for each word of its vocabulary and
one for the rest, nulls included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedhouse.encoding import digest_of
from fedhouse.errors import IntegrityError


@dataclass(frozen=True, slots=True)
class NumberEncoding:
    """Standardisation of one column."""

    column: str
    mean: float
    scale: float
    flag_missing: bool = False

    @property
    def width(self) -> int:
        """Number of features."""
        return 1 + int(self.flag_missing)


@dataclass(frozen=True, slots=True)
class CategoryEncoding:
    """One-hot encoding of one column, with a last feature for everything outside the vocabulary."""

    column: str
    vocabulary: tuple[str, ...]

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.vocabulary) + 1


@dataclass(frozen=True, slots=True)
class Encoder:
    """The encodings of a job's columns, in the order of its features, and the label's name."""

    encodings: tuple[NumberEncoding | CategoryEncoding, ...]
    label: str

    @property
    def width(self) -> int:
        """Number of features of an encoded row."""
        return sum(encoding.width for encoding in self.encodings)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """A readable name for each feature."""
        names: list[str] = []
        for encoding in self.encodings:
            if isinstance(encoding, NumberEncoding):
                names.append(encoding.column)
                if encoding.flag_missing:
                    names.append(f"{encoding.column} is missing")
            else:
                names += [f"{encoding.column} = {word}" for word in encoding.vocabulary]
                names.append(f"{encoding.column} other")
        return tuple(names)

    @property
    def digest(self) -> str:
        """Digest of the encoder."""
        return digest_of("fedhouse-encoder/1", self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The encoder as a JSON value; doubles as hexadecimal text, exact to the last bit."""
        return {
            "label": self.label,
            "encodings": [
                {
                    "column": item.column,
                    "mean": item.mean.hex(),
                    "scale": item.scale.hex(),
                    "flag_missing": item.flag_missing,
                }
                if isinstance(item, NumberEncoding)
                else {"column": item.column, "vocabulary": list(item.vocabulary)}
                for item in self.encodings
            ],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Encoder:
        """The encoder from what `to_json` gave.

        Raises
        ------
        IntegrityError
            If `value` is anything else.
        """
        try:
            return cls(
                tuple(
                    CategoryEncoding(item["column"], tuple(item["vocabulary"]))
                    if "vocabulary" in item
                    else NumberEncoding(
                        item["column"],
                        float.fromhex(item["mean"]),
                        float.fromhex(item["scale"]),
                        item["flag_missing"],
                    )
                    for item in value["encodings"]
                ),
                value["label"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError("An encoder is malformed.") from error
