"""The texts of scripts, and what they are given."""

import re
from contextlib import closing

from guardrails.core.accounts import Threshold
from guardrails.core.operations import Verdict
from guardrails.core.policy import Measure
from guardrails.stores.redis import RedisStore
from guardrails.stores.redis.codec.scripts import Script
from guardrails.testing.conformance import charging, reserve
from tests.servers.processes import Server

SOURCE = r"""
local FIRST, TTL_S, PATTERN = 1, '100', '^(.-)\31, FIRST$' -- TTL_S is a string
local LIST = {FIRST, FIRST + 1}
local FIRSTS = 7
return {FIRST, TTL_S, PATTERN, 'FIRST', LIST[FIRST + 1], FIRSTS}
"""


def test_constants_are_written_where_they_are_named(server: Server) -> None:
    script = Script("mine", SOURCE)

    assert "local FIRST" not in script.text.decode()
    assert server.ask("EVAL", script.text, 0) == server.ask("EVAL", SOURCE, 0)
    assert server.ask("SCRIPT", "LOAD", script.text) == script.sha


def test_no_constant_is_a_variable_in_the_script_of_a_call() -> None:
    """It would be one without notice, as by an expression for its value."""
    code = Script("call").text.decode()
    assert not re.search(r"^local [A-Z][A-Z_]+\b", code, re.MULTILINE)


def test_a_threshold_may_lie_above_what_any_account_can_hold(server: Server) -> None:
    """Nobody reaches it, and it is in nobody's way."""
    point = Threshold(measure=Measure.COST, value=10**20, label="max_cost_usd:soft")
    with closing(RedisStore(server.unix_url)) as store:
        reserved = store.execute(reserve("1", charging(thresholds=(point,))))

    assert getattr(reserved, "verdict", None) is Verdict.ALLOW
