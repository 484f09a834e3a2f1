"""The domain, pure: no clock, randomness, environment, logging, I/O.

Read in this order: `money`, `usage`, `calls`, `attribution`, `windows`,
`policy`, `loops`, `ledger`, `admission`, `decisions`, `events`.
"""
