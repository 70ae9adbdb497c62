"""Routes that make no sense are refused before they are stored."""

from __future__ import annotations

from math import inf, nan

import pytest

from services.domain.errors import BadRequest
from services.domain.hosting import Route
from services.hosting.route_store import checked_route


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, inf, nan])
def test_a_deadline_is_a_number_above_zero(deadline_s: float) -> None:
    with pytest.raises(BadRequest, match="deadline"):
        checked_route(Route("*", "plates", deadline_s=deadline_s))
