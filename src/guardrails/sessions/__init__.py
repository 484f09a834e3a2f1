"""A session, the guarded calls in it, and where the running code belongs to.

Begin with `session` and `guarded_call`. `scope` and `places` find them from anywhere in
the program; `planning` and `tools` make calls of what a program has; `outcomes`,
`closing`, `clamping`, `layering` and the others each know one thing about a call.
"""
