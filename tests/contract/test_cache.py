"""Redis and its stand-in do the same."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from services.adapters.cache import Cache, PushRecent, SetFields
from services.adapters.cache.memory import MemoryCache
from services.adapters.cache.redis import RedisCache
from services.domain.errors import CacheUnavailable


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.real)])
def cache(request: pytest.FixtureRequest) -> Iterator[Cache]:
    if request.param == "memory":
        yield MemoryCache()
        return
    real = RedisCache(request.getfixturevalue("redis_url"))
    yield real
    real.close()
    real.close()


@pytest.fixture
def key() -> str:
    return f"test:{uuid4()}"


def test_what_is_not_there_is_empty(cache: Cache, key: str) -> None:
    assert cache.fields(key) == {}
    assert cache.recent(key, 5) == []


def test_fields_are_set_one_by_one(cache: Cache, key: str) -> None:
    cache.write([SetFields(key, {"a": "1", "b": "2"})])
    cache.write([SetFields(key, {"b": "3"}), SetFields(key, {})])
    assert cache.fields(key) == {"a": "1", "b": "3"}


def test_a_list_keeps_the_newest_first_and_no_more_than_asked(cache: Cache, key: str) -> None:
    cache.write([PushRecent(key, ["1", "2"], keep=3)])
    cache.write([PushRecent(key, ["3", "4"], keep=3), PushRecent(key, [], keep=3)])
    assert cache.recent(key, 10) == ["4", "3", "2"]
    assert cache.recent(key, 1) == ["4"]
    assert cache.recent(key, 0) == []


def test_text_of_any_language_comes_back(cache: Cache, key: str) -> None:
    cache.write([SetFields(key, {"Kamera 1 größer": "ねじ"})])
    assert cache.fields(key) == {"Kamera 1 größer": "ねじ"}


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0"])
def test_a_redis_that_is_gone_is_unavailable(url: str) -> None:
    gone = RedisCache(url)
    with pytest.raises(CacheUnavailable):
        gone.write([SetFields("key", {"a": "1"})])
    with pytest.raises(CacheUnavailable):
        gone.fields("key")
    with pytest.raises(CacheUnavailable):
        gone.recent("key", 1)
    gone.close()
