"""A provider on loopback: answers as a script says, and keeps its own bill.

It speaks Anthropic's Messages API and Gemini's, whole and as streams, and bills by
their public rules (price lists of 2026-11), so that what real integrations make of its
answers can be compared with the bill to the last nano-USD.
"""

import base64
import json
import socket
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

CLAUDE = "claude-sonnet-4-5-20250929"
GEMINI = "gemini-2.5-pro"

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmM"
    "IQAAAABJRU5ErkJggg=="
)
"""An image of one pixel, as PNG."""

RESET = b"\1\0\0\0\0\0\0\0"
"""Of `SO_LINGER`: a connection that is closed so is reset."""

THREAD_SECONDS_MAX = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the provider answers to one request."""

    body: object = None
    """The whole answer, if it is none in parts."""
    parts: Sequence[Mapping[str, Any]] = ()
    sent: int | None = None
    """Parts after which the connection is reset; `None` sends all."""
    billed_nano_usd: int = 0


class Provider:
    """Gives its answers, one to each request, in their order."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = deque(answers)
        self.bill_nano_usd = 0
        self.requests: list[Any] = []
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                """Says nothing."""

            def do_POST(self) -> None:
                size = int(self.headers.get("content-length", 0))
                provider.requests.append(json.loads(self.rfile.read(size)))
                answer = provider._answers.popleft()
                provider.bill_nano_usd += answer.billed_nano_usd
                try:
                    _send(self, answer)
                except ConnectionError:  # Its reader has left.
                    self.close_connection = True

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # What waits for its client's next request ends with its client.
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(THREAD_SECONDS_MAX)


def _send(request: BaseHTTPRequestHandler, answer: Answer) -> None:
    # Each connection is for one request, so that its thread ends.
    request.close_connection = True
    request.send_response(200)
    request.send_header("connection", "close")
    if not answer.parts:
        body = json.dumps(answer.body).encode()
        request.send_header("content-type", "application/json")
        request.send_header("content-length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)
        return
    request.send_header("content-type", "text/event-stream")
    request.end_headers()
    for part in answer.parts[: answer.sent]:
        name = f"event: {part['type']}\n" if "type" in part else ""
        request.wfile.write(f"{name}data: {json.dumps(part)}\n\n".encode())
        request.wfile.flush()
    if answer.sent is not None:
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        request.connection.close()


# --- Anthropic ------------------------------------------------------------------


def claude_usage(
    fresh: int = 1_000,
    output: int = 200,
    *,
    read: int = 0,
    written_5m: int = 0,
    written_1h: int = 0,
    **more: Any,
) -> dict[str, Any]:
    """What Claude says that it used."""
    return {
        "input_tokens": fresh,
        "output_tokens": output,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written_5m + written_1h,
        "cache_creation": {
            "ephemeral_5m_input_tokens": written_5m,
            "ephemeral_1h_input_tokens": written_1h,
        },
        "service_tier": "standard",
        **more,
    }


def claude_bill(usage: Mapping[str, Any]) -> int:
    """Bills Claude Sonnet 4.5 in nano-USD; above 200,000 tokens all is dearer."""
    written = usage["cache_creation"]
    long_lived = written["ephemeral_1h_input_tokens"]
    short_lived = written["ephemeral_5m_input_tokens"]
    fresh, read = usage["input_tokens"], usage["cache_read_input_tokens"]
    is_long = fresh + read + short_lived + long_lived > 200_000
    half_cents = fresh * 2 + read * 0.2 + short_lived * 2.5 + long_lived * 4
    tokens = half_cents * 1_500 * (2 if is_long else 1)
    output = usage["output_tokens"] * (22_500 if is_long else 15_000)
    searches = usage.get("server_tool_use", {}).get("web_search_requests", 0)
    return round(tokens + output) + searches * 10_000_000


def claude_says(used: Mapping[str, Any], /, **members: Any) -> Answer:
    """A whole answer of Claude, and what it has instead of what it should have."""
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": CLAUDE,
        "content": [{"type": "text", "text": "hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": used,
        **members,
    }
    return Answer(body=body, billed_nano_usd=claude_bill(used))


def claude_streams(
    usage: Mapping[str, Any], *, words: Sequence[str] = ("hello", " there"), **how: Any
) -> Answer:
    """An answer of Claude in parts, of which the last says what was used."""
    began = {**usage, "output_tokens": 1}
    message = claude_says(usage, usage=began, content=[], stop_reason=None).body
    text = [
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": word},
        }
        for word in words
    ]
    parts = [
        {"type": "message_start", "message": message},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        },
        *text,
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": usage,
        },
        {"type": "message_stop"},
    ]
    return Answer(parts=parts, billed_nano_usd=claude_bill(usage), **how)


