"""Delivery: one HTTP request to a receiver that may be slow, hostile or away.

It takes five seconds at most, name resolution aside: every wait is given what is left
of them. It connects to the very address that it has checked, so that a name that
stands for another machine a moment later gets nothing, and it follows no redirect.
A proxy is not used: it would look names up itself.

It speaks to httpcore2, the lower half of httpx2, because that lets it choose the
address, and because it logs no URL.
"""

import contextlib
import email.utils
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpcore2

from guardrails.alerts.addresses import is_allowed, target
from guardrails.ports import Clock

__all__ = [
    "DEADLINE_MS",
    "Answer",
    "Delivery",
    "Outcome",
    "Post",
    "Resolver",
    "resolved",
]

DEADLINE_MS = 5_000
"""For all of a request. Receivers that work answer in a fraction of it."""

ANSWER_BYTES_MAX = 65_536
"""Read of an answer. Nothing in it is of use, and it may never end."""

RETRY_AFTER_MS_MAX = 900_000
"""A receiver cannot silence alerts for longer than a quarter of an hour."""

ADDRESSES_MAX = 4
"""Tried in turn: an IPv6 address may be of no use here."""

_WORD = re.compile(rb"[a-z][a-z_]{0,39}")
"""What Slack answers, such as `no_service`."""

_AGAIN = frozenset((408, 425, 429))
"""What else is worth another attempt, beside a server's own failures."""

Resolver = Callable[[str, int], Sequence[str]]
"""Returns the IP addresses of a host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """What is sent, and where to."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    allow_private: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of it."""

    status: int | None = None
    """Of HTTP; `None` if there was no answer."""
    text: str = ""
    """For people: a word of the receiver, or what went wrong."""
    is_final: bool = False
    """Whether another attempt would fare no better."""
    retry_after_ms: int | None = None
    """How long the receiver asks to be left alone."""

    @property
    def is_delivered(self) -> bool:
        """Whether the receiver took it."""
        return self.status is not None and 200 <= self.status < 300


class Outcome(Exception):
    """Nothing was sent, for a reason of ours."""


class Delivery:
    """Posts to receivers. One thread at a time.

    Args:
        clock: Says when the time is up.
        resolve: Looks names up.
        tls: What certificates are trusted; by default those the system trusts.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        resolve: Resolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._clock = clock
        self._resolve = resolve or resolved
        self._tls = tls

    def post(self, post: Post, *, within_ms: int = DEADLINE_MS) -> Answer:
        """Sends a request and reads the answer. Never raises.

        Args:
            post: The request.
            within_ms: How long it may take.
        """
        until_ms = self._clock.monotonic_ms() + min(within_ms, DEADLINE_MS)
        try:
            return self._post(post, _Deadline(self._clock, until_ms))
        except Outcome as error:
            return Answer(text=str(error), is_final=True)
        except (httpcore2.TimeoutException, TimeoutError):
            return Answer(text="no answer in time")
        except Exception as error:
            # Only the type: a library's text may hold the URL.
            return Answer(text=f"no connection ({type(error).__name__})")

    def _post(self, post: Post, deadline: "_Deadline") -> Answer:
        scheme, host, port, path = target(post.url)
        if self._tls is None and scheme == "https":
            self._tls = httpcore2.default_ssl_context()
        backend = _Backend(
            self._resolve, deadline=deadline, allow_private=post.allow_private
        )
        url = httpcore2.URL(scheme=scheme, host=host, port=port, target=path)
        headers = {"user-agent": "guardrails-runtime", "connection": "close"}
        pool = httpcore2.ConnectionPool(ssl_context=self._tls, network_backend=backend)
        with (
            pool,
            pool.stream(
                "POST",
                url,
                headers=_encoded({**headers, **post.headers, "host": _host(url)}),
                content=post.body,
            ) as response,
        ):
            read = _start_of(response.iter_stream())
            found = _encoded_lower(response.headers)
            return _answer(response.status, found, read, now_ms=self._clock.now_ms())


def resolved(host: str, port: int) -> Sequence[str]:
    """Asks the system for the addresses of a host."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _answer(
    status: int, headers: Mapping[bytes, bytes], read: bytes, *, now_ms: int
) -> Answer:
    word = read.strip()
    is_final = status < 500 and status not in _AGAIN
    return Answer(
        status=status,
        text=word.decode() if _WORD.fullmatch(word) else "",
        is_final=is_final,
        retry_after_ms=_retry_after_ms(headers.get(b"retry-after"), now_ms=now_ms),
    )


