"""Reading: what models were asked and have answered, in guardrails' own words.

No policy and no I/O: LangChain's objects become calls and outcomes in `translate`, and
what all others here read of them is sizes, counts and names, and never content.
"""
