"""Template: the `guardrails.yaml` that `guardrails init` writes."""

__all__ = ["TEMPLATE"]

TEMPLATE = """\
# guardrails: what agents may spend. `guardrails check` shows what is in force.
# Lines behind `#:` are examples: take the sign away, and they count.
version: 1

# Where the totals are kept: one file for all your processes here, or a
# server for a fleet.
#: store: sqlite
#: store: redis://127.0.0.1:6379/0

# enforce, observe (decide and record, block nothing) or off.
mode: enforce

defaults:
  # One session is one run of an agent. Without a limit it is only recorded.
  #: session:
  #:   max_cost_usd: 1.00
  #:   max_steps: 200            # model calls and tool calls together
  #:   max_wall_time_s: 900
  #:   soft_alert_ratio: [0.8]   # tell people at this part of every limit
  # What to do with a model whose price is not known: refuse, worst_case, allow.
  #: on_unpriced: refuse
  # Three identical calls with identical results are a loop: warn, block or stop.
  loop: { repeats: 3, action: warn }

# Limits of single agents, by globs over their names.
#: agents:
#:   "onboarding_*": { session: { max_cost_usd: 0.05 } }

# Limits that many sessions share: per customer and month, for example.
#: budgets:
#:   - { name: customer-month, per: [customer_id], every: month, max_cost_usd: 25 }
#:   - { name: day, per: [], every: day, max_tool_calls: 5000 }

# What a call of a tool costs, by globs over server/tool.
#: tools:
#:   geocoding/geocode: { cost_per_call_usd: 0.005 }
"""
