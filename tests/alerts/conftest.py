"""Fixtures: alerts, receivers that behave in many ways, and what posts to them."""

import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from guardrails.alerts import channel, outlet
from guardrails.alerts.samples import samples
from guardrails.core.accounts import StopReason
from guardrails.core.alerting.alerts import Alert
from guardrails.core.alerting.unpriced import Unpriced
from guardrails.core.attribution import Attribution
from guardrails.core.loops import LoopFinding, LoopKind
from guardrails.core.policy import Limits, Measure, OnUnpriced
from guardrails.core.telling import AlertKind

SLACK = "https://hooks.slack.com/services/T00000000/B00000000/hunter2hunter2hunter2"

SECRET = "whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMmh1bnRlcjI="
OLD_SECRET = "whsec_b2xkZXIgaHVudGVyMiBvbGRlciBodW50ZXIyIG9sZGVy"

NOW_MS = 1_764_000_000_000

WHO = Attribution.of(
    project_id="shop",
    customer_id="acme",
    user_id="u-7",
    feature="triage",
    agent="support-agent",
    session_id="ticket-7",
    prompt_version="v12",
    tags={"env": "prod"},
)

FINDING = LoopFinding(
    kind=LoopKind.IDENTICAL,
    tool="maps/geocode",
    arguments_digest="d1",
    count=3,
    cost_nano_usd=15_000_000,
)


def an_alert(kind: AlertKind = AlertKind.SOFT, **changes: Any) -> Alert:
    """Returns an alert as an agent's process makes it."""
    content: dict[str, Any] = {
        "alert_id": f"{kind.value}-1",
        "kind": kind,
        "time_ms": NOW_MS,
        "project_id": "shop",
    }
    if kind in (AlertKind.SOFT, AlertKind.STOP, AlertKind.LIMIT):
        content |= {
            "measure": Measure.COST,
            "used": 800_000_000,
            "limit": 1_000_000_000,
        }
    if kind is AlertKind.SOFT:
        content["threshold"] = "max_cost_usd:0.8"
    if kind is AlertKind.STOP:
        content |= {
            "used": 980_000_000,
            "needed": 50_000_000,
            "reason": StopReason.BUDGET_EXCEEDED,
        }
    if kind is AlertKind.LOOP:
        content["finding"] = FINDING
    if kind is AlertKind.RECOVERED:
        content["outage_ms"] = 12_400
    if kind is AlertKind.LIMIT:
        content |= {
            "attribution": WHO,
            "scope": "customer_id=acme",
            "used": 980_000_000,
            "needed": 50_000_000,
        }
    if kind is AlertKind.RAISED:
        limits = Limits(cost_nano_usd=2_000_000_000, steps=400, wall_time_ms=90_000)
        content |= {"raised": limits, "by": "ann"}
    if kind in (AlertKind.SOFT, AlertKind.STOP, AlertKind.LOOP, AlertKind.RAISED):
        content |= {"attribution": WHO, "scope": "session", "is_session": True}
    if kind in (AlertKind.ANOMALY, AlertKind.PACE, AlertKind.DAILY):
        [sample] = samples(kind, project_id="shop", now_ms=NOW_MS)
        for key in ("attribution", "anomaly", "pace", "daily", "scope", "measure"):
            content[key] = getattr(sample, key)
        content |= {"used": sample.used, "limit": sample.limit}
    if kind is AlertKind.UNPRICED:
        model = Unpriced(model="our-model", provider="gateway", calls=OnUnpriced.REFUSE)
        content |= {"attribution": WHO, "unpriced": model}
    content |= changes
    who = content.get("attribution")
    about = (
        *(kind.value, content.get("scope"), content.get("threshold")),
        who and who.session_id,
    )
    return Alert(**({"subject": str(about)} | content))


@pytest.fixture
def pace_ms(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Has messages follow each other faster than Slack allows: nobody here minds.

    For what is not about time. The pace itself is tested where the clock is a fake.
    """
    pace_ms: int = getattr(request, "param", 20)
    for module in (channel, outlet):
        monkeypatch.setattr(module, "INTERVAL_MS", pace_ms)
    return pace_ms


Talk = Callable[[socket.socket], None]
"""What a receiver does with a connection, once it has read the request."""


@dataclass
class Receiver:
    """A receiver on this machine, whose every answer is chosen."""

    talk: Talk
    tls: ssl.SSLContext | None = None
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    """Headers, with lower names, and body of each request."""
    ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        return self._socket.getsockname()[1]

    def url(self, host: str = "127.0.0.1") -> str:
        return f"http{'s' if self.tls else ''}://{host}:{self.port}/in/hunter2"

    def close(self) -> None:
        self.ended.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                thread = threading.Thread(
                    target=self._serve, args=(connection,), daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            with connection:
                connection.settimeout(10)
                self.requests.append(_request(connection))
                self.talk(connection)


def _request(connection: socket.socket) -> tuple[dict[str, str], bytes]:
    read = b""
    while b"\r\n\r\n" not in read:
        chunk = connection.recv(65_536)
        if not chunk:
            raise ConnectionError
        read += chunk
    head, _, body = read.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")[1:]
    headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        chunk = connection.recv(65_536)
        if not chunk:
            raise ConnectionError
        body += chunk
    return headers, body


def answering(status: str, *headers: str, body: bytes = b"ok") -> Talk:
    """Returns what answers at once."""

    def talk(connection: socket.socket) -> None:
        head = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", ""]
        connection.sendall("\r\n".join(head).encode() + body)

    return talk


@pytest.fixture
def receive() -> Iterator[Callable[..., Receiver]]:
    """Starts receivers."""
    started: list[Receiver] = []

    def start(talk: Talk | None = None, **options: Any) -> Receiver:
        started.append(Receiver(talk or answering("200 OK"), **options))
        return started[-1]

    yield start
    for receiver in started:
        receiver.close()


@dataclass
class Certificates:
    """Of a name, by an authority that only these tests trust."""

    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A certificate of `alerts.example.org`."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-days", "3650", "-nodes"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", str(key)),
            *("-out", str(certificate), "-subj", "/CN=alerts.example.org"),
            *("-addext", "subjectAltName=DNS:alerts.example.org"),
        ],
        check=True,
        capture_output=True,
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return Certificates(server, ssl.create_default_context(cafile=str(certificate)))


def content_of(body: bytes) -> dict[str, Any]:
    return json.loads(body)
