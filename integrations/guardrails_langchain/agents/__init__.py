"""Agents: the middleware that guards an agent where it is made.

`middleware` has the hooks of LangChain, and `turns` what they do around one call.
"""
