"""Fingerprints: keyed digests of arguments and results, never their content.

A value is written out once, canonically, and hashed. The text is type-tagged and
length-prefixed, so that `["a", "b"]` and `["ab"]`, or `1`, `True` and `"1"`,
never look alike. It is written level by level, not by recursion: depth costs no
stack. Each bound below cuts what is written, never what is counted, so a cut
value still says how long it is, and says the same every time.

Values are read with `plain`, so that nothing here runs their code.
"""

from collections.abc import Callable, Collection, Iterable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from hashlib import blake2b
from itertools import repeat
from operator import itemgetter
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any, cast
from uuid import UUID

from guardrails.core.plain import (
    DEPTH_MAX,
    DICT,
    LIST,
    NODES_MAX,
    contained,
    fields,
    nodes_of,
    type_name,
)
from guardrails.core.tracebacks import let_through

__all__ = ["fingerprint"]

DIGEST_BYTES = 16
"""128 bits: no accidental collision among all calls that were ever made."""

STRING_CHARACTERS_MAX = 65_536
"""Hashed of one string, half from each end: the whole of most source files."""

TEXT_CHARACTERS_MAX = 2**17
"""Hashed of all strings together: two of the longest."""

SHORT_CHARACTERS = 16
"""Strings up to here are hashed whole, however many there are."""

KEY_PARTS_MAX = 16
"""Parts that are looked at of a tuple that is a key or an element of a set."""

FLAT_ITEMS_MAX = 32
"""Items of a dict that is written in one go."""

FLAT_CHARACTERS_MAX = 2_000
"""Of each name and value there: all together fit into `TEXT_CHARACTERS_MAX`."""

INTEGER_BITS_MAX = 1_024
"""Hashed of one integer. Longer ones are no arguments, and slow to write out."""

EXACT_INTEGERS_BELOW = 2.0**53
"""Below it every integer is a double, and models write `1` and `1.0` alike."""


def fingerprint(
    value: object, *, key: bytes, label: str = "", ignore: Collection[str] = ()
) -> str:
    """Returns the keyed digest of a value, as 32 hex digits.

    Alike are: dicts in any key order, tuples and lists, `1` and `1.0`, a subclass
    and its built-in base. Different are: `True` and `1`, `None` and an absent key,
    lists in another order, texts in another Unicode form. An object that is no
    plain data counts as the name of its type.

    It never raises because of `value`, calls none of its methods and consumes no
    iterator. It takes microseconds for the arguments of a usual tool call, and at
    most about 5 ms for any value. Two values that are alike within the bounds of
    this module, and equally long beyond them, share a digest.

    Args:
        value: Anything. It may contain itself.
        key: 1 to 64 secret bytes, one secret per deployment. Without a secret,
            short arguments could be guessed from their digest.
        label: Sets digests of one purpose apart, such as the name of a tool.
        ignore: Keys to leave out if `value` is a dict; not those of dicts in it.

    Raises:
        ValueError: If `key` is empty or longer than 64 bytes.
    """
    if not 0 < len(key) <= blake2b.MAX_KEY_SIZE:
        raise ValueError(f"key: {len(key)} bytes; it must have 1 to 64 bytes.")
    try:
        text = _canonical_text(value, ignore=ignore)
    # The value changes in another thread, or memory is short.
    except Exception as error:
        let_through(error)
        text = f"?{_type_text(type(value))}"
    # Lone surrogates arrive in JSON; "surrogatepass" encodes them, too.
    data = f"{len(label)}:{label}{text}".encode("utf-8", "surrogatepass")
    return blake2b(data, digest_size=DIGEST_BYTES, key=key).hexdigest()


def _canonical_text(value: object, *, ignore: Collection[str]) -> str:
    flat = _flat_text(value, ignore=ignore)
    if flat is not None:
        return flat
    text = _Text()
    if ignore and issubclass(type(value), dict):
        text.write_without(ignore, value)
    else:
        text.write([("", value)])
    for _ in range(DEPTH_MAX):
        opened, text.opened = text.opened, []
        if not opened:
            break
        for kind, members in opened:
            text.write_members(kind, members)
    return "".join(text.parts)


