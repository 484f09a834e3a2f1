"""Documents count by their pages, sounds and films by their time, others by size."""

import base64
import zlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from guardrails import BudgetExceeded
from guardrails.core.estimates import MEDIA_PART_TOKENS_MAX
from guardrails_langchain.reading.media import BYTES_PER_TOKEN_MIN, medium_tokens_max
from tests.integrations.langchain.rig import Rig, says

PAGES = 30
PAGE = b"%d 0 obj <</Type /Page /Parent 2 0 R>> endobj\n"
TREE = b"2 0 obj <</Type /Pages /Count 30>> endobj\n"


def plain_pdf() -> bytes:
    """A document as most programs write it."""
    return b"%PDF-1.4\n" + TREE + b"".join(PAGE % number for number in range(PAGES))


def packed_pdf() -> bytes:
    """One whose objects are compressed, in two streams."""
    halves = [b"".join(PAGE % n for n in range(PAGES // 2)), TREE]
    halves[1] += halves[0]
    streams = [
        b"<</Type /ObjStm /N 16 /Length %d>>\nstream\r\n%b\nendstream\n"
        % (len(packed), packed)
        for packed in map(zlib.compress, halves)
    ]
    return b"%PDF-1.7\n" + b"".join(streams)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def blocks(data: bytes) -> list[Mapping[str, Any]]:
    """The same document as each provider takes it."""
    text, kind = encoded(data), "application/pdf"
    url = f"data:{kind};base64,{text}"
    source = {"type": "base64", "media_type": kind, "data": text}
    return [
        {"type": "file", "base64": text, "mime_type": kind},
        {"type": "file", "source_type": "base64", "data": text, "mime_type": kind},
        {"type": "file", "file": {"file_data": url, "filename": "image.pdf"}},
        {"type": "input_file", "file_data": url, "filename": "image.pdf"},
        {"type": "document", "source": source, "title": "image"},
        {"document": {"format": "pdf", "name": "image", "source": {"bytes": data}}},
        {"type": "media", "mime_type": kind, "data": data},
        {"inline_data": {"mime_type": kind, "data": text}},
    ]


@pytest.mark.parametrize("document", [plain_pdf(), packed_pdf()])
def test_a_document_counts_by_its_pages(document: bytes) -> None:
    for block in blocks(document):
        assert medium_tokens_max(block) == PAGES * MEDIA_PART_TOKENS_MAX, block


@pytest.mark.parametrize(
    ("document", "tokens"),
    [
        (b"%PDF-1.7 encrypted" + b"x" * 99_982, 100_000),
        (b"%PDF-1.7 <</Type /ObjStm>>stream\n broken" + b"x" * 99_960, 100_000),
        (b"a,b\n" * 25_000, 100_000),
        (b"", MEDIA_PART_TOKENS_MAX),
        (b"%PDF-1.4 <</Type /Pages>>", MEDIA_PART_TOKENS_MAX),
    ],
)
def test_what_cannot_be_read_counts_by_its_size(document: bytes, tokens: int) -> None:
    """A token is at least a byte; nothing counts less than an image."""
    for block in blocks(document):
        assert tokens <= medium_tokens_max(block) <= tokens + 2


def test_a_text_that_is_no_base64_harms_nobody() -> None:
    block = {"type": "file", "base64": "JVBERi0x" + "ä" * 9_000}

    assert medium_tokens_max(block) >= MEDIA_PART_TOKENS_MAX


@pytest.mark.parametrize(
    "block",
    [
        {"type": "audio", "data": encoded(b"x" * 900_000)},
        {"type": "input_audio", "input_audio": {"data": encoded(b"x" * 900_000)}},
        {"type": "media", "data": b"x" * 900_000, "mime_type": "video/mp4"},
        {"video": {"format": "mp4", "source": {"bytes": b"x" * 900_000}}},
    ],
)
def test_sounds_and_films_count_by_their_time(block: Mapping[str, Any]) -> None:
    """Of which their bytes are a bound: a minute of speech has 45,000 at least."""
    assert medium_tokens_max(block) == 900_000 // BYTES_PER_TOKEN_MIN


def test_a_long_document_does_not_pass_a_limit() -> None:
    """30 pages cost more than one image: $0.36 at most, at $2.50 per million."""
    rig = Rig(prices=None, max_cost_usd="0.10")
    model = rig.model(says(), input_tokens=90_000)
    prompt = [HumanMessage([dict(blocks(plain_pdf())[0])])]
    with rig.guard.session() as session, pytest.raises(BudgetExceeded):
        model.invoke(prompt)

    assert session.spent == Decimal(0)
    assert rig.record.entries.count("model") == 0
