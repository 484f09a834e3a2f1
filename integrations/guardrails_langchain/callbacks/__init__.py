"""Callbacks: the handler that guards each run that LangChain tells of.

`handler` enforces, and `runs` knows whose each run is. `ambient`, `carriers` and
`wrapping` see to it that there is a handler; `bubbles`, that its stops arrive.
"""
