"""Which photos train and which test: nothing is tested by a model that saw it."""

from __future__ import annotations

from collections import Counter

import pytest

from services.domain.errors import BadRequest
from services.domain.label import Verdict
from services.trainer.bench.protocols import FOLDS, Protocol, folds_of, protocols_of
from tests.unit.trainer.bench.made import bench_set


def test_normals_only_never_trains_with_an_anomaly() -> None:
    one = bench_set()
    (fold,) = folds_of(one, Protocol.NORMALS_ONLY, seed=0)
    assert {image.label for image in fold.train} == {Verdict.NORMAL}
    assert len(fold.test) == 6 + 10 + 3


@pytest.mark.parametrize("seed", range(3))
def test_supervised_tests_every_photo_once_and_never_what_it_saw(seed: int) -> None:
    one = bench_set()
    folds = folds_of(one, Protocol.SUPERVISED, seed)
    assert len(folds) == FOLDS
    tested = Counter(image.name for fold in folds for image in fold.test)
    assert tested == {image.name: 1 for image in (*one.normals, *one.anomalies)}
    for fold in folds:
        assert not {image.name for image in fold.train} & {image.name for image in fold.test}
        # Two of the ten masked anomalies are held out.
        assert sum(bool(image.masks) for image in fold.train) == 8


def test_supervised_learns_no_anomaly_without_a_mask_where_masks_were_drawn() -> None:
    folds = folds_of(bench_set(), Protocol.SUPERVISED, seed=0)
    assert not any(image.name.startswith("plain") for fold in folds for image in fold.train)
    unmasked = bench_set(anomalies=0, unmasked=10)
    folds = folds_of(unmasked, Protocol.SUPERVISED, seed=0)
    assert all(sum(image.label is Verdict.ANOMALY for image in fold.train) == 8 for fold in folds)


def test_photos_of_one_object_are_never_on_both_sides() -> None:
    one = bench_set(anomalies=20, photos_of_object=4)
    for fold in folds_of(one, Protocol.SUPERVISED, seed=0):
        sides = [
            {one.objects[image.name] for image in side if image.name in one.objects}
            for side in (fold.train, fold.test)
        ]
        assert not sides[0] & sides[1]


def test_held_back_normals_never_train() -> None:
    for protocol in Protocol:
        for fold in folds_of(bench_set(), protocol, seed=1):
            assert not any(image.name.startswith("held") for image in fold.train)


def test_an_unknown_protocol_is_a_sentence() -> None:
    assert protocols_of(["supervised"]) == (Protocol.SUPERVISED,)
    with pytest.raises(BadRequest, match="no protocol peeking; known are normals-only, supervised"):
        protocols_of(["peeking"])
