"""The Redis store: one budget for a fleet. Redis, Valkey, Sentinel and Cluster.

`store` has each operation made into the arguments of a script (`codec`), has them sent
until they arrive (`connection`), and returns what the script in `lua/` has answered.
`rollbacks` says it when a server has lost something. What is not about calls stands
apart: `keeping` is for reports, and `health` for the doctor.
"""

from guardrails.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