def _flat_text(value: object, *, ignore: Collection[str]) -> str | None:
    """Writes a small dict of scalars, as most arguments are, in a third of the time.

    `None` for everything else. The text is the one that `_Text` writes.
    """
    if type(value) is not dict:
        return _scalar_text(value, TEXT_CHARACTERS_MAX)
    items = cast("dict[object, object]", value)
    if len(items) > FLAT_ITEMS_MAX:
        return None
    parts: list[str] = []
    for name, member in [*items.items()]:
        if type(name) is not str or len(name) > FLAT_CHARACTERS_MAX:
            return None
        if name in ignore:
            continue
        text = _scalar_text(member, TEXT_CHARACTERS_MAX)
        if text is None or len(text) > FLAT_CHARACTERS_MAX:
            return None
        parts.append(f"s{len(name)}:{name}{text}")
    parts.sort()
    return f"{DICT}{len(parts)};{''.join(parts)}"


class _Text:
    """The text so far, and the containers whose members are still to be written.

    A container claims its nodes when it is met. The claims follow the order of the
    text, so that every run cuts a value at the same places.
    """

    __slots__ = ("characters_left", "nodes_left", "opened", "parts")

    def __init__(self) -> None:
        self.characters_left = TEXT_CHARACTERS_MAX
        self.nodes_left = NODES_MAX
        self.opened: list[tuple[str, list[Any]]] = []
        self.parts: list[str] = []

    def write(self, named: Iterable[tuple[str, object]]) -> None:
        """Writes names, and after each its value or the value's kind and length."""
        for name, value in named:
            text = _scalar_text(value, self.characters_left)
            if text is None:
                text = self._open(value)
            self.characters_left -= len(name) + len(text)
            self.parts.append(name + text)

    def write_members(self, kind: str, members: list[Any]) -> None:
        """Writes what is inside a container, in an order of its own."""
        if kind == LIST:
            self.write(zip(repeat(""), members))
            return
        room = self.characters_left // len(members)
        if kind == DICT:
            named = [(_element_text(name, room), member) for name, member in members]
            named.sort(key=itemgetter(0))
            self.write(named)
        else:
            texts = sorted([_element_text(member, room) for member in members])
            self.characters_left -= sum(map(len, texts))
            self.parts += texts

    def write_without(self, names: Collection[str], value: object) -> None:
        """Writes a dict as if it had none of these keys."""
        kind, items, length = contained(value, self.nodes_left) or (DICT, [], 0)
        kept = [
            item for item in items if type(item[0]) is not str or item[0] not in names
        ]
        self.parts.append(self._claim(kind, kept, length - len(items) + len(kept)))

    def _open(self, value: object) -> str:
        kind = type(value)
        if not self.nodes_left and (kind is list or kind is dict):
            # What follows says the same, four times as slowly.
            length = len(cast("list[object] | dict[object, object]", value))
            return f"{LIST if kind is list else DICT}{length};"
        container = contained(value, self.nodes_left)
        if container is not None:
            return self._claim(*container)
        name = _type_text(kind)
        if not self.nodes_left:
            return name
        return name + self._claim(*fields(value, self.nodes_left))

    def _claim(self, kind: str, members: list[Any], length: int) -> str:
        self.nodes_left = max(0, self.nodes_left - nodes_of(kind, members))
        if members:
            self.opened.append((kind, members))
        return f"{kind}{length};"


def _type_text(kind: type) -> str:
    name = type_name(kind)
    return f"o{len(name)}:{name}"


def _element_text(value: object, characters_left: int) -> str:
    """Writes a key or an element of a set: something that is sorted."""
    text = _scalar_text(value, characters_left)
    if text is not None:
        return text
    if type(value) is not tuple:
        return _type_text(type(value))
    parts = cast("tuple[object, ...]", value)
    texts = [
        _scalar_text(part, SHORT_CHARACTERS) or _type_text(type(part))
        for part in parts[:KEY_PARTS_MAX]
    ]
    return f"{LIST}{len(parts)};{''.join(texts)}"


