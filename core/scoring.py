"""The model that a job gave, with its encoder: scoring that equals evaluation.

An exported model is a directory: ``model.json`` (what it is), ``encoder.json``, ``weights.safetensors``
(float32, one tensor a name of the layout) and ``bundle/``. Whoever loads it runs the bundle's code in
their own process: load only models that you trust as you trust their code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedhouse.bundle import Bundle
from fedhouse.encoder import CategoryEncoding, Encoder
from fedhouse.encoding import read_json, sha256, write_atomic, write_json
from fedhouse.errors import ConfigurationError, IntegrityError
from fedhouse.snapshot import snapshot_bytes, snapshot_vector

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import torch
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame as SparkFrame

_FORMAT = "fedhouse-model/1"


def encode_table(encoder: Encoder, table: pa.Table) -> NDArray[np.float32]:
    """Features of every row, float32 [N, F]: the same bits as Spark's preparation gives.

    Raises
    ------
    ConfigurationError
        If a column is missing or no number.
    """
    import numpy as np

    features = np.zeros((table.num_rows, encoder.width), dtype=np.float32)
    at = 0
    everyone = np.arange(table.num_rows)
    for item in encoder.encodings:
        if item.column not in table.column_names:
            raise ConfigurationError(
                f"The rows to score have no column '{item.column}'.", mend="The model was trained with it."
            )
        column = table.column(item.column)
        if isinstance(item, CategoryEncoding):
            features[everyone, at + _places(column, item.vocabulary)] = 1.0
        else:
            value = _numbers(column, item.column)
            missing = np.isnan(value)
            scaled = (value - np.float64(item.mean)) / np.float64(item.scale)
            features[:, at] = np.where(missing, 0.0, scaled)
            if item.flag_missing:
                features[:, at + 1] = missing
        at += item.width
    return features


def _numbers(column: pa.ChunkedArray, name: str) -> NDArray[np.float64]:
    import numpy as np
    import pyarrow as pa

    try:
        values = column.cast(pa.float64(), safe=False).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ConfigurationError(f"Column '{name}' of the rows to score is not a number.") from error
    return np.asarray(values, dtype=np.float64)


def _places(column: pa.ChunkedArray, vocabulary: tuple[str, ...]) -> NDArray[np.int64]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    words = pa.array(list(vocabulary), pa.string())
    found = pc.index_in(column.cast(pa.string()), value_set=words)
    return np.asarray(pc.fill_null(found, len(vocabulary)).to_numpy(), dtype=np.int64)


@dataclass(frozen=True)
class ScoringModel:
    """An exported model. `module` is a plain `torch.nn.Module` with the job's weights."""

    encoder: Encoder
    bundle: Bundle
    weights: NDArray[np.float32]
    model_seed: int

    def save(self, directory: Path) -> None:
        """Write the model as a directory; `model.json` last, so that half a model does not load."""
        weights = snapshot_bytes(self.bundle.layout, self.weights)
        self.bundle.save(directory / "bundle")
        write_json(directory / "encoder.json", self.encoder.to_json())
        write_atomic(directory / "weights.safetensors", weights)
        write_json(
            directory / "model.json",
            {
                "format": _FORMAT,
                "bundle": self.bundle.digest,
                "encoder": self.encoder.digest,
                "weights": sha256(weights),
                "model_seed": str(self.model_seed),
                "features": list(self.encoder.feature_names),
            },
        )

    @classmethod
    def load(cls, directory: Path | str) -> ScoringModel:
        """Read an exported model and check it.

        Raises
        ------
        IntegrityError
            If a file is missing or changed.
        """
        directory = Path(directory)
        told = read_json(directory / "model.json")
        try:
            bundle = Bundle.load(directory / "bundle", expected=told["bundle"])
            encoder = Encoder.from_json(read_json(directory / "encoder.json"))
            weights = (directory / "weights.safetensors").read_bytes()
            intact = told["format"] == _FORMAT and encoder.digest == told["encoder"]
            if not intact or sha256(weights) != told["weights"]:
                raise IntegrityError(f"{directory} is not the model that its model.json describes.")
            return cls(encoder, bundle, snapshot_vector(bundle.layout, weights), int(told["model_seed"]))
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise IntegrityError(f"{directory} is not an exported model.") from error

    @property
    def module(self) -> torch.nn.Module:
        """The model as plain PyTorch, in evaluation mode, with a fresh copy of the weights."""
        return self._open()[1]

    def _open(self) -> tuple[Any, torch.nn.Module]:
        import torch

        from fedhouse.spark_jobs import usercode

        code = usercode.UserCode(self.bundle.digest, self.bundle.sources, self.bundle.entries)
        model = usercode.build_model(code, self.bundle.model_args, self.model_seed)
        usercode.load_state(model, self.bundle.layout, torch.from_numpy(self.weights.copy()))
        return code, model.eval()

    def score_table(self, table: pa.Table) -> NDArray[np.float32]:
        """Scores in [0, 1], float32 [N], for a pyarrow table that has the model's columns."""
        import torch

        from fedhouse.spark_jobs import usercode

        code, model = self._open()
        features = torch.from_numpy(encode_table(self.encoder, table))
        return usercode.score_rows(code, model, features).numpy()

    def score(self, frame: pd.DataFrame | pa.Table | SparkFrame) -> Any:
        """Scores of a pandas frame (a Series), a pyarrow table (an array) or a Spark frame (the frame
        with one more column `score`, computed where its partitions are)."""
        import pyarrow as pa

        if isinstance(frame, pa.Table):
            return self.score_table(frame)
        import pandas as pd

        if not isinstance(frame, pd.DataFrame):
            return self._score_spark(frame)

        columns = [item.column for item in self.encoder.encodings if item.column in frame.columns]
        table = pa.Table.from_pandas(frame[columns], preserve_index=False)
        return pd.Series(self.score_table(table), index=frame.index, name="score")

    def _score_spark(self, frame: Any) -> Any:
        def score_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            import pyarrow as pa

            for batch in batches:
                scores = self.score_table(pa.Table.from_batches([batch]))
                yield pa.RecordBatch.from_arrays(
                    [*batch.columns, pa.array(scores, pa.float32())], names=[*batch.schema.names, "score"]
                )

        fields = ", ".join(f"`{field.name}` {field.dataType.simpleString()}" for field in frame.schema.fields)
        return frame.mapInArrow(score_batches, f"{fields}, `score` float")


def score(frame: Any, *, model: ScoringModel | Path | str | Mapping[str, Any]) -> Any:
    """Scores of `frame` by an exported model, or by the directory that holds one.

    The same predictions as the job's evaluation computed: same encoder, same code, same weights.
    """
    opened = model if isinstance(model, ScoringModel) else ScoringModel.load(Path(str(model)))
    return opened.score(frame)
