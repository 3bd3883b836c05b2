"""Running a bundle's code: what happens inside the child process, and nowhere else on a silo.

The user's file is plain PyTorch and knows nothing of fedhouse. It is loaded from memory under a name
made of the bundle's digest, so a process that is used again can never run an older version.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import linecache
import math
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import CodeType, ModuleType
from typing import Any

import numpy as np
import torch

from fedhouse.bundle import Entries
from fedhouse.spark_jobs.contract import SCORE_BINS
from fedhouse.spark_jobs.cpu import cpu_class
from fedhouse.spark_jobs.task import Answer, ChildTask, Complaint
from fedhouse.types import FLOATING, ParameterLayout, TensorSpec

# Rows scored at a time: the same wherever scores are computed, so that they are the same bits.
SCORE_ROWS = 8192


class PartitionLoader:
    """What a job's `train` and `evaluate` iterate over: `(features, label)` batches.

    Features are float32 [B, F], labels float32 [B]. Rows are in key order; with `shuffle` each pass
    takes them in the order of ``torch.randperm(rows, generator)`` where the generator is seeded with
    ``seed + pass number``. The last batch may be shorter.
    """

    def __init__(self, rows: torch.Tensor, batch_size: int, seed: int, *, shuffle: bool) -> None:
        self._features = rows[:, :-1]
        self._labels = rows[:, -1]
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self._passes = 0

    @property
    def dataset(self) -> torch.Tensor:
        """The rows' features, so that `len(loader.dataset)` is the number of rows."""
        return self._features

    def __len__(self) -> int:
        return math.ceil(len(self._labels) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order = self.order(self._passes)
        self._passes += 1
        for start in range(0, len(self._labels), self.batch_size):
            chosen = order[start : start + self.batch_size]
            yield self._features.index_select(0, chosen), self._labels.index_select(0, chosen)

    def order(self, number: int) -> torch.Tensor:
        """Row numbers in the order of pass `number` (int64 [N])."""
        count = len(self._labels)
        if not self.shuffle:
            return torch.arange(count)
        return torch.randperm(count, generator=torch.Generator().manual_seed(self.seed + number))


class _SourceLoader(importlib.abc.InspectLoader):
    """Loads one module of a bundle from memory; `get_source` keeps `torch.jit` and tracebacks whole."""

    def __init__(self, path: str, text: str) -> None:
        self.path, self.text = path, text

    def get_source(self, fullname: str) -> str:
        return self.text

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.text, self.path, "exec", dont_inherit=True)

    def is_package(self, fullname: str) -> bool:
        return self.path.endswith("__init__.py")


class _BundleFinder(importlib.abc.MetaPathFinder):
    """Finds a bundle's modules, both as `<digest name>.late` and, for imports among them, as `late`."""

    def __init__(self, package: str, sources: Mapping[str, str]) -> None:
        self.package = package
        self.modules = {
            path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in sources
        }
        self.sources = sources

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == self.package:
            return importlib.machinery.ModuleSpec(fullname, None, is_package=True)
        source = self.modules.get(fullname.removeprefix(self.package + "."))
        if source is None:
            return None
        name = f"<bundle>/{source}"
        text = self.sources[source]
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        return importlib.util.spec_from_loader(fullname, _SourceLoader(name, text), origin=name)


class UserCode:
    """A bundle's entries as callables.

    Raises
    ------
    Complaint
        If an entry is not there or not callable; what a module raises on import passes through.
    """

    def __init__(self, digest: str, sources: Mapping[str, str], entries: Entries) -> None:
        self._package = f"fedhouse_bundle_{digest}"
        if not any(
            isinstance(item, _BundleFinder) and item.package == self._package for item in sys.meta_path
        ):
            sys.meta_path.insert(0, _BundleFinder(self._package, sources))
        self.model = self._resolve(entries.model)
        self.train = self._resolve(entries.train)
        self.evaluate = self._resolve(entries.evaluate)
        self.predict = self._resolve(entries.predict) if entries.predict else _sigmoid_of_model

    def _resolve(self, entry: str) -> Callable[..., Any]:
        module_name, _, function = entry.partition(":")
        if module_name == "fedhouse":
            from fedhouse.spark_jobs import trainer

            found: Any = trainer.ENTRIES.get(function)
        else:
            found = getattr(importlib.import_module(f"{self._package}.{module_name}"), function, None)
        if not callable(found):
            raise Complaint("entry", entry)
        return found  # type: ignore[no-any-return]