def _scalar_text(value: Any, characters_left: int) -> str | None:
    """Writes a value that has no members; `None` for any other."""
    kind = cast("type[object]", type(value))
    if kind is str:
        length = len(value)
        if length <= SHORT_CHARACTERS or (
            length <= characters_left and length <= STRING_CHARACTERS_MAX
        ):
            return f"s{length}:{value}"
        if characters_left <= SHORT_CHARACTERS:
            return f"s{length}/0:"  # What `_cut_text` says, ten times as fast.
        return _cut_text("s", str, value, characters_left)
    if kind is int:
        return _integer_text(value, characters_left)
    if value is None:
        return "n"
    if kind is bool:
        return "t" if value else "f"
    if kind is float:
        return _float_text(value)
    if kind is dict or kind is list:
        return None
    return _other_scalar_text(value, kind, characters_left)


def _other_scalar_text(
    value: object, kind: type[Any], characters_left: int
) -> str | None:
    """Writes bytes, scalars of the standard library, and subclasses of scalars."""
    if issubclass(kind, str):
        return _cut_text("s", str, value, characters_left)
    if issubclass(kind, (bytes, bytearray)):
        base: type[Any] = bytes if issubclass(kind, bytes) else bytearray
        return _cut_text("b", base, value, characters_left)
    if issubclass(kind, int):
        return _integer_text(int.__int__(cast("int", value)), characters_left)
    if issubclass(kind, float):
        return _float_text(float.__float__(cast("float", value)))
    text = _standard_text(value)
    if text is None:
        return None
    return _type_text(kind) + _cut_text("s", str, text, characters_left)


def _cut_text(tag: str, base: type[Any], value: object, characters_left: int) -> str:
    """Writes a string within the bounds: its length, and both ends of it.

    `base` is the built-in type whose methods read `value`.
    """
    length = base.__len__(value)
    room = min(characters_left, STRING_CHARACTERS_MAX)
    if length <= max(room, SHORT_CHARACTERS):
        return f"{tag}{length}:{_decoded(base.__getitem__(value, slice(None)))}"
    half = room // 2 if room > SHORT_CHARACTERS else 0
    head = _decoded(base.__getitem__(value, slice(half)))
    tail = _decoded(base.__getitem__(value, slice(length - half, None)))
    return f"{tag}{length}/{half}:{head}{tail}"


def _decoded(value: str | bytes | bytearray) -> str:
    # Latin-1 maps each byte to the character of the same number.
    return value if isinstance(value, str) else value.decode("latin-1")


def _integer_text(value: int, characters_left: int) -> str:
    bits = value.bit_length()
    if bits <= 64:
        return f"i{value};"
    # Hexadecimal: the interpreter refuses to write long integers in decimal.
    if characters_left <= INTEGER_BITS_MAX:
        return f"i{'-' if value < 0 else ''}{bits}/;"
    return f"i{bits}/{value >> max(0, bits - INTEGER_BITS_MAX):x};"


def _float_text(value: float) -> str:
    if -EXACT_INTEGERS_BELOW < value < EXACT_INTEGERS_BELOW and value.is_integer():
        return f"i{int(value)};"
    return f"r{value.hex()};"


def _standard_text(value: object) -> str | None:
    """Writes a scalar of the standard library, such as a date; `None` for others.

    Exact types only: the methods of a subclass are the user's.
    """
    kind = type(value)
    for standard, written in _STANDARD:
        if kind is standard:
            return written(value)
    return None


def _clock_text(value: Any) -> str:
    """Writes a `datetime` or `time`; a zone of the user's own is not asked."""
    zone: object = value.tzinfo
    zone_text = str(zone) if type(zone) is timezone else type_name(type(zone))
    return f"{value.replace(tzinfo=None).isoformat()} {value.fold} {zone_text}"


_STANDARD: tuple[tuple[type, Callable[[Any], str]], ...] = (
    (datetime, _clock_text),
    (date, date.isoformat),
    (time, _clock_text),
    (timedelta, str),
    (timezone, str),
    (Decimal, str),
    (UUID, str),
    *((path, str) for path in (PosixPath, PurePosixPath, WindowsPath, PureWindowsPath)),
)
