"""Keeping: what is kept of calls for reports, and how it is deleted.

`history` reads it. `retention` deletes what is old, and `forgetting` what belongs to
one customer, while agents go on.
"""
