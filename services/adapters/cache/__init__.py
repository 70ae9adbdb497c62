"""What may be lost: the live view in Redis. Losing it costs freshness on a screen, never a result.

`protocol` says what callers may rely on, `redis` is the real thing, `memory` the fake for tests,
`live` what Loupe keeps in it.
"""

from services.adapters.cache.protocol import Cache, CacheWrite, PushRecent, SetFields

__all__ = ["Cache", "CacheWrite", "PushRecent", "SetFields"]
