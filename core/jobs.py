"""One frozen `Job`, whether it is written as `JOB.yaml` or as `fedhouse.job(...)`.

A job is its description, the dataset that it reads and the bundle that runs. Its digest covers all
three; seeds, identifiers and stored results hang on it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedhouse.bundle import Bundle, Entries
from fedhouse.config import parse, read_yaml
from fedhouse.dataset import Dataset
from fedhouse.encoding import canonical_json, digest_of, read_json, sha256, write_json
from fedhouse.errors import BundleError, IntegrityError, JobError, UpdateRejectedError
from fedhouse.jobspec import JobSpec
from fedhouse.snapshot import snapshot_bytes
from fedhouse.types import ParameterLayout

if TYPE_CHECKING:
    from fedhouse.rehearsal import Rehearsal


@dataclass(frozen=True)
class Job:
    """A job that is ready to be rehearsed, simulated or handed to silos."""

    spec: JobSpec
    dataset: Dataset
    bundle: Bundle

    @property
    def name(self) -> str:
        """The job's name."""
        return self.spec.name

    @property
    def digest(self) -> str:
        """Digest of description, dataset and bundle."""
        return digest_of("fedhouse-job/1", self._manifest())

    def _manifest(self) -> dict[str, Any]:
        return {
            "spec": self.spec.model_dump(mode="json"),
            "dataset": self.dataset.model_dump(mode="json"),
            "bundle": self.bundle.digest,
        }

    def save(self, directory: Path) -> None:
        """Write the job as files, `job.json` last."""
        self.bundle.save(directory / "bundle")
        write_json(directory / "job.json", self._manifest())

    @classmethod
    def load(cls, directory: Path) -> Job:
        """Read what `save` wrote.

        Raises
        ------
        IntegrityError
            If a file is missing or changed.
        """
        told = read_json(directory / "job.json")
        try:
            bundle = Bundle.load(directory / "bundle", expected=told["bundle"])
            return cls(JobSpec.model_validate(told["spec"]), Dataset.model_validate(told["dataset"]), bundle)
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"{directory}/job.json is malformed.") from error

    def rehearse(self, rows: int = 2000, *, data: Any = None, show_output: bool = True) -> Rehearsal:
        """Run the job's code on this machine, on mock rows or on local ones: see `rehearsal.rehearse`."""
        from fedhouse.rehearsal import rehearse

        return rehearse(self, rows=rows, data=data, show_output=show_output)


def job(*, data: str | Dataset, directory: Path | str = ".", **keys: Any) -> Job:
    """A job from Python arguments: the keys of `JOB.yaml`, see `fedhouse.jobspec.JobSpec`.

    `data` names a dataset (the file `<name>.dataset.yaml` in `directory`) or is a `Dataset`; source
    files are looked for in `directory`.

    Raises
    ------
    JobError, BundleError, UserCodeError
        If the description, a source file or the model itself is wrong.
    """
    name = data.name if isinstance(data, Dataset) else data
    spec = parse(JobSpec, {"data": name, **keys}, "fedhouse.job", error=JobError)
    return _build(spec, data if isinstance(data, Dataset) else None, Path(directory))


def load_job(path: Path | str, overrides: Mapping[str, Any] | None = None) -> Job:
    """The job in a `JOB.yaml`; source and dataset files lie beside it.

    Raises
    ------
    JobError, BundleError, UserCodeError
        If the description, a source file or the model itself is wrong.
    """
    path = Path(path)
    data = {**read_yaml(path, error=JobError), **(overrides or {})}
    return _build(parse(JobSpec, data, str(path), error=JobError), None, path.resolve().parent)


def _build(spec: JobSpec, dataset: Dataset | None, directory: Path) -> Job:
    dataset = dataset or Dataset.load(directory / f"{spec.data}.dataset.yaml")
    if dataset.name != spec.data:
        raise JobError(
            f"{spec.data}.dataset.yaml describes dataset '{dataset.name}'.", mend="Rename one of them."
        )
    spec.check_dataset(dataset)
    return Job(spec, dataset, _first_bundle(spec, _sources(spec, directory)))


def _sources(spec: JobSpec, directory: Path) -> dict[str, str]:
    """The text of every source file that the job names, by its path inside the bundle."""
    entries = (spec.model, spec.train, spec.evaluate, spec.predict)
    modules = {entry.partition(":")[0] for entry in entries if entry is not None}
    paths = sorted({f"{module}.py" for module in modules - {"fedhouse"}} | set(spec.files))
    found = {}
    for path in paths:
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise BundleError(f"Source file {path} lies outside the job's directory.", mend="Move it there.")
        try:
            found[path] = (directory / path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(
                f"Source file {directory / path} cannot be read ({type(error).__name__}).",
                mend="It must lie beside the job file and be UTF-8 text.",
            ) from None
    return found


def _first_bundle(spec: JobSpec, sources: Mapping[str, str]) -> Bundle:
    """The bundle with the model's first weights, which the model's own code makes in a child process."""
    import numpy as np

    from fedhouse.spark_jobs.child import run_spawned
    from fedhouse.spark_jobs.task import ChildTask, model_seed

    entries = Entries(spec.model, spec.train, spec.evaluate, spec.predict)
    task = ChildTask(
        operation="initialise",
        bundle_digest=sha256(canonical_json(dict(sources))),
        sources=sources,
        entries=entries,
        layout=ParameterLayout(()),
        model_args=spec.model_args,
        train_args=spec.train_args,
        weights=b"",
        width=spec.width,
        batch_size=spec.batch_size,
        model_seed=model_seed(spec),
        seed=0,
        seconds=spec.bounds.seconds,
        scratch_mib=spec.bounds.scratch_mib,
        max_parameters=spec.bounds.parameters,
        show_output=True,
    )
    nothing = os.memfd_create("fedhouse-no-rows", os.MFD_CLOEXEC)
    try:
        answer = run_spawned(task, nothing, 0)
    finally:
        os.close(nothing)
    layout = ParameterLayout.from_json(answer.header["layout"])
    if len(answer.payload) != 4 * layout.size:
        raise UpdateRejectedError("The model's first weights are not of its own layout.")
    return Bundle(
        sources=dict(sources),
        entries=entries,
        weights=snapshot_bytes(layout, np.frombuffer(answer.payload, dtype="<f4")),
        layout=layout,
        model_args=answer.header["model_args"],
        train_args=dict(spec.train_args),
        bounds=spec.bounds.model_dump(),
    )


def open_job(path: Path, folder: Path) -> Job:
    """The job stored in `folder`, which must be what the `JOB.yaml` at `path` says; stored if it is not yet.

    First weights are made once and then kept: made again elsewhere, they could differ in their bits.

    Raises
    ------
    JobError
        If the job file, its dataset or a source file is not what was stored.
    """
    if not (folder / "job.json").exists():
        made = load_job(path)
        made.save(folder)
        return made
    stored = Job.load(folder)
    spec = parse(JobSpec, read_yaml(path, error=JobError), str(path), error=JobError)
    directory = path.resolve().parent
    same = (
        spec == stored.spec
        and Dataset.load(directory / f"{spec.data}.dataset.yaml") == stored.dataset
        and _sources(spec, directory) == dict(stored.bundle.sources)
    )
    if not same:
        raise JobError(
            f"{path} is not the job that this run began with.", mend="Restore it, or use a fresh run folder."
        )
    return stored
