"""Federated metrics against the pooled rows, and the AUC of histograms against the exact one."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedhouse.errors import IntegrityError, UpdateRejectedError
from fedhouse.federation.evaluation import EvaluationPlan, FederatedMetrics, auc_from_histograms
from fedhouse.jobspec import JobSpec
from fedhouse.spark_jobs.contract import SCORE_BINS, LocalEvaluation

SPEC = JobSpec.model_validate(
    {
        "name": "flights",
        "data": "flights",
        "columns": ["distance"],
        "label": "late",
        "model": "late:Net",
        "train": "late:train",
        "evaluate": "late:evaluate",
        "report": ["loss", "accuracy"],
    }
)
PLAN = EvaluationPlan(SPEC)
Scored = tuple[float, bool]
scored_rows = st.lists(
    st.tuples(st.floats(0, 1) | st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans()), max_size=40
)


def histograms(rows: list[Scored]) -> tuple[np.ndarray[Any, np.dtype[np.int64]], ...]:
    """Counts of positives' and negatives' scores, int64 [SCORE_BINS] each, as the contract says."""
    counts = np.zeros((2, SCORE_BINS), dtype=np.int64)
    for score, positive in rows:
        counts[0 if positive else 1, min(int(score * SCORE_BINS), SCORE_BINS - 1)] += 1
    return counts[0], counts[1]


def local(rows: list[Scored], loss: float = 0.5, accuracy: float = 0.75) -> LocalEvaluation:
    return LocalEvaluation(len(rows), {"loss": loss, "accuracy": accuracy}, *histograms(rows), seconds=1.0)


def summed(silos: list[LocalEvaluation]) -> np.ndarray[Any, np.dtype[np.int64]]:
    vectors = [PLAN.encode(silo) for silo in silos]
    assert all(vector.dtype == np.uint32 and vector.shape == (PLAN.length,) for vector in vectors)
    assert all(int(vector.max()) < 2**PLAN.bits for vector in vectors)
    return np.sum(vectors, axis=0, dtype=np.int64)


def exact_auc(rows: list[Scored]) -> Fraction | None:
    """The share of pairs that are ranked rightly, ties counted half: the definition, pair by pair."""
    positives = [score for score, positive in rows if positive]
    negatives = [score for score, positive in rows if not positive]
    if not positives or not negatives:
        return None
    won = sum(Fraction(2 * (p > n) + (p == n), 2) for p in positives for n in negatives)
    return won / (len(positives) * len(negatives))


@given(rows=scored_rows)
def test_auc_is_within_the_bound_of_its_bins(rows: list[Scored]) -> None:
    positives, negatives = histograms(rows)
    found, exact = auc_from_histograms(positives, negatives), exact_auc(rows)
    if exact is None:
        assert found is None
        return
    assert found is not None
    bound = Fraction(int(positives @ negatives), 2 * int(positives.sum() * negatives.sum()))
    assert abs(Fraction(found) - exact) <= bound + Fraction(1, 2**52)


@given(rows=st.lists(st.tuples(st.integers(0, SCORE_BINS - 1).map(lambda k: k / SCORE_BINS), st.booleans())))
def test_auc_is_exact_where_scores_are_bins(rows: list[Scored]) -> None:
    exact = exact_auc(rows)
    assert auc_from_histograms(*histograms(rows)) == (None if exact is None else float(exact))


@pytest.mark.parametrize(
    ("rows", "auc"),
    [
        ([(0.1, False), (0.9, True)], 1.0),
        ([(0.9, False), (0.1, True)], 0.0),
        ([(0.5, False), (0.5, True)], 0.5),
        ([(0.0, False), (1.0, True), (1.0, False), (0.0, True)], 0.5),
        ([(0.2, False), (0.4, True), (0.6, False), (0.8, True)], 0.75),
        ([(0.2, True)], None),
        ([(0.2, False)], None),
        ([], None),
    ],
)
def test_auc_by_hand(rows: list[Scored], auc: float | None) -> None:
    assert auc_from_histograms(*histograms(rows)) == auc


def test_auc_of_many_rows_does_not_overflow() -> None:
    positives = np.full(SCORE_BINS, 2**45, dtype=np.int64)
    assert auc_from_histograms(positives, positives) == 0.5


finite = st.floats(-(2.0**30), 2.0**30)


@settings(deadline=None)
@given(silos=st.lists(st.tuples(scored_rows, finite, finite), min_size=1, max_size=8))
def test_sums_over_silos_equal_the_pooled_rows(silos: list[tuple[list[Scored], float, float]]) -> None:
    found = PLAN.decode(summed([local(*silo) for silo in silos]))
    pooled = [row for rows, _, _ in silos for row in rows]
    assert (found.contributors, found.examples) == (len(silos), len(pooled))
    assert found.auc == auc_from_histograms(*histograms(pooled))
    if not pooled:
        assert found == FederatedMetrics(len(silos), 0, None, {})
        assert found.to_json() == {}
        return
    for place, name in ((1, "loss"), (2, "accuracy")):
        # Each silo's product is rounded to a unit of 2^-32, nothing else is.
        total = sum(round(Fraction(float(silo[place])) * len(silo[0]) * 2**32) for silo in silos)  # type: ignore[arg-type]
        assert found.values[name] == float(Fraction(total, len(pooled) * 2**32))


@given(
    silos=st.lists(st.tuples(st.integers(1, 40), st.floats(0, 100)), min_size=1, max_size=32),
)
def test_a_mean_is_right_to_a_unit(silos: list[tuple[int, float]]) -> None:
    evaluations = [local([(0.5, True)] * count, loss) for count, loss in silos]
    exact = sum(Fraction(loss) * count for count, loss in silos) / sum(count for count, _ in silos)
    found = PLAN.decode(summed(evaluations)).values["loss"]
    assert abs(Fraction(found) - exact) <= Fraction(1, 2**32)


def test_to_json_holds_all_metrics() -> None:
    told = PLAN.decode(summed([local([(0.1, False), (0.9, True)])])).to_json()
    assert told == {"loss": 0.5, "accuracy": 0.75, "auc": 1.0}


def test_a_silo_without_held_out_rows_changes_nothing() -> None:
    some = local([(0.1, False), (0.9, True)])
    nothing = replace(local([]), metrics={"loss": math.nan})
    assert PLAN.decode(summed([some, nothing])).to_json() == PLAN.decode(summed([some])).to_json()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2.0**30 * 1.001, -1e300, None])
def test_a_metric_that_cannot_be_averaged_is_named_and_not_shown(value: float | None) -> None:
    good = local([(0.5, True)])
    metrics = {"loss": 0.5} | ({} if value is None else {"accuracy": value})
    with pytest.raises(UpdateRejectedError, match="accuracy") as caught:
        PLAN.encode(replace(good, metrics=metrics))
    assert str(value) not in str(caught.value) or value is None


def test_what_the_job_does_not_report_does_not_leave() -> None:
    good = local([(0.5, True)])
    more = replace(good, metrics={**good.metrics, "leak": 123.0})
    assert np.array_equal(PLAN.encode(good), PLAN.encode(more))


def test_counts_that_do_not_add_up_are_refused() -> None:
    good = local([(0.5, True), (0.25, False)])
    negative = good.positives.copy()
    negative[0], negative[1] = -1, 1
    for bad in (
        replace(good, examples=3),
        replace(good, positives=negative),
        replace(good, negatives=good.negatives * 2),
        replace(good, positives=good.positives[:-1], negatives=np.append(good.negatives, 1)),
    ):
        with pytest.raises(UpdateRejectedError):
            PLAN.encode(bad)


def test_sums_that_no_evaluations_have_are_refused() -> None:
    good = summed([local([(0.5, True), (0.25, False)])])
    PLAN.decode(good)
    examples, metric, counts = (good.copy() for _ in range(3))
    examples[1] += 1
    metric[1 + 3 + 6] = 65_535
    counts[-3] += 1
    for sums in (examples, metric, counts, good[:-1], -good):
        with pytest.raises(IntegrityError):
            PLAN.decode(sums)
