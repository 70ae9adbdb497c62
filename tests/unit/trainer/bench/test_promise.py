"""Whether promises are kept is counted on pictures that no fit saw."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from services.domain.errors import BadRequest
from services.trainer.bench.promise import Kept, PromisePlan, measure
from services.trainer.bench.promise_table import document_of, markdown, read, rows_of
from services.trainer.bench.run import write_whole
from services.trainer.fit import Recipe
from tests.unit.trainer.pictures import picture


def kept(seed: int = 0, *, promise: float = 0.02, rejected: float = 0.01) -> Kept:
    return Kept(f"plates {seed}", seed, promise, 30, 2000, rejected, 0.9)


def test_fresh_pictures_are_none_that_any_fit_saw(recipe: Recipe) -> None:
    drawn: list[int] = []

    def good(number: int) -> bytes:
        drawn.append(number)
        return picture(number)

    plan = PromisePlan(promises=(0.05,), fit_photos=(6, 8), fresh=20, bad=4)
    found = list(measure("plates", 0, good, lambda number: picture(number, is_bad=True), plan, recipe=recipe))
    assert [(one.fit_photos, one.promise, one.fresh) for one in found] == [(6, 0.05, 20), (8, 0.05, 20)]
    # Six and eight train; fresh ones begin after the most that train, and are drawn once.
    assert sorted(drawn) == sorted([*range(6), *range(8), *range(8, 28)])
    assert all(one.false_reject_ratio <= 0.25 for one in found)
    assert all(one.recall_ratio == 1 for one in found)


def test_what_is_known_is_not_measured_again() -> None:
    plan = PromisePlan(promises=(0.02,), fit_photos=(30,))
    assert list(measure("plates", 0, bytes, bytes, plan, known={kept().key})) == []


def test_lines_are_counted_together_and_the_worst_is_told() -> None:
    rows = rows_of([kept(0, rejected=0.01), kept(1, rejected=0.04), kept(0, promise=0.05)])
    assert [(row.promise, row.fresh) for row in rows] == [(0.02, 4000), (0.05, 2000)]
    assert rows[0].false_reject_ratio == pytest.approx(0.025)
    assert rows[0].worst_ratio == 0.04
    low, high = rows[0].interval
    # 0.025 -+ 1.96 sqrt(0.025 x 0.975 / 4000) = 0.025 -+ 0.0048
    assert (low, high) == pytest.approx((0.0202, 0.0298), abs=6e-4)
    assert "| 2.0% | 30 | 4000 | 2.50% [2.06%–3.03%] | 4.00% | 90.0% |" in markdown(rows, command="loupe")


def test_a_file_is_gone_on_with(tmp_path: Path) -> None:
    out = tmp_path / "promise.json"
    assert read(out) == ()
    write_whole(out, document_of([kept(), kept(1)], "loupe bench --promise"))
    assert [asdict(one) for one in read(out)] == [asdict(kept()), asdict(kept(1))]
    out.write_text('{"trials": []}')
    with pytest.raises(BadRequest, match="is not a file of `loupe bench --promise`"):
        read(out)
