"""The Redis store: one budget for a fleet. Redis, Valkey, Sentinel and Cluster.

An operation becomes arguments (`requests.py`, pure) of a script (`lua/`, read by
`scripts.py`), written as bytes (`wire.py`, pure), sent until it succeeds
(`attempts.py`, no I/O) to whoever holds the project (`topology.py`, `keys.py`) by a
thread or an event loop (`client.py`, `stream.py`), and its reply becomes a value again
(`replies.py`, pure).
`store.py` puts that together; `history.py` reads what was spent.

The rest is what `guardrails doctor` asks and judges: `diagnosis.py`, `node.py`,
`answers.py`, `judgement.py`, `losses.py`, `books.py` and `rights.py`.
"""

from guardrails.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
