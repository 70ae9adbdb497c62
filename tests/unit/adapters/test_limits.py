"""Which of the five limits is too small, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.adapters.broker.limits import SizeLimits, refuse_too_small
from services.domain.errors import SizeLimitsDisagree
from services.domain.topics import RECORD_LIMIT_BYTES

ENOUGH = SizeLimits(RECORD_LIMIT_BYTES, RECORD_LIMIT_BYTES, RECORD_LIMIT_BYTES, "loupe.frames")
FIELDS = ("broker_bytes", "replica_bytes", "topic_bytes", "producer_bytes", "consumer_bytes")


def test_our_own_limits_let_the_largest_record_pass() -> None:
    refuse_too_small(ENOUGH)


@pytest.mark.parametrize("field", FIELDS)
def test_each_of_the_five_is_named_with_all_the_numbers(field: str) -> None:
    limits = replace(ENOUGH, **{field: RECORD_LIMIT_BYTES - 1})  # type: ignore[arg-type]  # by name
    with pytest.raises(SizeLimitsDisagree) as caught:
        refuse_too_small(limits)
    too_small = caught.value.details["too_small"]
    assert isinstance(too_small, tuple)
    (named,) = too_small
    assert f"raise {named} to at least {RECORD_LIMIT_BYTES}" in caught.value.message
    for place, number in limits.places():
        assert f"{place} {number}" in caught.value.message
    assert caught.value.details[field] == RECORD_LIMIT_BYTES - 1


def test_what_nobody_tells_is_not_refused() -> None:
    refuse_too_small(SizeLimits(None, None, None, "loupe.frames"))
    with pytest.raises(SizeLimitsDisagree, match=r"message\.max\.bytes unknown"):
        refuse_too_small(SizeLimits(None, None, 1, "loupe.frames"))
