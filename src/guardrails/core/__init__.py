"""The domain, pure: no clock, randomness, environment, logging, I/O.

Read in this order:

* one call: `money`, `usage`, `calls`, `attribution`, `events`
* what limits it: `windows`, `policy`, `lines`, `accounts`, `limits`, `loops`, `stops`
* what is booked: `operations`, `ledger`, `admission`, `decisions`

That is the whole of it. What people are told is in `telling`, `informing`, `alerts`,
`outbox`, `deliveries`, `watch_alerts`, `anomalies` and beside them; what reports add up
in `rollups`, `groups`, `layers` and `flat_events`.
"""
