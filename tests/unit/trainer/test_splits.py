"""Which photos train and which test: by names and objects, stratified."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from services.domain.label import Split, Verdict
from services.trainer.dataset import LabelledImage
from services.trainer.splits import split_normals, with_split


def labelled(normals: int, anomalies: int) -> list[LabelledImage]:
    names = [(f"n{one}", Verdict.NORMAL) for one in range(normals)]
    names += [(f"a{one}", Verdict.ANOMALY) for one in range(anomalies)]
    return [LabelledImage(b"", name, label) for name, label in names]


def test_split_is_seeded_and_whole() -> None:
    images = labelled(10, 4)
    training, rest = split_normals(images, share=0.7, seed=3)
    assert (len(training), len(rest)) == (7, 7)
    assert {one.name for one in training} | {one.name for one in rest} == {one.name for one in images}
    assert all(one.label is Verdict.NORMAL for one in training)
    assert split_normals(images[::-1], share=0.7, seed=3) == (training, rest)
    assert split_normals(images, share=0.7, seed=4) != (training, rest)


@pytest.mark.parametrize(("normals", "expected"), [(0, 0), (1, 1), (2, 2), (3, 2)])
def test_split_of_few(normals: int, expected: int) -> None:
    training, _ = split_normals(labelled(normals, 2))
    assert len(training) == expected


def typed(kind: str, count: int, *types: str) -> list[LabelledImage]:
    return [LabelledImage(b"", f"{kind}{one}", Verdict.ANOMALY, types) for one in range(count)]


def share_out(images: list[LabelledImage]) -> dict[str, int]:
    """Return test photos by the letters of their names."""
    shared = with_split(images, range(len(images)))
    assert all(one.split is not None for one in shared)
    return dict(Counter(one.name.rstrip("0123456789") for one in shared if one.split is Split.TEST))


@pytest.mark.parametrize(
    ("normals", "anomalies", "expected"),
    [
        (20, 10, {"n": 10, "a": 10}),  # the least that the replaced service takes: 10 + 10 and 0 + 10
        (20, 20, {"n": 10, "a": 10}),
        (100, 100, {"n": 20, "a": 20}),
        (19, 30, {"a": 10}),
        (30, 0, {"n": 10}),
        (30, 3, {"n": 10, "a": 3}),
        (0, 0, {}),
    ],
)
def test_a_fifth_tests_and_ten_at_the_least(normals: int, anomalies: int, expected: dict[str, int]) -> None:
    assert share_out(labelled(normals, anomalies)) == expected


def test_each_type_tests() -> None:
    images = [*typed("c", 20, "crack"), *typed("d", 60, "dent"), *typed("m", 30, "crack", "dent")]
    assert share_out([*labelled(20, 0), *images]) == {"n": 10, "c": 10, "d": 12, "m": 10}
    # Rare types give half, and more, those first that have most left, until ten test.
    assert share_out([*typed("c", 6, "crack"), *typed("d", 8, "dent")]) == {"c": 4, "d": 6}
    assert share_out([*typed("c", 16, "crack"), *typed("d", 8, "dent")]) == {"c": 8, "d": 4}


def test_a_split_that_was_given_is_kept() -> None:
    images = labelled(30, 30)
    images[3] = replace(images[3], split=Split.TEST)
    shared = with_split(images, range(60))
    assert [one.name for one in shared if one.split is Split.TEST] == ["n3"]
    # Some that shall train do not make a split: they train, and of the others enough test.
    images = [
        replace(one, split=Split.TRAIN if one.name in ("n1", "n2") else None) for one in labelled(30, 0)
    ]
    shared = with_split(images, range(30))
    assert all(one.split is Split.TRAIN for one in shared if one.name in ("n1", "n2"))
    assert sum(one.split is Split.TEST for one in shared) == 10
    # And so does what shows the same objects.
    shared = with_split(images, [0 if index < 10 else index for index in range(30)])
    assert all(one.split is Split.TRAIN for one in shared[:10])


def test_the_split_depends_on_names_and_seed_only() -> None:
    images = labelled(40, 40)
    first = {one.name: one.split for one in with_split(images, range(80))}
    turned = with_split(images[::-1], range(80))
    assert first == {one.name: one.split for one in turned}
    assert first != {one.name: one.split for one in with_split(images, range(80), seed=1)}


@pytest.mark.parametrize("seed", range(5))
def test_one_object_is_never_on_both_sides(seed: int) -> None:
    images = labelled(60, 60)
    # Objects of three photos, and every sixth object is shown both good and broken.
    groups = [index // 3 for index in range(60)] + [index // 3 + 18 for index in range(60)]
    shared = with_split(images, groups, seed)
    sides: dict[int, set[Split | None]] = {}
    for image, group in zip(shared, groups, strict=True):
        sides.setdefault(group, set()).add(image.split)
    assert all(len(one) == 1 for one in sides.values())
    test = [one.name[0] for one in shared if one.split is Split.TEST]
    assert test.count("n") in (10, 11, 12)
    assert test.count("a") in (10, 11, 12, 13, 14)
