"""Weights: how many tokens a text may have, guessed from its bytes. Keeps no text.

Vocabularies cut texts alike: words are long tokens, digits and signs short ones. The
weights are fitted to `o200k_base` over prose in Latin, Cyrillic, Arabic, Devanagari
and Chinese writing, code, JSON, tool definitions and columns of numbers: what they
say of any of these is within a third, where bytes are off by a factor of 5.
"""

__all__ = ["MEDIA_PART_WEIGHT", "MESSAGE_WEIGHT", "weight_of"]

WEIGHT_OF_TOKEN = 100
"""The unit is a hundredth of a token."""

LETTER, SIGN, SPACE, HIGH_BYTE = 22, 60, 6, 18
"""Of one byte. A sign is a digit or a mark; a high byte is of other writing."""

MESSAGE_WEIGHT = 4 * WEIGHT_OF_TOKEN
"""Role and separators around one message; 3 or 4 in the published templates."""

MEDIA_PART_WEIGHT = 1_000 * WEIGHT_OF_TOKEN
"""One image of ordinary size; vision models bill 85 to 4,800 tokens."""

SAMPLED_CHARACTERS = 4_096
"""Of a longer text two pieces of this length stand for all of it: 10 us."""

KNOWN_MAX = 8_192
"""Weights that are remembered: 1 MB."""

_LETTERS = bytes(range(ord("A"), ord("Z") + 1)) + bytes(range(ord("a"), ord("z") + 1))
_SPACES = b" \t\r\n"
_HIGH = bytes(range(0x80, 0x100))


def weight_of(text: str) -> int:
    """Returns a guess of the tokens of a text, in hundredths."""
    key = hash(text)
    known = _known.get(key)
    if known is not None:
        return known
    if len(_known) >= KNOWN_MAX:
        _known.clear()
    weight = _known[key] = _guessed(text)
    return weight


_known: dict[int, int] = {}
"""By hash, which Python keeps with a text and seeds anew in each process: a history
is weighed before every call, and most of it was before."""


def _guessed(text: str) -> int:
    if len(text) <= 2 * SAMPLED_CHARACTERS:
        return _weight(text)
    # From the beginning and the middle: ends are often the rest of a list.
    middle = len(text) // 2
    sampled = text[:SAMPLED_CHARACTERS] + text[middle : middle + SAMPLED_CHARACTERS]
    return _weight(sampled) * len(text) // len(sampled)


def _weight(text: str) -> int:
    data = text.encode("utf-8", "surrogatepass")
    other = data.translate(None, _LETTERS)
    spaces = len(other) - len(other.translate(None, _SPACES))
    high = 0 if text.isascii() else len(other) - len(other.translate(None, _HIGH))
    signs = len(other) - spaces - high
    letters = len(data) - len(other)
    return letters * LETTER + signs * SIGN + spaces * SPACE + high * HIGH_BYTE
