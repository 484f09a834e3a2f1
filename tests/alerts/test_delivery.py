"""Delivery: in time and to the right machine, however the receiver behaves."""

import socket
from collections.abc import Callable
from email.utils import formatdate

import pytest

from guardrails.alerts.delivery import (
    ANSWER_BYTES_MAX,
    RETRY_AFTER_MS_MAX,
    Answer,
    Delivery,
    Post,
)
from guardrails.system.clock import SystemClock
from guardrails.testing import FakeClock
from tests.alerts.conftest import Certificates, Receiver, answering

Start = Callable[..., Receiver]

WITHIN_MS = 400
"""What tests of a slow receiver give it, instead of five seconds."""


def post(
    url: str,
    *,
    within_ms: int = 5_000,
    allow_private: bool = True,
    delivery: Delivery | None = None,
) -> Answer:
    delivery = delivery or Delivery(clock=SystemClock())
    content = Post(
        url=url,
        headers={"content-type": "application/json"},
        body=b"{}",
        allow_private=allow_private,
    )
    return delivery.post(content, within_ms=within_ms)


def ends_in_time(answer: Callable[[], Answer]) -> Answer:
    clock = SystemClock()
    began_ms = clock.monotonic_ms()
    found = answer()
    assert clock.monotonic_ms() - began_ms < 4_000, "as long as the receiver liked"
    return found


def test_a_message_arrives_as_it_was_sent(receive: Start) -> None:
    receiver = receive()

    answer = post(receiver.url() + "?a=b")

    assert (answer.status, answer.text, answer.is_delivered) == (200, "ok", True)
    [(headers, body)] = receiver.requests
    assert body == b"{}"
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert headers["content-type"] == "application/json"
    assert headers["content-length"] == "2"


def test_an_answer_without_content_is_one(receive: Start) -> None:
    answer = post(receive(answering("204 No Content", body=b"")).url())
    assert (answer.status, answer.is_delivered) == (204, True)


def test_html_is_not_repeated(receive: Start) -> None:
    page = b"<html>hunter2</html>"
    answer = post(receive(answering("200 OK", body=page)).url())
    assert answer == Answer(status=200, is_final=True)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(receive: Start, status: int) -> None:
    target = receive()
    talk = answering(f"{status} Elsewhere", f"location: {target.url()}")

    answer = post(receive(talk).url())

    assert (answer.status, answer.is_delivered, answer.is_final) == (
        status,
        False,
        True,
    )
    assert not target.requests


@pytest.mark.parametrize(
    ("status", "is_final"),
    [
        *((400, True), (403, True), (404, True), (410, True)),
        *((408, False), (429, False), (500, False), (503, False)),
    ],
)
def test_what_may_pass_is_tried_again(
    receive: Start, status: int, is_final: bool
) -> None:
    answer = post(receive(answering(f"{status} No", body=b"no_service")).url())
    assert answer == Answer(status=status, text="no_service", is_final=is_final)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("7", 7_000),
        ("0", 0),
        ("901", RETRY_AFTER_MS_MAX),
        ("9" * 5_000, RETRY_AFTER_MS_MAX),
        ("-1", None),
        ("soon", None),
        ("", None),
        (formatdate(FakeClock().now_ms() / 1000 + 30, usegmt=True), 30_000),
        (formatdate(FakeClock().now_ms() / 1000 - 30, usegmt=True), 0),
        (formatdate(FakeClock().now_ms() / 1000 + 86_400), RETRY_AFTER_MS_MAX),
    ],
)
def test_a_receiver_may_ask_for_a_pause(
    receive: Start, value: str, expected: int | None
) -> None:
    receiver = receive(answering("429 Slow Down", f"retry-after: {value}"))
    answer = post(receiver.url(), delivery=Delivery(clock=FakeClock()))
    assert answer.retry_after_ms == expected


def test_a_receiver_that_hangs_is_left(receive: Start) -> None:
    receiver = receive(lambda connection: receiver.ended.wait(10) and None)
    answer = ends_in_time(lambda: post(receiver.url(), within_ms=WITHIN_MS))
    assert answer == Answer(text="no answer in time")


@pytest.mark.parametrize(
    ("head", "status"),
    [(b"HTTP/1.1 200 OK\r\n", None), (b"HTTP/1.1 200 OK\r\n\r\n", 200)],
)
def test_a_receiver_that_drips_is_left(
    receive: Start, head: bytes, status: int | None
) -> None:
    """Neither a header nor a body keeps us, although no single wait is long.

    Whoever has said that it took the message is not sent it again.
    """

    def drip(connection: socket.socket) -> None:
        connection.sendall(head)
        while not receiver.ended.wait(0.02):
            connection.sendall(b"x")

    receiver = receive(drip)
    answer = ends_in_time(lambda: post(receiver.url(), within_ms=WITHIN_MS))
    assert (answer.status, answer.is_delivered) == (status, status is not None)


