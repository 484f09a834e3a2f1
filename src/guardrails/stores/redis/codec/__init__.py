"""The codec: operations as bytes for a server, and its answers as values. Pure.

`requests` writes what the scripts in `lua/` are given and `replies` reads what they
answer; `orders` and `outbox` do both for people and alerts. `keys` and `layouts` say
where each number lies, `scripts` has the texts, and `wire` makes bytes of it all.
"""