def _sigmoid_of_model(model: torch.nn.Module, features: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(model(features).reshape(-1))


def layout_of(model: torch.nn.Module) -> ParameterLayout:
    """The floating entries of the model's `state_dict`, buffers included."""
    return ParameterLayout(
        tuple(
            TensorSpec(name, tuple(value.shape), str(value.dtype).removeprefix("torch."))
            for name, value in model.state_dict().items()
            if str(value.dtype).removeprefix("torch.") in FLOATING
        )
    )


def state_vector(model: torch.nn.Module, layout: ParameterLayout) -> torch.Tensor:
    """The model's shared state as one float32 vector of `layout.size` elements.

    Raises
    ------
    Complaint
        If a tensor's name, shape or type is not what the layout declares.
    """
    state = model.state_dict()
    found = layout_of(model)
    if found != layout:
        missing = [item.name for item in layout.tensors if item not in found.tensors]
        raise Complaint("layout", missing[0] if missing else "")
    if not layout.tensors:
        return torch.zeros(0, dtype=torch.float32)
    return torch.cat([state[item.name].detach().reshape(-1).to(torch.float32) for item in layout.tensors])


def load_state(model: torch.nn.Module, layout: ParameterLayout, vector: torch.Tensor) -> None:
    """Set the model's shared state from a float32 vector; other entries stay as they are."""
    state = model.state_dict()
    start = 0
    with torch.no_grad():
        for item in layout.tensors:
            value = vector[start : start + item.size].reshape(item.shape)
            state[item.name].copy_(value)
            start += item.size


def wants_features(code: UserCode, model_args: Mapping[str, Any]) -> bool:
    """Whether the model takes the number of features as `features`, and the job does not give it."""
    try:
        parameters = inspect.signature(code.model).parameters
    except (TypeError, ValueError):
        return False
    return "features" in parameters and "features" not in model_args


def build_model(code: UserCode, model_args: Mapping[str, Any], seed: int) -> torch.nn.Module:
    """The job's model, its own initialisation seeded."""
    seed_everything(seed)
    model = code.model(**model_args)
    if not isinstance(model, torch.nn.Module):
        raise Complaint("no_module")
    return model


def seed_everything(seed: int) -> None:
    """Seed the generators that plain PyTorch code draws from."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def score_rows(code: UserCode, model: torch.nn.Module, features: torch.Tensor) -> torch.Tensor:
    """Scores in [0, 1] for float32 [N, F] features, float32 [N].

    Raises
    ------
    Complaint
        If `predict` gives another number of scores, or scores outside [0, 1].
    """
    model.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(features), SCORE_ROWS):
            part = features[start : start + SCORE_ROWS].contiguous()
            scores = code.predict(model, part)
            if not isinstance(scores, torch.Tensor) or scores.numel() != len(part):
                raise Complaint("score_count")
            parts.append(scores.reshape(-1).to(torch.float32))
    found = torch.cat(parts) if parts else torch.zeros(0)
    if not bool(((found >= 0) & (found <= 1)).all()):
        raise Complaint("score_range")
    return found


def run(task: ChildTask, rows: torch.Tensor) -> Answer:
    """Do what the task says with the rows, float32 [N, F + 1], the label last."""
    code = UserCode(task.bundle_digest, task.sources, task.entries)
    model_args = dict(task.model_args)
    if task.operation == "initialise" and wants_features(code, model_args):
        model_args["features"] = task.width
    model = build_model(code, model_args, task.model_seed)
    header: dict[str, Any] = {"status": "ok", "digest": task.bundle_digest, "cpu_class": cpu_class()}
    if task.operation == "initialise":
        layout = layout_of(model)
        if layout.size > task.max_parameters:
            raise Complaint("too_large")
        header |= {"layout": layout.to_json(), "model_args": model_args}
        return Answer(header, state_vector(model, layout).numpy().astype("<f4").tobytes())
    load_state(model, task.layout, torch.frombuffer(bytearray(task.weights), dtype=torch.float32))
    seed_everything(task.seed)
    header["examples"] = len(rows)
    if task.operation == "train":
        code.train(model, PartitionLoader(rows, task.batch_size, task.seed, shuffle=True), **task.train_args)
        return Answer(header, state_vector(model, task.layout).numpy().astype("<f4").tobytes())
    header["metrics"] = _evaluate(code, model, rows, task)
    return Answer(header, _histograms(score_rows(code, model, rows[:, :-1]), rows[:, -1]))


def _evaluate(code: UserCode, model: torch.nn.Module, rows: torch.Tensor, task: ChildTask) -> dict[str, str]:
    told = code.evaluate(model, PartitionLoader(rows, task.batch_size, task.seed, shuffle=False))
    if not isinstance(told, Mapping):
        raise Complaint("metrics")
    found = {}
    for name in task.report:
        try:
            value = float(told[name])
        except (KeyError, TypeError, ValueError):
            raise Complaint("metric", name) from None
        if not math.isfinite(value):
            raise Complaint("metric", name)
        found[name] = value.hex()
    return found


def _histograms(scores: torch.Tensor, labels: torch.Tensor) -> bytes:
    """Counts of positives' and negatives' scores, int64 [2, SCORE_BINS]."""
    bins = (scores.double() * SCORE_BINS).long().clamp_(0, SCORE_BINS - 1)
    positive = labels > 0.5
    counts = torch.stack([torch.bincount(bins[mask], minlength=SCORE_BINS) for mask in (positive, ~positive)])
    return counts.numpy().astype("<i8").tobytes()
