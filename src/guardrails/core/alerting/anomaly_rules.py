"""Anomaly rules: from when on something is unusual, and why from there."""

import math
from dataclasses import dataclass

__all__ = ["BASELINE_DAYS", "AnomalyRules"]

BASELINE_DAYS = 14
"""Days that say what is usual: two of each weekday. More would lag behind growth."""

USD = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyRules:
    """Thresholds. The first three can be configured.

    Those of customers and sessions were chosen in a simulation of 150 customers over
    100 days of six kinds: at most 0.5 false alarms in 100 days of a steady, growing or
    sparse customer, and nearly every fivefold day of a steady one found.
    """

    customer_times: float = 3.0
    """A day costs more than this many usual days."""
    session_times: float = 5.0
    """A session costs more than this many medians: most differ by two or three."""
    excess_nano_usd_min: int = USD
    """What is less is not worth anybody's time, however odd."""

    active_days_min: int = 5
    """Fewer days with calls do not say what is usual."""
    class_days_min: int = 3
    """Weekdays, or days of weekends, that are a class of their own."""
    scale_min: float = math.log(1.25)
    """A customer whose days are all alike may differ by a quarter."""
    z_min: float = 2.0
    """Scales from the median: days that differ a lot may differ a lot."""
    calm_times: float = 2.0
    """A day below this many usual days ends what began with a spike."""

    sessions_min: int = 50
    """Fewer sessions of an agent have no reliable end of their distribution."""
    p99_times: float = 1.5
    """More than that times the 99th percentile is beyond what sessions do."""

    loop_percent_min: int = 20
    """Of what an agent spent on a tool. Repeating now and then is work."""
    retry_percent_min: int = 25
    """Of what somebody spent. Some calls always fail."""

    tool_times: float = 3.0
    """Calls of a tool per session, by those before."""
    tool_sessions_min: int = 20
    """Sessions before that say how often a tool is called."""
    tool_sessions_now_min: int = 5
    """One session is an outlier, and no change."""

    context_times: float = 2.0
    """Input tokens per model call, by those before."""
    context_tokens_min: int = 8_000
    """Less than this is not large, whatever it was."""
    context_calls_min: int = 50
    """Calls before, and a fifth of it now, of which the mean says something."""

    small_input_tokens: int = 2_000
    small_output_tokens: int = 300
    """Mean tokens of a call up to which it is small: sorting, naming, routing."""
    small_calls_min: int = 20
    """Fewer calls may just be a trial."""
    dear_times: float = 5.0
    """Cost of a token, by that of the cheapest model in use: a class above."""

    medium_nano_usd: int = 10 * USD
    high_nano_usd: int = 100 * USD
    """From this excess on it is of medium, or of high severity."""
