"""The connection: has commands carried out, whatever happens on the way.

`attempts` decides what is sent next, and to whom; it does no I/O. `client` and `stream`
do what it says, the one for threads and the other for event loops.
"""