def test_an_answer_that_breaks_off_is_one(receive: Start) -> None:
    """It announces more than it sends, as faulty receivers do."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"
    answer = post(receive(lambda connection: connection.sendall(head + b"ok")).url())
    assert answer.is_delivered


def test_an_answer_without_end_is_not_read(receive: Start) -> None:
    sent = 0

    def pour(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not receiver.ended.is_set():
            sent += connection.send(b"x" * 65_536)

    receiver = receive(pour)
    answer = post(receiver.url())

    assert answer.is_delivered
    assert sent < 100 * ANSWER_BYTES_MAX  # What fits into the buffers of the system.


def test_a_connection_that_breaks_is_told_by_its_kind(receive: Start) -> None:
    def reset(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    answer = post(receive(reset).url())
    assert answer.status is None
    assert not answer.is_final
    assert answer.text.startswith("no connection (")


def test_a_closed_port_is_told_by_its_kind(receive: Start) -> None:
    receiver = receive()
    url = receiver.url()
    receiver.close()
    assert post(url) == Answer(text="no connection (ConnectError)")


# --- TLS --------------------------------------------------------------------


def test_a_certificate_has_to_be_that_of_the_name(
    receive: Start, certificates: Certificates
) -> None:
    receiver = receive(tls=certificates.server)

    def to(name: str) -> Answer:
        delivery = Delivery(
            clock=SystemClock(),
            resolve=lambda host, port: ["127.0.0.1"],
            tls=certificates.client,
        )
        return post(receiver.url(name), delivery=delivery)

    assert to("alerts.example.org").is_delivered
    assert receiver.requests[0][0]["host"] == f"alerts.example.org:{receiver.port}"
    assert to("other.example.org") == Answer(text="no connection (ConnectError)")
    assert len(receiver.requests) == 1


def test_a_certificate_has_to_be_of_somebody_the_system_trusts(
    receive: Start, certificates: Certificates
) -> None:
    receiver = receive(tls=certificates.server)
    delivery = Delivery(clock=SystemClock(), resolve=lambda host, port: ["127.0.0.1"])
    answer = post(receiver.url("alerts.example.org"), delivery=delivery)
    assert answer == Answer(text="no connection (ConnectError)")
    assert not receiver.requests


def test_a_handshake_that_hangs_is_left(receive: Start) -> None:
    receiver = receive()  # It reads a request, and a handshake is none.
    url = receiver.url("alerts.example.org").replace("http:", "https:")
    delivery = Delivery(clock=SystemClock(), resolve=lambda host, port: ["127.0.0.1"])
    answer = ends_in_time(lambda: post(url, within_ms=WITHIN_MS, delivery=delivery))
    assert answer == Answer(text="no answer in time")


# --- where to ---------------------------------------------------------------


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["::1"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["::ffff:127.0.0.1"],
        ["93.184.216.34", "127.0.0.1"],  # One that is public hides none that is not.
        ["127.0.0.1", "93.184.216.34"],
        [],
    ],
)
def test_a_name_that_stands_for_an_internal_address_gets_nothing(
    receive: Start, addresses: list[str]
) -> None:
    receiver = receive()
    delivery = Delivery(clock=SystemClock(), resolve=lambda host, port: addresses)

    url = receiver.url("alerts.example.org")
    answer = post(url, allow_private=False, delivery=delivery)

    assert answer.is_final
    assert answer.text == "its name stands for an address that is not public"
    assert not receiver.requests


def test_a_name_is_looked_up_once_so_that_it_cannot_change_meanwhile(
    receive: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rebinding resolver: public for whoever checks, internal for whoever connects.

    What is connected to is what was checked: here an address that nobody has, which
    the system is not asked for; the socket's module sees which.
    """
    receiver = receive()
    answers = iter([["93.184.216.34"], ["127.0.0.1"]])
    asked: list[str] = []
    connected: list[tuple[str, int]] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    def connect(address: tuple[str, int], *args: object, **options: object) -> None:
        connected.append(address)
        raise OSError

    monkeypatch.setattr(socket, "create_connection", connect)
    delivery = Delivery(clock=SystemClock(), resolve=resolve)
    answer = post(
        receiver.url("alerts.example.org"), allow_private=False, delivery=delivery
    )

    assert asked == ["alerts.example.org"]
    assert connected == [("93.184.216.34", receiver.port)]
    assert answer == Answer(text="no connection (ConnectError)")
    assert not receiver.requests


def test_the_next_address_is_tried_if_the_first_does_not_answer(receive: Start) -> None:
    receiver = receive()
    delivery = Delivery(
        clock=SystemClock(), resolve=lambda host, port: ["::1", "127.0.0.1"]
    )
    assert post(receiver.url("here.example.org"), delivery=delivery).is_delivered


def test_a_name_that_is_not_known_may_be_later() -> None:
    def resolve(host: str, port: int) -> list[str]:
        raise socket.gaierror

    delivery = Delivery(clock=SystemClock(), resolve=resolve)
    answer = post("https://alerts.example.org/", delivery=delivery)
    assert answer == Answer(text="no connection (ConnectError)")


def test_a_proxy_of_the_environment_is_not_used(
    receive: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, receiver = receive(), receive()
    monkeypatch.setenv("HTTP_PROXY", proxy.url())
    monkeypatch.setenv("ALL_PROXY", proxy.url())
    assert post(receiver.url()).is_delivered
    assert not proxy.requests
