"""The domain, pure: no clock, randomness, environment, logging, I/O.

Read in this order:

* one call: `money`, `usage`, `calls`, `attribution`, `events`
* what limits it: `windows`, `policy`, `lines`, `accounts`, `limits`, `loops`, `stops`
* what is booked: `operations`, `ledger`, `admission`, `decisions`

That is the whole of it. What people are told of it is in `alerting`, and what reports
add up in `reporting`.
"""
