"""The Parquet connector: the shipped contract, and what is special about files."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedhouse.connectors.connector import Condition, Pin, SourceRef
from fedhouse.connectors.contract import SECRET_CANARY, ConnectorContract, Warehouse, contract_rows
from fedhouse.connectors.parquet import ParquetConnector
from fedhouse.connectors.profiles import Profile, Secret
from fedhouse.errors import PolicyRefusedError, ProfileError, SourceChangedError, SourceError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


def _connector(root: Path | str) -> ParquetConnector:
    return ParquetConnector(Profile("lake", "parquet", "prod", {"root": str(root)}))


def _source(**changes: object) -> SourceRef:
    return SourceRef.model_validate({"profile": "lake", "table": "contract", **changes})


@pytest.fixture(params=["metadata", "content"])
def pin_mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestParquet(ConnectorContract):
    """The contract on a table partitioned by folders, under a root whose path is a secret."""

    @pytest.fixture
    def warehouse(self, tmp_path: Path, pin_mode: str) -> Warehouse:
        root = tmp_path / SECRET_CANARY
        pq.write_to_dataset(contract_rows(), root / "contract", partition_cols=["team"])
        profile = Profile("lake", "parquet", "prod", {"root": Secret(f"file://{root}")})

        def append() -> None:
            row = contract_rows().slice(0, 1).drop_columns(["team"])
            pq.write_table(row, root / "contract" / "team=0" / "one-more.parquet")

        def rewrite() -> None:
            path = next((root / "contract").rglob("*.parquet"))
            table = pq.ParquetFile(path).read()
            index = table.column_names.index("amount")
            changed = pa.array([-1.0, *table.column("amount").to_pylist()[1:]])
            time.sleep(0.01)
            pq.write_table(table.set_column(index, "amount", changed), path)

        return Warehouse(ParquetConnector(profile), _source(pin=pin_mode), append, rewrite)


def _write(root: Path, table: pa.Table | None = None, name: str = "part-0.parquet") -> Path:
    path = root / "contract" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(contract_rows() if table is None else table, path)
    return path


@pytest.mark.parametrize(
    "table",
    ["../contract", "/etc", "a/../b", "*", "a*", "file:///etc", "", "a//b", ".hidden", "a/ b", "{a,b}"],
)
def test_a_table_cannot_leave_its_root(spark: SparkSession, tmp_path: Path, table: str) -> None:
    with pytest.raises(SourceError, match="cannot name a Parquet table"):
        _connector(tmp_path).resolve(spark, _source(table=table))


def test_swapped_labels_with_the_same_size_and_time_need_a_content_pin(
    spark: SparkSession, tmp_path: Path
) -> None:
    columns = {"id": pa.array([1, 2], pa.int64()), "late": pa.array([0, 1], pa.int64())}
    swapped = columns | {"late": pa.array([1, 0], pa.int64())}
    path = _write(tmp_path, pa.table(columns))
    moment = path.stat().st_mtime_ns
    size = path.stat().st_size
    pins = {mode: _connector(tmp_path).resolve(spark, _source(pin=mode)) for mode in ("metadata", "content")}
    _write(tmp_path, pa.table(swapped))
    os.utime(path, ns=(moment, moment))
    assert path.stat().st_size == size
    _connector(tmp_path).verify(spark, _source(pin="metadata"), pins["metadata"])
    with pytest.raises(SourceChangedError, match="1 rewritten"):
        _connector(tmp_path).verify(spark, _source(pin="content"), pins["content"])


def test_a_change_says_what_changed(spark: SparkSession, tmp_path: Path) -> None:
    connector = _connector(tmp_path)
    path = _write(tmp_path)
    _write(tmp_path, name="part-1.parquet")
    pin = connector.resolve(spark, _source())
    path.unlink()
    _write(tmp_path, name="part-2.parquet")
    words = r"files 1 removed, 1 added, first part-0.parquet"
    with pytest.raises(SourceChangedError, match=words):
        connector.verify(spark, _source(), pin)


def test_only_pinned_files_are_read(spark: SparkSession, tmp_path: Path) -> None:
    connector = _connector(tmp_path)
    _write(tmp_path)
    pin = connector.resolve(spark, _source())
    _write(tmp_path, name="later.parquet")
    frame = connector.read(spark, _source(), pin, ("id",))
    assert frame.count() == 100
    assert [Path(name).name for name in frame.inputFiles()] == ["part-0.parquet"]


def test_a_file_that_is_gone_is_an_error_and_not_fewer_rows(spark: SparkSession, tmp_path: Path) -> None:
    connector = _connector(tmp_path)
    path = _write(tmp_path)
    pin = connector.resolve(spark, _source())
    path.unlink()
    with pytest.raises(SourceError, match="cannot be read while it is opened"):
        connector.read(spark, _source(), pin, ("id",))


def test_a_session_that_loses_rows_silently_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    connector = _connector(tmp_path)
    _write(tmp_path)
    pin = connector.resolve(spark, _source())
    spark.conf.set("spark.sql.files.ignoreMissingFiles", "true")
    try:
        with pytest.raises(PolicyRefusedError, match="rows would vanish"):
            connector.read(spark, _source(), pin, ("id",))
    finally:
        spark.conf.unset("spark.sql.files.ignoreMissingFiles")


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" * 10, b"PAR1" + b"\xff" * 20 + b"PAR1", b"x" * 100])
def test_a_broken_file_is_a_typed_error(spark: SparkSession, tmp_path: Path, data: bytes) -> None:
    path = _write(tmp_path, name="good.parquet").with_name("bad.parquet")
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"bad.parquet of the table is not whole Parquet"):
        _connector(tmp_path).resolve(spark, _source())


def test_an_empty_folder_is_a_table_without_rows(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "contract").mkdir()
    connector = _connector(tmp_path)
    pin = connector.resolve(spark, _source())
    assert connector.columns(spark, _source(), pin) == {}
    assert connector.read(spark, _source(), pin, ("id",)).collect() == []


def test_a_single_file_is_a_table(spark: SparkSession, tmp_path: Path) -> None:
    pq.write_table(contract_rows(), tmp_path / "contract.parquet")
    source = _source(table="contract.parquet")
    connector = _connector(tmp_path)
    pin = connector.resolve(spark, source)
    assert connector.read(spark, source, pin, ("id",)).count() == 100


def test_spark_s_own_marker_files_are_no_part_of_a_table(spark: SparkSession, tmp_path: Path) -> None:
    connector = _connector(tmp_path)
    path = _write(tmp_path)
    pin = connector.resolve(spark, _source())
    (path.parent / "_SUCCESS").touch()
    (path.parent / ".part-0.parquet.crc").touch()
    connector.verify(spark, _source(), pin)


def test_names_with_odd_characters_are_read(spark: SparkSession, tmp_path: Path) -> None:
    root = tmp_path / "a folder, 100% [odd] {yes}"
    for mode in ("metadata", "content"):
        _write(root, name="part 0%20[1].parquet")
        connector = _connector(root)
        pin = connector.resolve(spark, _source(pin=mode))
        assert [item[0] for item in pin.details["files"]] == ["part 0%20[1].parquet"]
        assert connector.read(spark, _source(pin=mode), pin, ("id",)).count() == 100


def test_a_predicate_on_a_partition_folder_reads_only_that_folder(
    spark: SparkSession, tmp_path: Path
) -> None:
    pq.write_to_dataset(contract_rows(), tmp_path / "contract", partition_cols=["team"])
    condition = Condition(column="team", op="=", value=1)
    connector = _connector(tmp_path)
    source = _source(predicate=(condition,))
    pin = connector.resolve(spark, source)
    frame = connector.read(spark, source, pin, ("id", "team"))
    assert {row["team"] for row in frame.collect()} == {1}
    assert frame.count() == 33


def test_an_unreadable_folder_is_a_typed_error(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "contract").write_text("this is a file, and not Parquet")
    with pytest.raises(SourceError, match="not whole Parquet"):
        _connector(tmp_path).resolve(spark, _source())
    with pytest.raises(SourceError, match="is not there"):
        _connector(tmp_path / "nowhere").resolve(spark, _source())


def test_a_pin_of_another_table_is_not_read_as_this_one(spark: SparkSession, tmp_path: Path) -> None:
    connector = _connector(tmp_path)
    _write(tmp_path)
    pin = Pin("parquet", {"mode": "metadata", "files": [["part-9.parquet", 1, 1, "00"]]})
    with pytest.raises(SourceError):
        connector.read(spark, _source(), pin, ("id",)).collect()


def test_a_profile_has_a_root_and_nothing_unknown() -> None:
    with pytest.raises(ProfileError, match="'root' is missing"):
        ParquetConnector(Profile("lake", "parquet", "prod", {}))
    with pytest.raises(ProfileError, match="unknown key 'rooot'"):
        ParquetConnector(Profile("lake", "parquet", "prod", {"root": "/a", "rooot": "/b"}))
