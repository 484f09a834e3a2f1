"""Layouts: how the scripts write rows, sums and limits. Pure."""

import struct

from guardrails.core.layers import LAYERS
from guardrails.core.policy import Limits, Measure

__all__ = [
    "ACTIVE",
    "CALL",
    "DERIVED",
    "DIGESTS_BYTES",
    "LAYER_SUMS",
    "LINE",
    "MEASURES",
    "NO_LIMIT",
    "NUMBERS",
    "SEPARATOR",
    "SLOTS",
    "SUMS",
    "THRESHOLD",
    "TIMES",
    "raised_from",
]

# The layouts are those of the scripts.
NUMBERS = struct.Struct("<6q3i")
TIMES = struct.Struct("<4q")
SUMS = struct.Struct("<2q2i2q3i7q")
CALL = struct.Struct("<2iq3qi3qi")
"""Of a call: lines, sessions, version; now, cost, tokens and kind of each half."""
ACTIVE = struct.Struct("<2q")
LINE = struct.Struct("<i6q")
"""Whether a line binds, and its limits in the order of `SLOTS`."""
THRESHOLD = struct.Struct("<2iq")
"""The number of its line, its slot and its value; its label follows."""
NO_LIMIT = 2**63 - 1
LAYER_SUMS = struct.Struct(f"<{2 * len(LAYERS)}q")
"""Tokens and cost of each layer: all layers of an hour are one cell."""
SLOTS = {
    Measure.COST: 1,
    Measure.TOKENS: 4,
    Measure.STEPS: 7,
    Measure.MODEL_CALLS: 8,
    Measure.TOOL_CALLS: 9,
    Measure.WALL_TIME: 12,
}
DERIVED = ("project_id", "session_id")
"""Dimensions without cells of their own: other cells sum up to theirs."""
MEASURES = {str(slot): measure for measure, slot in SLOTS.items()}
SEPARATOR = "\x1f"

DIGESTS_BYTES = 12
"""In front of the accounts of a hold: of its content, and of the accounts."""


def raised_from(text: str) -> Limits | None:
    """Reads raised limits: six numbers, empty where nothing was raised."""
    if not text:
        return None
    numbers = [int(number) if number else None for number in text.split(",")]
    return Limits(**dict(zip(_LIMIT_NAMES, numbers, strict=True)))


_LIMIT_NAMES = (
    "cost_nano_usd",
    "tokens",
    "steps",
    "model_calls",
    "tool_calls",
    "wall_time_ms",
)
