"""The outside world: one Protocol, one in-memory and one real implementation per thing.

Each pair passes the same suite in `tests/contract`.
"""