def _retry_after_ms(value: bytes | None, *, now_ms: int) -> int | None:
    """Reads seconds or a date; RFC 9110, section 10.2.3."""
    text = (value or b"").decode("latin-1").strip()
    if text.isascii() and text.isdigit():
        # Cut before it is converted: it may have any number of digits.
        seconds = int(text[:9]) if len(text.lstrip("0")) < 10 else RETRY_AFTER_MS_MAX
        return min(seconds * 1000, RETRY_AFTER_MS_MAX)
    with contextlib.suppress(ValueError, OverflowError, IndexError, TypeError):
        at_ms = round(email.utils.parsedate_to_datetime(text).timestamp() * 1000)
        return min(max(0, at_ms - now_ms), RETRY_AFTER_MS_MAX)
    return None


def _start_of(chunks: Iterable[bytes]) -> bytes:
    """Reads a stream up to the bound.

    A receiver that breaks off has said before, by the status, whether it took the
    message: sent again, people would be told again.
    """
    read = b""
    with contextlib.suppress(
        TimeoutError,
        httpcore2.TimeoutException,
        httpcore2.NetworkError,
        httpcore2.RemoteProtocolError,
    ):
        for chunk in chunks:
            read += chunk
            if len(read) >= ANSWER_BYTES_MAX:
                break
    return read[:ANSWER_BYTES_MAX]


def _host(url: "httpcore2.URL") -> str:
    host = url.host.decode()
    name = f"[{host}]" if ":" in host else host
    default = 443 if url.scheme == b"https" else 80
    return name if url.port in (None, default) else f"{name}:{url.port}"


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def _encoded_lower(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    return {name.lower(): value for name, value in headers}


class _Deadline:
    """Says how much time is left."""

    def __init__(self, clock: Clock, until_ms: int) -> None:
        self._clock = clock
        self._until_ms = until_ms

    def left_s(self) -> float:
        """Returns what is left; raises when that is nothing."""
        left_ms = self._until_ms - self._clock.monotonic_ms()
        if left_ms <= 0:
            raise TimeoutError
        return left_ms / 1000


class _Backend(httpcore2.SyncBackend):
    """Connects to addresses that were checked, and to nothing else."""

    def __init__(
        self, resolve: Resolver, *, deadline: _Deadline, allow_private: bool
    ) -> None:
        self._resolve = resolve
        self._deadline = deadline
        self._allow_private = allow_private

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """Looks a name up once, checks what it stands for, and connects to that."""
        try:
            addresses = self._resolve(host, port)
        except OSError:
            raise httpcore2.ConnectError("its name is not known") from None
        # All of them: a name that is also an internal one is not to be trusted.
        if not addresses or not all(
            is_allowed(address, allow_private=self._allow_private)
            for address in addresses
        ):
            raise Outcome("its name stands for an address that is not public")
        failure: Exception | None = None
        for address in addresses[:ADDRESSES_MAX]:
            try:
                stream = super().connect_tcp(address, port, self._deadline.left_s())
            except httpcore2.ConnectError as error:
                failure = error
            else:
                return _Stream(stream, self._deadline)
        assert failure is not None
        raise failure


class _Stream(httpcore2.NetworkStream):
    """A stream on which every wait ends when the whole request has to."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: _Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Reads what is there, or waits for it."""
        return self._stream.read(max_bytes, self._deadline.left_s())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Writes everything."""
        self._stream.write(buffer, self._deadline.left_s())

    def close(self) -> None:
        """Closes the connection."""
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        """Shakes hands. The certificate has to be that of the name."""
        stream = self._stream.start_tls(
            ssl_context, server_hostname, self._deadline.left_s()
        )
        return _Stream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """Returns what the connection knows of itself."""
        return self._stream.get_extra_info(info)
