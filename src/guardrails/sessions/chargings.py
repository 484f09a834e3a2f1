"""Chargings: remembers for some seconds what the calls of a session are charged to."""

from collections import OrderedDict

from guardrails.core.accounts import Charging
from guardrails.core.attribution import Attribution
from guardrails.core.policy import Policy
from guardrails.core.windows import Window, window_end_ms

__all__ = ["Chargings"]

CHARGINGS_MAX = 256
"""Attributions whose accounts a session remembers: nested agents and runs."""

REMEMBERED_MS = 5_000
"""Until then a session does not look whether the policy has changed."""

_Key = tuple[Attribution, str | None]


class Chargings:
    """The chargings of one session. Not thread safe."""

    def __init__(self) -> None:
        self._known: OrderedDict[_Key, tuple[Charging, range]] = OrderedDict()

    def find(
        self, who: Attribution, tool: str | None, policy: Policy, now_ms: int
    ) -> Charging | None:
        """Returns a charging that is still remembered."""
        found = self._known.get(_key(who, tool, policy))
        return found[0] if found is not None and now_ms in found[1] else None

    def keep(
        self, charging: Charging, tool: str | None, policy: Policy, now_ms: int
    ) -> None:
        """Remembers a charging, though not past midnight: windows turn there."""
        midnight_ms = window_end_ms(Window.DAY, now_ms=now_ms)
        assert midnight_ms is not None
        until_ms = min(midnight_ms, now_ms + REMEMBERED_MS)
        key = _key(charging.attribution, tool, policy)
        # From now on: a clock that is set back turns windows back, too.
        self._known[key] = (charging, range(now_ms, until_ms))
        if len(self._known) > CHARGINGS_MAX:
            self._known.popitem(last=False)

    def clear(self) -> None:
        """Forgets them: another policy holds."""
        self._known.clear()


def _key(who: Attribution, tool: str | None, policy: Policy) -> _Key:
    limit = None if tool is None else policy.tool_limit(tool)
    return who, None if limit is None else limit.name
