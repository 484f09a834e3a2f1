"""A server that answers as a test says: refusals that a real one gives seldom."""

import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import BinaryIO, Self

OK = b"+OK\r\n"
ADMITTED = b"*5\r\n$2\r\nok\r\n:1\r\n:0\r\n:1\r\n$0\r\n\r\n"
"""What `call.lua` answers to a reservation that nothing stands against."""


class ScriptedServer:
    """Answers scripts from a list, and whatever else is asked with OK.

    Args:
        replies: To one script each; once they are used up, `ADMITTED`.
        for_ever: To every script, instead.
        greeting: To AUTH.
        farewell: To whatever is asked first on a connection, which ends with it.
        drip_seconds: How long after each byte of an answer to a script.
    """

    def __init__(
        self,
        replies: Iterable[bytes] = (),
        *,
        for_ever: bytes | None = None,
        greeting: bytes = OK,
        farewell: bytes | None = None,
        drip_seconds: float = 0,
    ) -> None:
        self.replies = deque(replies)
        self.asked: list[bytes] = []
        """The names of the commands, in their order."""
        self._for_ever = for_ever
        self._greeting = greeting
        self._farewell = farewell
        self._drip_seconds = drip_seconds
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    @property
    def scripts(self) -> int:
        """How many scripts were asked for."""
        return self.asked.count(b"EVALSHA")

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for connection in self._connections:
            with contextlib.suppress(OSError):  # It has ended.
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _start(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments, name="scripted server")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # It was closed.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with (
            connection,
            connection.makefile("rb") as stream,
            contextlib.suppress(OSError),  # The client has gone.
        ):
            while command := _command(stream):
                self.asked.append(command[0])
                if self._farewell is not None:
                    connection.sendall(self._farewell)
                    return
                answer = self._answer(command)
                if self._drip_seconds and command[0] == b"EVALSHA":
                    for byte in answer[:-1]:
                        connection.sendall(bytes([byte]))
                        time.sleep(self._drip_seconds)
                    answer = answer[-1:]
                connection.sendall(answer)

    def _answer(self, command: list[bytes]) -> bytes:
        match command[0]:
            case b"AUTH":
                return self._greeting
            case b"CLUSTER":
                return _slots(self.port)
            case b"EVALSHA":
                if self._for_ever is not None:
                    return self._for_ever
                return self.replies.popleft() if self.replies else ADMITTED
            case b"PING" if len(command) > 1:
                return b"$%d\r\n%b\r\n" % (len(command[1]), command[1])
            case _:
                return OK


def _command(stream: BinaryIO) -> list[bytes]:
    """Reads a command; none at the end."""
    head = stream.readline()
    count = int(head[1:]) if head else 0
    return [stream.read(int(stream.readline()[1:]) + 2)[:-2] for _ in range(count)]


def _slots(port: int) -> bytes:
    """Says that this server holds all slots of a cluster."""
    return b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n" % port
