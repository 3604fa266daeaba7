"""The Redis that the online-store tests rest on is a real one."""

from __future__ import annotations


def test_redis_keeps_a_value(redis_port: int) -> None:
    """What is set is read back from another connection."""
    import redis

    redis.Redis(port=redis_port).set("key", b"value")
    assert redis.Redis(port=redis_port).get("key") == b"value"
