"""The Redis store: one budget for a fleet. Redis, Valkey, Sentinel and Cluster."""

from guardrails.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
