"""The rule of promotion: what it never does, and that better evidence never harms."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.domain.promotion import Contender, DisputedImage, Evidence, decide, upper_binomial_tail

V1 = Contender("v1", True, "It serves now.", 0.02)
V2 = Contender("v2", True, "Its golden outputs come out.", 0.02)


def lost(name: str = "a", *, is_anomaly: bool = True, is_reviewed: bool = False) -> DisputedImage:
    """An image that only the version that serves judges right."""
    return DisputedImage(name, is_anomaly, is_reviewed, is_right=False, was_right=True)


def won(name: str = "b", *, is_anomaly: bool = True, is_reviewed: bool = False) -> DisputedImage:
    return DisputedImage(name, is_anomaly, is_reviewed, is_right=True, was_right=False)


def both_wrong(name: str = "c", *, is_anomaly: bool = True, is_reviewed: bool = False) -> DisputedImage:
    return DisputedImage(name, is_anomaly, is_reviewed, is_right=False, was_right=False)


def test_the_first_good_version_is_promoted() -> None:
    decision = decide(Evidence(V2))
    assert decision.is_promoted
    assert decision.reasons == (
        "It is the project's first version; its golden check alone speaks for it: the project has no "
        "regression set.",
    )


def test_a_failed_golden_check_is_told_with_its_reason() -> None:
    decision = decide(Evidence(replace(V2, is_proved=False, proof="other scores.")))
    assert not decision.is_promoted
    assert decision.reasons == ("It fails its golden check: other scores.",)


def test_an_equal_version_is_promoted_because_it_is_newer() -> None:
    counted = {"normals": 40, "false_rejects": 1, "anomalies": 10, "found": 9}
    decision = decide(Evidence(replace(V2, **counted), replace(V1, **counted)))  # type: ignore[arg-type]  # counts
    assert decision.is_promoted
    assert (
        "9 of 10 anomalies found, 1 of 40 normal images rejected, 9 and 1 by version v1"
        in decision.reasons[0]
    )


# P(X >= k | 100, 0.02): 0.051 for 5, 0.015 for 6, 0.004 for 7.
@pytest.mark.parametrize(("rejected", "is_promoted"), [(2, True), (6, True), (7, False)])
def test_a_promise_is_broken_where_chance_does_not_explain_it(rejected: int, is_promoted: bool) -> None:
    decision = decide(Evidence(replace(V2, normals=100, false_rejects=rejected)))
    assert decision.is_promoted is is_promoted
    if not is_promoted:
        assert decision.reasons == (
            "It breaks its promise: it rejects 7 of 100 normal images, 2.0% were promised.",
        )


def test_what_reviewers_corrected_is_never_lost_again() -> None:
    many_won = tuple(won(str(n)) for n in range(30))
    decision = decide(Evidence(V2, V1, (lost("scratch.png", is_reviewed=True), *many_won)))
    assert not decision.is_promoted
    assert decision.reasons == (
        "It gets wrong what reviewers corrected and what is judged right now: scratch.png.",
    )


def test_what_neither_version_gets_right_does_not_stop_a_project() -> None:
    decision = decide(Evidence(V2, V1, (both_wrong("scratch.png", is_reviewed=True),)))
    assert decision.is_promoted
    assert decision.reasons[1] == (
        "It gets 1 images wrong that reviewers corrected, as the version before it does: scratch.png."
    )


# One-sided sign test: 3 to 0 has a chance of 1/8, 4 to 0 of 1/16, 4 to 1 of 6/32.
@pytest.mark.parametrize(
    ("losses", "wins", "is_promoted"),
    [(3, 0, True), (4, 0, False), (4, 1, True), (5, 1, True), (7, 1, False)],
)
def test_worse_beyond_chance_is_kept(losses: int, wins: int, is_promoted: bool) -> None:
    disputed = (*(lost(str(n)) for n in range(losses)), *(won(str(n)) for n in range(wins)))
    assert decide(Evidence(V2, V1, disputed)).is_promoted is is_promoted


def test_defects_missed_are_not_paid_for_with_good_parts_accepted() -> None:
    disputed = (*(lost(str(n)) for n in range(5)), *(won(str(n), is_anomaly=False) for n in range(50)))
    decision = decide(Evidence(V2, V1, disputed))
    assert decision.reasons == (
        "It is worse on anomalous images than version v1: it gets 5 wrong that are judged right now (0, 1, 2 "
        "and 2 more), and 0 the other way round.",
    )


def test_a_model_that_calls_everything_normal_is_kept() -> None:
    candidate = replace(V2, normals=10, anomalies=6, found=0)
    current = replace(V1, normals=10, anomalies=6, found=6)
    assert not decide(Evidence(candidate, current, tuple(lost(str(n)) for n in range(6)))).is_promoted


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0.001, 0.999))
def test_the_binomial_tail_is_that_of_counting(count: int, total: int, ratio: float) -> None:
    expected = sum(
        math.comb(total, n) * ratio**n * (1 - ratio) ** (total - n) for n in range(count, total + 1)
    )
    assert upper_binomial_tail(count, total, ratio) == pytest.approx(expected, rel=1e-6, abs=1e-12)


images = st.builds(
    DisputedImage, st.just("x"), st.booleans(), st.booleans(), is_right=st.booleans(), was_right=st.booleans()
)


@st.composite
def contenders(draw: st.DrawFn, version: str) -> Contender:
    normals, anomalies = draw(st.integers(0, 200)), draw(st.integers(0, 200))
    return Contender(
        version,
        draw(st.booleans()),
        "",
        draw(st.floats(0.001, 0.5)),
        draw(st.none() | st.floats(0.1, 100)),
        normals,
        draw(st.integers(0, normals)),
        anomalies,
        draw(st.integers(0, anomalies)),
    )


evidence = st.builds(
    Evidence,
    contenders("v2"),
    st.none() | contenders("v1"),
    st.lists(images, max_size=40).map(tuple),
)


@given(evidence)
def test_the_same_evidence_gives_the_same_decision_with_a_reason(given_evidence: Evidence) -> None:
    decision = decide(given_evidence)
    assert decision == decide(given_evidence)
    assert decision.reasons
    assert all(reason.endswith(".") or ": " in reason for reason in decision.reasons)


@given(evidence)
def test_a_failed_golden_check_is_never_promoted(given_evidence: Evidence) -> None:
    failed = replace(given_evidence, candidate=replace(given_evidence.candidate, is_proved=False))
    assert not decide(failed).is_promoted


@given(evidence, st.data())
def test_better_evidence_never_keeps_what_worse_would_promote(
    given_evidence: Evidence, data: st.DataObject
) -> None:
    if not decide(given_evidence).is_promoted:
        return
    candidate = given_evidence.candidate
    better = replace(
        candidate,
        is_proved=True,
        false_rejects=data.draw(st.integers(0, candidate.false_rejects)),
        found=data.draw(st.integers(candidate.found, candidate.anomalies)),
    )
    disputed = tuple(
        replace(one, is_right=True) if data.draw(st.booleans()) else one for one in given_evidence.disputed
    )
    assert decide(Evidence(better, given_evidence.current, disputed)).is_promoted
