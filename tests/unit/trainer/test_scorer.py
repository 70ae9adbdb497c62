"""From distances to scores and maps, with numbers derived by hand."""

from __future__ import annotations

import numpy as np
import pytest

from services.trainer.scorer import Places, Scorer, places_of, scores_of, standard_of, statistics_of


def test_statistics_are_the_highest_cells() -> None:
    distances = np.zeros((2, 1, 28, 28), np.float32)
    distances[0, 0, 3, 4], distances[0, 0, 9, 9] = 6, 3
    # head 0: highest 6, (6 + 3 + 0) / 3 = 3, (6 + 3) / 10 = 0.9; head 1: all 0
    np.testing.assert_allclose(statistics_of(list(distances), 224), [[6, 3, 0.9, 0, 0, 0]], rtol=1e-6)


def test_statistics_of_no_photos_are_none() -> None:
    assert statistics_of([np.zeros((0, 14, 14), np.float32)] * 2, 224).shape == (0, 6)


def test_heads_on_any_grid_are_read_on_one() -> None:
    fine = np.zeros((1, 56, 56), np.float32)
    fine[0, 0, 0] = 8  # a quarter of a cell of the 28 x 28 grid: 2
    statistics = statistics_of([fine, np.full((1, 14, 14), 5, np.float32)], 224)
    np.testing.assert_allclose(statistics[0, [0, 3, 4, 5]], [2, 5, 5, 5], rtol=1e-5)


def test_scores_rise_with_any_statistic_and_never_tie_below() -> None:
    statistics = np.random.default_rng(0).normal(5, 0.5, (30, 6)).astype(np.float32)
    standard = standard_of(statistics)
    usual = standard.mean[None]
    assert scores_of(usual, standard)[0] == 0
    assert scores_of(usual * 1.2, standard)[0] > 1
    assert scores_of(usual * 0.8, standard)[0] > scores_of(usual * 0.7, standard)[0]
    scores = scores_of(statistics, standard)
    assert len(np.unique(scores)) == len(scores)


@pytest.mark.parametrize("count", [1, 2])
def test_standard_of_few_photos_has_a_spread(count: int) -> None:
    standard = standard_of(np.full((count, 6), 4, np.float32))
    np.testing.assert_allclose(standard.mean, 4)
    # 10 prior photos at 6 % of 4, over count + 9 degrees
    np.testing.assert_allclose(standard.sd, 0.24 * np.sqrt(10 / (count + 9)), rtol=1e-5)


def test_where_good_parts_vary_a_distance_says_less() -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(10, 1, (30, 56, 56)).astype(np.float32)
    maps[:, :, :8] = rng.normal(10, 4, (30, 56, 8))  # a restless left edge
    places = places_of(maps)
    assert places.mean == pytest.approx(10, abs=0.1)
    # variance 1 far from the edge, 16 at it, both with a quarter weight on the mean of all (22 / 7)
    assert places.sd[28, 50] == pytest.approx(np.sqrt((30 * 1 + 10 * 22 / 7) / 40), rel=0.1)
    assert places.sd[28, 1] == pytest.approx(np.sqrt((30 * 16 + 10 * 22 / 7) / 40), rel=0.15)


def test_equal_photos_do_not_divide_by_nothing() -> None:
    places = places_of(np.full((5, 56, 56), 2, np.float32))
    np.testing.assert_allclose(places.sd, 0.1)
    assert (places_of(np.zeros((5, 56, 56), np.float32)).sd > 0).all()


def test_only_chosen_heads_enter_the_map() -> None:
    places = Places(1.0, np.full((56, 56), 2, np.float32))
    standard = standard_of(np.ones((3, 6), np.float32))
    distances = [np.full((1, 56, 56), 5, np.float32), np.full((1, 28, 28), 3, np.float32)]
    maps = {
        chosen: float(Scorer(224, chosen, (places, places), standard).maps(distances).mean())
        for chosen in [(True, False), (False, True), (True, True)]
    }
    # (5 - 1) / 2 = 2, (3 - 1) / 2 = 1, and their mean
    assert maps == pytest.approx({(True, False): 2, (False, True): 1, (True, True): 1.5})
