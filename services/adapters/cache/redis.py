"""Redis by redis-py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from services.adapters.cache.protocol import CacheWrite, SetFields
from services.domain.errors import CacheUnavailable

# A healthy Redis answers in a millisecond; whoever waits longer waits on something else.
TIMEOUT_S = 0.5


class RedisCache:
    """See `Cache`; thread-safe, connects on first use."""

    def __init__(self, url: str) -> None:
        """Use the server at `redis://…`."""
        # One retry over a fresh connection: pooled ones die unseen when the server restarts.
        self._redis: Any = Redis.from_url(
            url,
            decode_responses=True,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 1),
        )

    def write(self, writes: Sequence[CacheWrite]) -> None:
        """See `Cache.write`."""
        try:
            with self._redis.pipeline(transaction=True) as pipe:
                for one in writes:
                    if isinstance(one, SetFields):
                        if one.fields:
                            pipe.hset(one.key, mapping=dict(one.fields))
                    elif one.items:
                        pipe.lpush(one.key, *one.items)
                        pipe.ltrim(one.key, 0, one.keep - 1)
                pipe.execute()
        except RedisError as error:
            raise CacheUnavailable(f"Redis took no write: {error}") from error

    def fields(self, key: str) -> dict[str, str]:
        """See `Cache.fields`."""
        try:
            found: dict[str, str] = self._redis.hgetall(key)
        except RedisError as error:
            raise CacheUnavailable(f"Redis does not answer: {error}") from error
        return found

    def recent(self, key: str, limit: int) -> list[str]:
        """See `Cache.recent`."""
        if limit <= 0:
            return []
        try:
            found: list[str] = self._redis.lrange(key, 0, limit - 1)
        except RedisError as error:
            raise CacheUnavailable(f"Redis does not answer: {error}") from error
        return found

    def close(self) -> None:
        """See `Cache.close`."""
        self._redis.close()
