"""Files that people write: strict, and with errors that say which key and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedhouse.config import parse, read_yaml
from fedhouse.dataset import Dataset
from fedhouse.errors import ConfigurationError, JobError
from fedhouse.jobspec import JobSpec
from fedhouse.silo import SiloConfig

JOB = {
    "name": "late",
    "data": "flights",
    "columns": ["distance", {"name": "origin", "vocabulary": ["EWR", "JFK"]}],
    "label": "late",
    "model": "late:Net",
    "train": "late:train",
    "evaluate": "late:evaluate",
}
DATASET = {
    "name": "flights",
    "key": ["id"],
    "columns": {
        "id": {"type": "integer"},
        "distance": {"type": "number", "minimum": 0},
        "origin": {"type": "string"},
        "late": {"type": "integer", "allowed": [0, 1]},
    },
}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2", "stands twice"),
        ("a: &x [1]\nb: *x", "aliases are not allowed"),
        ("- 1", "does not hold a mapping"),
        ("1: 2", "does not hold a mapping"),
        ("a: [", "not valid YAML"),
        ("a: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("a: " + "x" * 2**21, "larger than 1 MiB"),
        ("? [1, 2]\n: 3", "not valid YAML|stands twice|does not hold"),
    ],
)
def test_yaml_is_read_strictly(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=words) as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="No such file"):
        read_yaml(tmp_path / "gone.yaml", error=JobError)


@given(st.binary(max_size=300))
def test_hostile_yaml_raises_one_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("yaml") / "file.yaml"
    path.write_bytes(data)
    try:
        value = read_yaml(path)
    except ConfigurationError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is fine, a crash is not
    else:
        assert isinstance(value, dict)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epoch": 3}, "unknown key 'epoch'"),
        ({"round": 3}, "unknown key 'round'; did you mean 'rounds'"),
        ({"label": None}, "'label'"),
        ({"train": "late.train"}, "must read module:function"),
        ({"train": "../late:train"}, "must read module:function"),
        ({"rounds": 0}, "'rounds'"),
        ({"columns": []}, "'columns'"),
        ({"columns": ["late"]}, "label must not be among"),
        ({"columns": ["a", "a"]}, "names a column twice"),
        ({"columns": [{"name": "a", "vocabulary": ["x", "x"]}]}, "names a word twice"),
        ({"name": "../../etc"}, "not a valid name"),
        ({"holdout": {"column": "day"}}, "either modulo"),
        ({"holdout": {"column": "day", "modulo": 5, "remainder": 7}}, "less than modulo"),
        ({"metric": "f1"}, "neither auc nor in report"),
        ({"clip": {"norm": 0}}, "'clip.norm'"),
        ({"clip": {"norm": float("nan")}}, "'clip.norm'"),
        ({"bits": 10}, "'bits'"),
        ({"train_args": {"lr": float("inf")}}, "'train_args"),
        ({"train_args": {"not an argument": 1}}, "not the name of a Python argument"),
        ({"server": {"optimizer": "sgd"}}, "'server.optimizer'"),
        ({"sampling": {"fraction": 0}}, "'sampling.fraction'"),
    ],
)
def test_a_wrong_job_says_which_key(change: dict[str, object], words: str) -> None:
    with pytest.raises(JobError, match=words) as caught:
        parse(JobSpec, {**JOB, **change}, "JOB.yaml", error=JobError)
    assert str(caught.value).startswith("JOB.yaml: ")
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(JobError, match="key 'model' is missing"):
        parse(JobSpec, {key: JOB[key] for key in JOB if key != "model"}, "JOB.yaml", error=JobError)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"columns": ["speed"]}, "column 'speed' is not in dataset flights"),
        ({"columns": ["origin"]}, "is a string and has no vocabulary"),
        ({"label": "origin", "columns": ["distance"]}, "not a numeric column"),
        ({"holdout": {"column": "origin", "modulo": 2}}, "holdout column 'origin' does not serve"),
        ({"holdout": {"column": "day", "values": [1]}}, "holdout column 'day' does not serve"),
    ],
)
def test_a_job_must_fit_its_dataset(change: dict[str, object], words: str) -> None:
    spec = JobSpec.model_validate({**JOB, **change})
    with pytest.raises(JobError, match=words):
        spec.check_dataset(Dataset.model_validate(DATASET))


def test_a_job_reads_only_what_it_needs() -> None:
    spec = JobSpec.model_validate(JOB)
    wide = {**DATASET, "columns": {**DATASET["columns"], "salary": {"type": "number"}}}  # type: ignore[dict-item]
    assert spec.columns_read(Dataset.model_validate(wide)) == ("id", "distance", "origin", "late")
    assert spec.width == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"key": ["nothing"]}, "key column 'nothing'"),
        ({"columns": {"id": {"type": "text"}}}, "columns.id.type"),
        ({"columns": {"id": {"type": "string", "minimum": 1}}}, "minimum and maximum are for"),
        ({"columns": {"id": {"type": "integer", "minimum": 2, "maximum": 1}}}, "minimum is greater"),
        ({"min_rows": 5, "max_rows": 4}, "min_rows is greater"),
        ({"columns": {"a`b": {"type": "integer"}}}, "not a valid name"),
    ],
)
def test_a_wrong_dataset_says_what(change: dict[str, object], words: str) -> None:
    with pytest.raises(JobError, match=words):
        parse(Dataset, {**DATASET, **change}, "flights.dataset.yaml", error=JobError)


SILO = """
silo: AA
profiles: profiles.yaml
datasets:
  flights: {profile: warehouse, table: flights}
spark: {master: "local[2]", driver_memory: 1g}
"""


def test_the_environment_overrides_the_file_and_flags_override_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "silo.yaml"
    path.write_text(SILO)
    assert SiloConfig.load(path).spark.master == "local[2]"
    monkeypatch.setenv("FEDHOUSE_SPARK__MASTER", "yarn")
    from_environment = SiloConfig.load(path)
    assert from_environment.spark.master == "yarn"
    assert from_environment.spark.driver_memory == "1g"
    assert SiloConfig.load(path, {"spark": {"master": "k8s://x"}}).spark.master == "k8s://x"
    assert from_environment.profiles == tmp_path / "profiles.yaml"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nonsense: 1", "unknown key 'nonsense'"),
        ("prepared: {allow: true}", "unknown key 'prepared.allow'"),
        ("target: [1]", "'target'"),
    ],
)
def test_a_wrong_silo_file_says_which_key(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "silo.yaml"
    path.write_text(SILO + line + "\n")
    with pytest.raises(ConfigurationError, match=words):
        SiloConfig.load(path)
