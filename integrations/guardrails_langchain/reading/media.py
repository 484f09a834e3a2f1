"""Media: bounds of what images, documents, sounds and films are billed as. Pure.

An image counts the same however many bytes it has. Of a document each page is billed
as an image and as text, so pages are counted. Sounds and films are billed by their
time, and other files by their text; their bytes bound both. What is only named, by a
URL or an id, counts as one image, and may be more: see `unseen.py`.
"""

import binascii
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import cast

from guardrails.core.estimates import MEDIA_PART_TOKENS_MAX
from guardrails.core.usage import TOKENS_MAX

__all__ = ["DATA", "is_only_named", "medium_tokens_max", "sound_tokens_max"]

DATA = frozenset(
    {"b64_json", "base64", "bytes", "data", "file_data", "image_url", "result", "url"}
)
"""Members of a medium that hold or name its data; all others are text."""

BYTES_PER_TOKEN_MIN = 16
"""Of sounds and films. Gemini bills 32 tokens per second of sound and 263 of film,
other models fewer (its documentation of tokens, 2026-11); a second of speech has at
least 750 bytes (Opus, RFC 6716, 6 kbit/s)."""

DEPTH_MAX = 4
SCANNED_BYTES_MAX = 16 * 1024 * 1024
"""Of one document, a tenth of a second. The pages of the rest are taken to be alike."""
INFLATED_BYTES_MAX = 4 * 1024 * 1024
"""Of one stream of objects, which holds some hundred of them."""
KNOWN_MAX = 1_024

_PAGE = re.compile(rb"/Type\s*/Page(?![A-Za-z])")
_OBJECTS = re.compile(rb"/ObjStm.{0,512}?stream\r?\n", re.DOTALL)
"""Begins a compressed stream of objects, pages among them (ISO 32000-1, 7.5.7)."""
_DATA_URL = "data:"
_HEAD_CHARS = 64
_KINDS = frozenset({"format", "media_type", "mimeType", "mime_type", "type"})
"""Members that say what a medium is. A file's name is anybody's."""

_NAMED = frozenset(
    {"file_id", "file_uri", "fileUri", "file_url", "s3Location", "uri", "url"}
)
"""Members of a medium that name what is kept elsewhere."""

_known: dict[tuple[int, int], int] = {}
"""Bounds of documents by the length and hash of their data: a history is read again
before every call, and a text is hashed once as long as it is not copied."""


def medium_tokens_max(block: Mapping[str, object]) -> int:
    """Bounds the tokens of a medium, beside its captions."""
    words: list[str] = []
    found = list(_data_in(block, words, DEPTH_MAX))
    said = " ".join(words)
    if not found or "image" in said:
        return MEDIA_PART_TOKENS_MAX
    data = max(found, key=len)
    key = (len(data), hash(data))
    tokens = _known.get(key)
    if tokens is None:
        if len(_known) >= KNOWN_MAX:
            _known.clear()
        is_timed = "audio" in said or "video" in said
        tokens = _known[key] = _tokens_max(data, is_timed=is_timed)
    return tokens


def sound_tokens_max(block: Mapping[str, object]) -> int:
    """Bounds the tokens of a medium that are those of sound, which films have too."""
    words: list[str] = []
    is_held = bool([*_data_in(block, words, DEPTH_MAX)])
    said = " ".join(words)
    if "audio" not in said and "video" not in said:
        return 0
    return medium_tokens_max(block) if is_held else TOKENS_MAX


def is_only_named(block: Mapping[str, object]) -> bool:
    """Whether a medium is named and not held, and may be longer than one image."""
    words: list[str] = []
    if list(_data_in(block, words, DEPTH_MAX)) or "image" in " ".join(words):
        return False
    is_by_id = block.get("source_type") == "id"
    return is_by_id or not _NAMED.isdisjoint(words)


def _data_in(
    block: Mapping[str, object], words: list[str], depth: int
) -> Iterator[str | bytes]:
    """Yields what a block holds of a medium, and notes what it says of its kind."""
    for name, member in block.items():
        words.append(str(name))  # A key may be anything.
        if isinstance(member, bytes):
            yield member
        elif isinstance(member, dict):
            if depth and member.get("type") not in ("content", "text"):
                nested = cast("Mapping[str, object]", member)
                yield from _data_in(nested, words, depth - 1)
        elif isinstance(member, str):
            if name in _KINDS:
                words.append(member)
            elif name in DATA and "://" not in member[:_HEAD_CHARS]:
                if member.startswith(_DATA_URL):
                    words.append(member[:_HEAD_CHARS].partition(",")[0])
                yield member


def _tokens_max(data: str | bytes, *, is_timed: bool) -> int:
    if isinstance(data, str) and data.startswith(_DATA_URL):
        data = data.partition(",")[2]
    size_bytes = len(data) if isinstance(data, bytes) else len(data) * 3 // 4
    if is_timed:
        tokens = size_bytes // BYTES_PER_TOKEN_MIN
    else:
        is_pdf = b"%PDF-" in _decoded(data[:_HEAD_CHARS])
        pages = _pages(_decoded(data)) if is_pdf else 0
        tokens = pages * MEDIA_PART_TOKENS_MAX or size_bytes
    return max(tokens, MEDIA_PART_TOKENS_MAX)


def _decoded(data: str | bytes) -> bytes:
    """Returns the bytes of a base64 text, as far as it is one."""
    if isinstance(data, bytes):
        return data
    try:
        return binascii.a2b_base64(data[: len(data) // 4 * 4])
    except ValueError:
        return b""


def _pages(document: bytes) -> int:
    """Counts the pages of a PDF; 0 if none can be found."""
    seen = memoryview(document)[:SCANNED_BYTES_MAX]
    count = len(_PAGE.findall(seen))
    for objects in _OBJECTS.finditer(seen):
        try:
            text = zlib.decompressobj().decompress(
                seen[objects.end() :], INFLATED_BYTES_MAX
            )
        except zlib.error:
            continue
        count += len(_PAGE.findall(text))
    return -(-count * len(document) // max(1, len(seen)))
