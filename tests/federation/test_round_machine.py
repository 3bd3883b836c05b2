"""The round machine: the legal walk, every order of answers, and every illegal event in every phase."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedhouse.encoding import canonical_json, sha256
from fedhouse.errors import ConfigurationError, IllegalTransitionError, IntegrityError
from fedhouse.federation.round_machine import (
    Aggregated,
    Closed,
    Collect,
    Contributed,
    Disqualified,
    Evaluated,
    Event,
    Fail,
    Finish,
    JobState,
    Phase,
    Purpose,
    RoundPolicy,
    SiloFailed,
    StatisticsSummed,
    Sum,
    open_job,
    outstanding,
    reopened,
    transition,
)
from fedhouse.jobspec import JobSpec

SILOS = ("AA", "B6", "DL", "UA")
ENCODER = sha256(b"encoder")


def policy(**changes: Any) -> RoundPolicy:
    plain = RoundPolicy("a" * 64, 2, 2, 1.0, True, "auc", True, None, None)
    return replace(plain, **changes)


def model(number: int) -> str:
    return sha256(f"model {number}".encode())


def result(effect: Sum, metrics: Mapping[str, float]) -> Event:
    """What a driver answers to `Sum`."""
    if effect.purpose == "statistics":
        return StatisticsSummed(ENCODER)
    if effect.purpose == "update":
        return Aggregated(effect.round, model(effect.round))
    return Evaluated(effect.round, metrics)


def everybody(effect: Collect) -> list[Event]:
    """All asked silos contribute."""
    return [Contributed(effect.purpose, effect.round, silo) for silo in effect.silos]


def walk(
    rules: RoundPolicy,
    answers: Callable[[Collect], list[Event]] = everybody,
    metrics: Callable[[int], Mapping[str, float]] = lambda number: {"auc": 0.5 + number / 100},
    silos: tuple[str, ...] = SILOS,
) -> Iterator[JobState]:
    """Every state from the first to the last, as a driver that carries all effects out would see them."""
    state = open_job(silos, rules)
    yield state
    todo = list(outstanding(state))
    while todo:
        effect = todo.pop(0)
        if isinstance(effect, (Finish, Fail)):
            assert not todo
            return
        events = answers(effect) if isinstance(effect, Collect) else [result(effect, metrics(effect.round))]
        for event in events:
            state, effects = transition(state, event, rules)
            yield state
            todo += effects


def last(*arguments: Any, **named: Any) -> JobState:
    return list(walk(*arguments, **named))[-1]


# --- the legal walk ---------------------------------------------------------------------------------


def test_the_whole_walk_of_one_round() -> None:
    rules = policy(rounds=1)
    state = open_job(("UA", "AA"), rules)
    assert outstanding(state) == (Collect("statistics", 0, ("AA", "UA")),)
    steps: list[tuple[Event, tuple[Any, ...]]] = [
        (Contributed("statistics", 0, "UA"), ()),
        (Contributed("statistics", 0, "AA"), (Sum("statistics", 0, ("AA", "UA")),)),
        (StatisticsSummed(ENCODER), (Collect("update", 1, ("AA", "UA")),)),
        (Contributed("update", 1, "AA"), ()),
        (Contributed("update", 1, "UA"), (Sum("update", 1, ("AA", "UA")),)),
        (Aggregated(1, model(1)), (Collect("evaluation", 1, ("AA", "UA")),)),
        (Contributed("evaluation", 1, "UA"), ()),
        (Contributed("evaluation", 1, "AA"), (Sum("evaluation", 1, ("AA", "UA")),)),
        (Evaluated(1, {"auc": 0.7}), (Finish("rounds", "All 1 rounds are done."),)),
    ]
    for event, expected in steps:
        state, effects = transition(state, event, rules)
        assert effects == expected
    assert (state.phase, state.round, state.encoder) == (Phase.FINISHED, 1, ENCODER)
    assert (state.rounds[0].model, state.rounds[0].metrics) == (model(1), {"auc": 0.7})


def test_without_held_out_rows_only_the_count_of_rounds_ends_the_job() -> None:
    rules = policy(rounds=3, evaluated=False, target=0.1, patience=1)
    states = list(walk(rules))
    assert states[-1].end == Finish("rounds", "All 3 rounds are done.")
    assert [item.metrics for item in states[-1].rounds] == [None, None, None]
    assert all(state.purpose != "evaluation" for state in states)
    assert states[-1].best(rules) is None


def test_a_silo_that_fails_admission_is_out_for_the_job_and_one_that_fails_training_for_the_round() -> None:
    def answers(effect: Collect) -> list[Event]:
        events = everybody(effect)
        broken: dict[tuple[Purpose, int], str] = {("statistics", 0): "B6", ("update", 1): "DL"}
        silo = broken.get((effect.purpose, effect.round))
        failed = [SiloFailed(effect.purpose, effect.round, silo, "broken.")] if silo else []
        return [event for event in events if getattr(event, "silo", "") != silo] + failed

    state = last(policy(rounds=2), answers)
    assert state.excluded == {"B6": "broken."}
    first, second = state.rounds
    assert (first.updates.asked, first.updates.contributed) == (("AA", "DL", "UA"), ("AA", "UA"))
    assert first.updates.failed == {"DL": "broken."}
    assert first.evaluations is not None
    assert first.evaluations.contributed == ("AA", "DL", "UA")
    assert second.updates.contributed == ("AA", "DL", "UA")


def test_everybody_admitted_evaluates_and_not_the_cohort_alone() -> None:
    state = last(policy(fraction=0.5))
    for item in state.rounds:
        assert len(item.updates.asked) == 2
        assert item.evaluations is not None
        assert item.evaluations.asked == SILOS


def test_a_deadline_goes_on_with_who_has_answered() -> None:
    rules = policy()
    state = open_job(SILOS, rules)
    for silo in ("AA", "UA"):
        state, effects = transition(state, Contributed("statistics", 0, silo), rules)
        assert effects == ()
    state, effects = transition(state, Closed("statistics", 0), rules)
    assert effects == (Sum("statistics", 0, ("AA", "UA")),)
    assert state.excluded == dict.fromkeys(("B6", "DL"), "did not answer in time")
    with pytest.raises(IllegalTransitionError, match="came while the job was summing"):
        transition(state, Contributed("statistics", 0, "DL"), rules)


@pytest.mark.parametrize("purpose", ["statistics", "update", "evaluation"])
def test_too_few_contributors_fail_the_job_before_anything_is_summed(purpose: str) -> None:
    def answers(effect: Collect) -> list[Event]:
        if effect.purpose != purpose:
            return everybody(effect)
        first, *others = effect.silos
        failed = [SiloFailed(effect.purpose, effect.round, silo, f"{silo} is ill.") for silo in others]
        return [Contributed(effect.purpose, effect.round, first), *failed]

    state = last(policy(), answers)
    assert state.phase is Phase.FAILED
    assert isinstance(state.end, Fail)
    assert (state.end.reason, outstanding(state)) == ("quorum", (state.end,))
    assert "1 of 4 silos contributed, and 2 are needed (B6: B6 is ill; DL: DL is ill; UA" in state.end.detail


@pytest.mark.parametrize("purpose", ["statistics", "update", "evaluation"])
def test_a_failed_job_asks_everybody_again_when_it_is_reopened(purpose: str) -> None:
    rules = policy()
    calm = last(rules)

    def nobody(effect: Collect) -> list[Event]:
        return [Closed(effect.purpose, effect.round)] if effect.purpose == purpose else everybody(effect)

    state = reopened(last(rules, nobody))
    (effect,) = outstanding(state)
    assert isinstance(effect, Collect)
    assert (effect.purpose, effect.silos) == (purpose, SILOS)
    todo = [effect]
    while todo:
        effect = todo.pop()
        events = everybody(effect) if isinstance(effect, Collect) else []
        if isinstance(effect, Sum):
            events = [result(effect, {"auc": 0.5 + effect.round / 100})]
        for event in events:
            state, effects = transition(state, event, rules)
            todo += effects  # type: ignore[arg-type]
    assert state == calm


def test_reopening_forgets_an_open_collection_and_nothing_else() -> None:
    for state in walk(policy()):
        again = reopened(state)
        if state.phase is Phase.COLLECTING:
            assert again.current.waiting == state.current.asked
            assert replace(again, statistics=state.statistics, rounds=state.rounds) == state
            assert again.rounds[:-1] == state.rounds[:-1]
        else:
            assert again == state


@pytest.mark.parametrize(
    ("silos", "changes"),
    [
        ((), {}),
        (("AA",), {}),
        (("AA", "AA"), {}),
        (("AA", "../UA"), {}),
        (("AA", ""), {}),
        (SILOS, {"min_cohort": 5}),
        (tuple(f"S{index}" for index in range(33)), {}),
    ],
)
def test_impossible_sets_of_silos_are_refused(silos: tuple[str, ...], changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        open_job(silos, policy(**changes))


def test_one_silo_alone_may_be_a_job_where_the_job_says_so() -> None:
    assert last(policy(min_cohort=1), silos=("AA",)).phase is Phase.FINISHED


def test_the_policy_is_what_the_job_says() -> None:
    spec = JobSpec.model_validate(
        {
            "name": "j", "data": "d", "columns": ["x"], "label": "y",
            "model": "m:N", "train": "m:t", "evaluate": "m:e",
            "rounds": 7, "metric": "loss", "target": 0.25, "patience": 3,
            "sampling": {"fraction": 0.25, "min_cohort": 3},
        }
    )  # fmt: skip
    assert RoundPolicy.of("d" * 64, spec) == RoundPolicy("d" * 64, 7, 3, 0.25, False, "loss", False, 0.25, 3)
    held = spec.model_copy(update={"holdout": {"column": "x", "modulo": 5}})
    assert RoundPolicy.of("d" * 64, held).evaluated


# --- sampling ---------------------------------------------------------------------------------------


@given(
    count=st.integers(1, 32),
    fraction=st.floats(0.01, 1),
    least=st.integers(1, 32),
    number=st.integers(1, 10_000),
    order=st.randoms(use_true_random=False),
)
def test_a_cohort_is_a_seeded_share(
    count: int, fraction: float, least: int, number: int, order: random.Random
) -> None:
    rules = policy(fraction=fraction, min_cohort=least)
    silos = [f"S{index}" for index in range(count)]
    cohort = rules.cohort(number, silos)
    order.shuffle(silos)
    assert rules.cohort(number, silos) == cohort == tuple(sorted(set(cohort)))
    assert set(cohort) <= set(silos)
    assert len(cohort) >= min(least, count)
    assert len(cohort) >= fraction * count - 1e-9
    assert len(cohort) <= max(least, fraction * count + 1)


def test_shares_are_taken_of_the_decimal_that_was_written() -> None:
    """In doubles 0.28 of 25 is 7.000000000000001, which would round up to 8."""
    silos = [f"S{index}" for index in range(25)]
    assert [len(policy(fraction=f, min_cohort=1).cohort(1, silos)) for f in (0.04, 0.28, 0.56)] == [1, 7, 14]


def test_every_silo_has_its_turn_and_another_job_draws_others() -> None:
    silos = [f"S{index}" for index in range(10)]
    rules = policy(fraction=0.3)
    cohorts = [rules.cohort(number, silos) for number in range(1, 60)]
    turns = {silo: sum(silo in cohort for cohort in cohorts) for silo in silos}
    assert min(turns.values()) >= 5
    assert cohorts != [policy(fraction=0.3, job="b" * 64).cohort(number, silos) for number in range(1, 60)]


def test_the_cohorts_are_pinned() -> None:
    rules = policy(fraction=0.5)
    assert [rules.cohort(number, SILOS) for number in range(1, 5)] == PINNED


PINNED = [("DL", "UA"), ("B6", "UA"), ("AA", "B6"), ("DL", "UA")]

# --- early stop -------------------------------------------------------------------------------------


def slow_stop(values: list[float | None], rules: RoundPolicy) -> tuple[int, str]:
    """The round after which a job ends and why: a plain reading of the rules."""
    seen: list[float] = []
    for number, value in enumerate(values, start=1):
        if value is not None:
            seen.append(value if rules.higher_is_better else -value)
            if rules.target is not None:
                goal = rules.target if rules.higher_is_better else -rules.target
                if seen[-1] >= goal:
                    return number, "target"
        if number == rules.rounds:
            return number, "rounds"
        if seen and rules.patience is not None and len(seen) - 1 - seen.index(max(seen)) >= rules.patience:
            return number, "patience"
    raise AssertionError("values for every round")


@settings(deadline=None)
@given(
    values=st.lists(st.none() | st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5]), min_size=8, max_size=8),
    target=st.none() | st.sampled_from([0.1, 0.35, 0.5, 0.9]),
    patience=st.none() | st.integers(1, 4),
    higher=st.booleans(),
)
def test_early_stop_agrees_with_the_slow_rules(
    values: list[float | None], target: float | None, patience: int | None, higher: bool
) -> None:
    rules = policy(rounds=8, target=target, patience=patience, higher_is_better=higher)

    def metrics(number: int) -> dict[str, float]:
        value = values[number - 1] if number else None
        return {"loss": 1.0} if value is None else {"loss": 1.0, "auc": value}

    state = last(rules, metrics=metrics, silos=("AA", "UA"))
    assert isinstance(state.end, Finish)
    assert (state.round, state.end.reason) == slow_stop(values, rules)
    known = [value for value in values[: state.round] if value is not None]
    best = state.best(rules)
    assert (best is None) == (not known)
    if best is not None:
        value = max(known) if higher else min(known)
        assert best.metrics == {"loss": 1.0, "auc": value}
        assert best.number == values.index(value) + 1


# --- any order --------------------------------------------------------------------------------------


@st.composite
def scenarios(draw: st.DrawFn) -> tuple[RoundPolicy, dict[tuple[Purpose, int], dict[str, str]]]:
    """A policy, and for every collection which silos fail, are late, or contribute."""
    rules = policy(rounds=draw(st.integers(1, 3)), fraction=draw(st.sampled_from([0.5, 1.0])))
    plan: dict[tuple[Purpose, int], dict[str, str]] = {}
    kinds = st.sampled_from(["contributes", "contributes", "contributes", "fails", "late"])
    collections: list[tuple[Purpose, int]] = [("statistics", 0)]
    for number in range(1, 4):
        collections += [("update", number), ("evaluation", number)]
    for collection in collections:
        plan[collection] = {silo: draw(kinds) for silo in SILOS}
    return rules, plan


def in_order(
    plan: Mapping[tuple[Purpose, int], Mapping[str, str]], order: random.Random, twice: bool
) -> Callable[[Collect], list[Event]]:
    """Answers by plan, shuffled, every one perhaps twice, the deadline last (and perhaps twice)."""

    def answers(effect: Collect) -> list[Event]:
        told = plan[effect.purpose, effect.round]
        events: list[Event] = []
        for silo in effect.silos:
            if told[silo] == "contributes":
                events.append(Contributed(effect.purpose, effect.round, silo))
            elif told[silo] == "fails":
                events.append(SiloFailed(effect.purpose, effect.round, silo, f"{silo} failed"))
        events *= 1 + twice
        order.shuffle(events)
        return [*events, *[Closed(effect.purpose, effect.round)] * (1 + twice)]

    return answers


@settings(deadline=None)
@given(
    scenario=scenarios(),
    one=st.randoms(use_true_random=False),
    other=st.randoms(use_true_random=False),
    twice=st.booleans(),
)
def test_the_order_of_answers_does_not_matter_and_doubles_change_nothing(
    scenario: tuple[RoundPolicy, dict[tuple[Purpose, int], dict[str, str]]],
    one: random.Random,
    other: random.Random,
    twice: bool,
) -> None:
    rules, plan = scenario
    first = last(rules, in_order(plan, one, False))
    second = last(rules, in_order(plan, other, twice))
    assert canonical_json(first.to_json()) == canonical_json(second.to_json())
    assert first == second


@settings(deadline=None)
@given(scenario=scenarios(), order=st.randoms(use_true_random=False))
def test_a_driver_that_restarts_after_every_event_ends_in_the_same_state(
    scenario: tuple[RoundPolicy, dict[tuple[Purpose, int], dict[str, str]]], order: random.Random
) -> None:
    """The state goes through bytes after every event, and only `outstanding` says what is next."""
    rules, plan = scenario
    answers = in_order(plan, order, False)
    state = open_job(SILOS, rules)
    for _ in range(200):
        (effect,) = outstanding(state)
        if isinstance(effect, (Finish, Fail)):
            break
        event = answers(effect)[0] if isinstance(effect, Collect) else result(effect, {"auc": 0.5})
        state, _ = transition(state, event, rules)
        state = JobState.from_json(json.loads(canonical_json(state.to_json())))
    assert state == last(rules, in_order(plan, order, False), lambda _: {"auc": 0.5})


# --- illegal events ---------------------------------------------------------------------------------


def catalogue() -> list[Event]:
    """Events of all kinds for rounds 0 to 3, silos that are and are not part of the job."""
    events: list[Event] = [StatisticsSummed(ENCODER), StatisticsSummed(sha256(b"x")), StatisticsSummed("")]
    purposes: tuple[Purpose, ...] = ("statistics", "update", "evaluation")
    for number in (-1, 0, 1, 2, 3):
        for purpose in purposes:
            events.append(Closed(purpose, number))
            for silo in (*SILOS, "ZZ"):
                events.append(Contributed(purpose, number, silo))
                events.append(SiloFailed(purpose, number, silo, "broken"))
        events += [
            Aggregated(number, model(number)),
            Aggregated(number, sha256(b"x")),
            Aggregated(number, ""),
        ]
        events += [Evaluated(number, {"auc": 0.5 + number / 100}), Evaluated(number, {"auc": 0.9})]
        events += [Evaluated(number, {"auc": float("nan")})]
    return events


def legal(state: JobState, event: Event) -> bool:
    """A plain reading of what a state waits for."""
    if isinstance(event, (Contributed, SiloFailed, Closed)):
        if (state.phase, state.purpose, state.round) != (Phase.COLLECTING, event.purpose, event.round):
            return False
        return isinstance(event, Closed) or event.silo in state.current.waiting
    if state.phase is not Phase.SUMMING:
        return False
    if isinstance(event, StatisticsSummed):
        return state.purpose == "statistics" and len(event.encoder) == 64
    if isinstance(event, Aggregated):
        return (state.purpose, state.round) == ("update", event.round) and len(event.model) == 64
    numbers = event.metrics.values()
    return (state.purpose, state.round) == ("evaluation", event.round) and all(x == x for x in numbers)


def repeats(before: list[Event], event: Event) -> bool:
    """Whether the event says again what happened: the same answer, closing or result."""
    for old in before:
        if isinstance(event, (Contributed, SiloFailed)):
            same = (event.purpose, event.round, event.silo)
            if type(old) is type(event) and (old.purpose, old.round, old.silo) == same:
                return True
        elif old == event:
            return True
    return isinstance(event, Closed) and any(_past(old, event) for old in before)


def _past(old: Event, event: Closed) -> bool:
    """Whether `old` is the result of the collection that `event` closes: then it is closed."""
    kinds = {"statistics": StatisticsSummed, "update": Aggregated, "evaluation": Evaluated}
    return isinstance(old, kinds[event.purpose]) and getattr(old, "round", 0) == event.round


def test_every_illegal_event_in_every_state_raises_and_leaves_the_state_alone() -> None:
    rules = policy()
    state, history, seen = open_job(SILOS, rules), [], set()
    refused = repeated = accepted = 0
    while True:
        seen.add((state.phase, state.purpose, state.round))
        before = canonical_json(state.to_json())
        for event in catalogue():
            if legal(state, event):
                following, _ = transition(state, event, rules)
                assert following != state
                accepted += 1
            elif repeats(history, event) or (
                # All have answered, so the collection is closed though its sum is not there yet.
                isinstance(event, Closed)
                and state.phase is not Phase.COLLECTING
                and (event.purpose, event.round) == (state.purpose, state.round)
            ):
                assert transition(state, event, rules) == (state, ())
                repeated += 1
            else:
                with pytest.raises(IllegalTransitionError):
                    transition(state, event, rules)
                refused += 1
            assert canonical_json(state.to_json()) == before
        (effect,) = outstanding(state)
        if isinstance(effect, (Finish, Fail)):
            break
        if isinstance(effect, Collect):
            event = Contributed(effect.purpose, effect.round, effect.silos[0])
        else:
            event = result(effect, {"auc": 0.5 + effect.round / 100})
        state, _ = transition(state, event, rules)
        history.append(event)
    assert len(seen) == 2 + 4 * 2 + 1
    assert min(refused, repeated, accepted) > 100


def test_a_failed_job_takes_nothing_more() -> None:
    rules = policy()
    state = last(rules, lambda effect: [Closed(effect.purpose, effect.round)])
    assert state.phase is Phase.FAILED
    for event in catalogue():
        known = isinstance(event, (SiloFailed, Closed)) and (event.purpose, event.round) == ("statistics", 0)
        if known and getattr(event, "silo", "AA") in SILOS:
            assert transition(state, event, rules) == (state, ())
            continue
        with pytest.raises(IllegalTransitionError):
            transition(state, event, rules)


def test_a_silo_cannot_take_its_answer_back() -> None:
    rules = policy()
    state, _ = transition(open_job(SILOS, rules), Contributed("statistics", 0, "AA"), rules)
    with pytest.raises(IllegalTransitionError, match="Silo AA"):
        transition(state, SiloFailed("statistics", 0, "AA", "broken"), rules)
    state, _ = transition(state, SiloFailed("statistics", 0, "DL", "broken"), rules)
    with pytest.raises(IllegalTransitionError, match="Silo DL"):
        transition(state, Contributed("statistics", 0, "DL"), rules)
    again, _ = transition(state, SiloFailed("statistics", 0, "DL", "for another reason"), rules)
    assert again == state


# --- as JSON ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(scenario=scenarios(), order=st.randoms(use_true_random=False))
def test_every_state_survives_its_bytes(
    scenario: tuple[RoundPolicy, dict[tuple[Purpose, int], dict[str, str]]], order: random.Random
) -> None:
    rules, plan = scenario
    for state in walk(
        rules, in_order(plan, order, False), lambda number: {"auc": 1.0, "loss": 1 / (number + 3)}
    ):
        data = canonical_json(state.to_json())
        again = JobState.from_json(json.loads(data))
        assert again == state
        assert canonical_json(again.to_json()) == data
        assert outstanding(again) == outstanding(state)


def damaged() -> dict[str, Any]:
    """One stored state of each way in which it can be wrong."""
    good = last(policy()).to_json()

    def changed(**keys: Any) -> dict[str, Any]:
        return {**good, **keys}

    first, second = good["rounds"]
    answers = {"asked": ["AA", "UA"], "contributed": ["AA"], "failed": {}}
    return {
        "nothing": None,
        "a list": [],
        "no keys": {},
        "another format": changed(format="fedhouse-job-state/2"),
        "an unknown key": changed(more=1),
        "an unknown phase": changed(phase="resting"),
        "an unknown purpose": changed(purpose="probe"),
        "a phase without its end": changed(phase="summing"),
        "an end without its phase": changed(end=None),
        "an unknown end": changed(end={"reason": "boredom", "detail": ""}),
        "a finished job that failed": changed(end={"reason": "quorum", "detail": ""}),
        "a short digest": changed(encoder="abc"),
        "a digest that is a number": changed(encoder=5),
        "rounds without an encoder": changed(encoder=""),
        "a missing round": changed(rounds=[second]),
        "rounds swapped": changed(rounds=[second, first]),
        "no round": changed(rounds=[]),
        "a round without a model": changed(rounds=[{**first, "model": ""}, second]),
        "somebody unasked": changed(statistics={**answers, "contributed": ["AA", "ZZ"]}),
        "somebody twice": changed(statistics={**answers, "failed": {"AA": "x", "UA": "x"}}),
        "names out of order": changed(statistics={**answers, "contributed": ["UA", "AA"]}),
        "a name that is a number": changed(statistics={**answers, "asked": [1, 2]}),
        "a reason that is a number": changed(statistics={**answers, "failed": {"UA": 1}}),
        "a closed collection that waits": changed(statistics=answers),
        "metrics that are text": changed(rounds=[first, {**second, "metrics": {"auc": "0.5"}}]),
    }


@pytest.mark.parametrize("name", damaged())
def test_a_stored_state_that_is_not_one_is_refused(name: str) -> None:
    with pytest.raises(IntegrityError):
        JobState.from_json(damaged()[name])


# --- contributors that no longer count --------------------------------------------------------------


def summing(purpose: Purpose, rules: RoundPolicy) -> JobState:
    """The first state in which this purpose is to be summed, all silos having contributed."""
    return next(s for s in walk(rules) if s.phase is Phase.SUMMING and s.purpose == purpose)


@pytest.mark.parametrize("purpose", ["statistics", "update", "evaluation"])
def test_a_disqualified_contributor_is_taken_out_before_the_sum(purpose: Purpose) -> None:
    rules = policy()
    state = summing(purpose, rules)
    event = Disqualified(purpose, state.round, "DL", "not-permitted")
    state, effects = transition(state, event, rules)
    assert effects == (Sum(purpose, state.round, ("AA", "B6", "UA")),)
    assert state.current.failed == {"DL": "not-permitted"}
    assert JobState.from_json(json.loads(canonical_json(state.to_json()))) == state
    again, effects = transition(state, event, rules)
    assert (again, effects) == (state, ())


def test_too_few_left_is_a_failure_that_can_be_reopened() -> None:
    rules = policy(min_cohort=3)
    state = summing("update", rules)
    for silo in ("AA", "B6"):
        state, effects = transition(state, Disqualified("update", 1, silo, "stopped"), rules)
    assert state.phase is Phase.FAILED
    assert isinstance(effects[0], Fail)
    assert "2 of 4 silos contributed, and 3 are needed" in effects[0].detail
    assert outstanding(reopened(state)) == (Collect("update", 1, SILOS),)


def test_only_a_contributor_of_the_closed_collection_is_disqualified() -> None:
    rules = policy()
    state = summing("update", rules)
    wrong = [
        Disqualified("update", 1, "XX", "unknown"),
        Disqualified("update", 2, "AA", "early"),
        Disqualified("statistics", 0, "AA", "late"),
        Disqualified("evaluation", 1, "AA", "early"),
    ]
    for event in wrong:
        with pytest.raises(IllegalTransitionError):
            transition(state, event, rules)
    collecting = open_job(SILOS, rules)
    with pytest.raises(IllegalTransitionError):
        transition(collecting, Disqualified("statistics", 0, "AA", "not closed yet"), rules)