# --- Gemini ---------------------------------------------------------------------


def gemini_usage(
    prompt: int = 1_000,
    output: int = 200,
    *,
    thoughts: int = 0,
    cached: int = 0,
    by_tools: int = 0,
) -> dict[str, int]:
    """What Gemini says that it used. It leaves thoughts out of the output."""
    return {
        "promptTokenCount": prompt,
        "candidatesTokenCount": output,
        "thoughtsTokenCount": thoughts,
        "cachedContentTokenCount": cached,
        "toolUsePromptTokenCount": by_tools,
        "totalTokenCount": prompt + output + thoughts + by_tools,
    }


def gemini_bill(usage: Mapping[str, int], *, prompts_with_search: int = 0) -> int:
    """Bills Gemini 2.5 Pro in nano-USD; above 200,000 tokens all is dearer."""
    read = usage["promptTokenCount"] + usage["toolUsePromptTokenCount"]
    written = usage["candidatesTokenCount"] + usage["thoughtsTokenCount"]
    cached = usage["cachedContentTokenCount"]
    rates = (2_500, 250, 15_000) if read > 200_000 else (1_250, 125, 10_000)
    fresh_rate, cached_rate, output_rate = rates
    tokens = (read - cached) * fresh_rate + cached * cached_rate + written * output_rate
    return tokens + prompts_with_search * 35_000_000


def _gemini_part(
    part: Mapping[str, Any],
    usage: Mapping[str, int],
    *,
    is_last: bool,
    **candidate: Any,
) -> dict[str, Any]:
    if is_last:
        candidate["finishReason"] = "STOP"
    content = {"parts": [part], "role": "model"}
    return {
        "candidates": [{"content": content, "index": 0, **candidate}],
        "usageMetadata": usage,
        "modelVersion": GEMINI,
    }


def gemini_says(usage: Mapping[str, int], *, queries: Sequence[str] = ()) -> Answer:
    """A whole answer of Gemini, which may have searched."""
    more = {"groundingMetadata": {"webSearchQueries": queries}} if queries else {}
    bill = gemini_bill(usage, prompts_with_search=bool(queries))
    body = _gemini_part({"text": "hello"}, usage, is_last=True, **more)
    return Answer(body=body, billed_nano_usd=bill)


def gemini_hears(*, text: int, sound: int, output: int) -> Answer:
    """An answer of Gemini 2.5 Flash, for which sound costs more than text."""
    body = _gemini_part(
        {"text": "hello"}, gemini_usage(text + sound, output), is_last=True
    )
    bill = text * 300 + sound * 1_000 + output * 2_500
    return Answer(
        body={**body, "modelVersion": "gemini-2.5-flash"}, billed_nano_usd=bill
    )


def gemini_draws(*, prompt: int, thoughts: int, image: int) -> Answer:
    """An image of Gemini 2.5 Flash Image, of which tokens cost more than text."""
    data = {"mimeType": "image/png", "data": base64.b64encode(PIXEL).decode()}
    usage = gemini_usage(prompt, image, thoughts=thoughts)
    body = _gemini_part({"inlineData": data}, usage, is_last=True)
    bill = prompt * 300 + thoughts * 2_500 + image * 30_000
    return Answer(
        body={**body, "modelVersion": "gemini-2.5-flash-image"}, billed_nano_usd=bill
    )


def gemini_streams(*usages: Mapping[str, int], **how: Any) -> Answer:
    """An answer of Gemini in parts, each of which says what was used until then."""
    last = len(usages) - 1
    parts = [
        _gemini_part({"text": f"word {number} "}, usage, is_last=number == last)
        for number, usage in enumerate(usages)
    ]
    return Answer(parts=parts, billed_nano_usd=gemini_bill(usages[-1]), **how)
