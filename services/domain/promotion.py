"""Whether a new model version may serve: a pure rule over what was measured (arrow 6).

A candidate is promoted unless something speaks against it: on equal terms it has seen newer data. What
speaks against it has to be more than chance. Measures nothing itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# A promise counts as broken where so many false rejects would come about by chance less often than this.
# Strict, since a promise that few photos support is itself an estimate.
PROMISE_CHANCE = 0.01
# A candidate counts as worse where equally good versions would differ so much less often than this. Looser:
# keeping what serves costs less than a line that gets worse; four images lost and none won are enough.
WORSE_CHANCE = 0.1
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Contender:
    """One version and how it did.

    Attributes:
        is_proved: it computes its golden outputs.
        proof: by what that was found, and where it failed, why; a plain sentence.
        max_false_reject_ratio: its promise (0-1).
        ms: milliseconds an image; None where nobody measured.
        normals: normal images of the regression set that no reviewer corrected; those were chosen
            because a version failed on them, so they say nothing of a promise.
        false_rejects: how many of `normals` it rejects.
        anomalies: anomalous images of the regression set.
        found: how many of them it finds.
    """

    version: str
    is_proved: bool
    proof: str
    max_false_reject_ratio: float
    ms: float | None = None
    normals: int = 0
    false_rejects: int = 0
    anomalies: int = 0
    found: int = 0


@dataclass(frozen=True, slots=True)
class DisputedImage:
    """An image of the regression set that the candidate, or the version that serves, judges wrong.

    Attributes:
        is_anomaly: what people say of it.
        is_reviewed: a reviewer corrected a verdict on it.
        is_right: the candidate judges it right.
        was_right: the version that serves does; always False where none serves.
    """

    name: str
    is_anomaly: bool
    is_reviewed: bool
    is_right: bool
    was_right: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was measured of a candidate, beside the version that serves.

    Attributes:
        current: None where none serves.
        disputed: images that at least one of the two judges wrong.
    """

    candidate: Contender
    current: Contender | None = None
    disputed: tuple[DisputedImage, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What comes of a candidate.

    Attributes:
        reasons: plain sentences; at least one.
    """

    is_promoted: bool
    reasons: tuple[str, ...]


def decide(evidence: Evidence) -> Decision:
    """Return whether the candidate is to serve.

    Kept are those that fail their golden check, that break their promise on the regression set's normal
    images beyond chance, that get an image wrong which a reviewer corrected and the version that serves
    judges right, and that are worse beyond chance than that version on normal or on anomalous images.
    """
    against = [
        sentence
        for objection in (_unproved, _breaks_promise, _forgets_reviews, _is_worse)
        for sentence in objection(evidence)
    ]
    if against:
        return Decision(False, tuple(against))
    return Decision(True, (_why_promoted(evidence), *_still_wrong(evidence)))


def upper_binomial_tail(count: int, total: int, ratio: float) -> float:
    """Return the chance of `count` or more out of `total`, each with chance `ratio`.

    >>> round(upper_binomial_tail(2, 14, 0.02), 3)
    0.031
    """
    if count <= 0:
        return 1.0
    if ratio <= 0:
        return 0.0
    if ratio >= 1:
        return 1.0
    log_ratio, log_rest = math.log(ratio), math.log1p(-ratio)

    def log_chance(n: int) -> float:
        ways = math.lgamma(total + 1) - math.lgamma(n + 1) - math.lgamma(total - n + 1)
        return ways + n * log_ratio + (total - n) * log_rest

    return min(1.0, math.fsum(math.exp(log_chance(n)) for n in range(count, total + 1)))


def _unproved(evidence: Evidence) -> list[str]:
    candidate = evidence.candidate
    return [] if candidate.is_proved else [f"It fails its golden check: {candidate.proof}"]


def _breaks_promise(evidence: Evidence) -> list[str]:
    one = evidence.candidate
    chance = upper_binomial_tail(one.false_rejects, one.normals, one.max_false_reject_ratio)
    if chance >= PROMISE_CHANCE:
        return []
    return [
        f"It breaks its promise: it rejects {one.false_rejects} of {one.normals} normal images, "
        f"{one.max_false_reject_ratio:.1%} were promised."
    ]


def _forgets_reviews(evidence: Evidence) -> list[str]:
    lost = [one for one in evidence.disputed if one.is_reviewed and one.was_right and not one.is_right]
    if not lost:
        return []
    return [f"It gets wrong what reviewers corrected and what is judged right now: {_names(lost)}."]


def _is_worse(evidence: Evidence) -> list[str]:
    """Return a sentence per kind of image: more defects found do not pay for good parts rejected.

    A sign test on the images that the two versions judge differently (McNemar's, exact, one-sided).
    """
    if evidence.current is None:
        return []
    sentences = []
    for is_anomaly, kind in ((False, "normal"), (True, "anomalous")):
        of_kind = [one for one in evidence.disputed if one.is_anomaly is is_anomaly]
        lost = [one for one in of_kind if one.was_right and not one.is_right]
        won = [one for one in of_kind if one.is_right and not one.was_right]
        if lost and upper_binomial_tail(len(lost), len(lost) + len(won), 0.5) < WORSE_CHANCE:
            sentences.append(
                f"It is worse on {kind} images than version {evidence.current.version}: it gets {len(lost)} "
                f"wrong that are judged right now ({_names(lost)}), and {len(won)} the other way round."
            )
    return sentences


def _why_promoted(evidence: Evidence) -> str:
    one, current = evidence.candidate, evidence.current
    if not one.normals and not one.anomalies:
        alone = "its golden check alone speaks for it: the project has no regression set."
        return f"It is the project's first version; {alone}" if current is None else f"It is newer; {alone}"
    did = (
        f"{one.found} of {one.anomalies} anomalies found, {one.false_rejects} of {one.normals} normal images "
        "rejected"
    )
    if current is None:
        return f"It is the project's first version: {did}."
    before = f"{current.found} and {current.false_rejects} by version {current.version}"
    return f"It is no worse on the regression set: {did}, {before}."


def _still_wrong(evidence: Evidence) -> list[str]:
    still = [one for one in evidence.disputed if one.is_reviewed and not one.is_right]
    if not still:
        return []
    before = "" if evidence.current is None else ", as the version before it does"
    return [f"It gets {len(still)} images wrong that reviewers corrected{before}: {_names(still)}."]


def _names(images: Sequence[DisputedImage]) -> str:
    names = [one.name for one in images]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
