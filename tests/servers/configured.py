"""A server that runs with the configuration and the access list of the examples."""

import re
import time
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers.processes import READY_SECONDS, Server

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "redis"
ADMIN = "user admin on >admin ~* +@all"
"""For the tests: the access list itself has nobody who may flush a server."""


class ConfiguredServer(Server):
    """Starts as examples/redis/README.md says, in a folder and on a port of its own.

    The password of each user is the user's name.
    """

    def __init__(self, binary: Path) -> None:
        super().__init__(binary)
        users = (EXAMPLES / "users.acl").read_text(encoding="utf-8")
        users = re.sub(r"^user (\S+) on", r"user \1 on >\1", users, flags=re.MULTILINE)
        aclfile = self.folder / "users.acl"
        aclfile.write_text(f"{users}{ADMIN}\n", encoding="utf-8")
        own = ("bind", "port", "unixsocket", "dir", "logfile")
        self.options = {
            # First, so that what follows replaces a few of its lines.
            "include": str(EXAMPLES / "redis.conf"),
            **{name: self.options[name] for name in own},
            "aclfile": str(aclfile),
        }

    def url_of(self, user: str) -> str:
        return f"redis://{user}:{user}@127.0.0.1:{self.port}/0"

    def ask(self, *command: Any) -> Any:
        """Sends one command as somebody who may do all."""
        return self.ask_as("admin", *command)

    def ask_as(self, user: str, *command: Any) -> Any:
        """Sends one command as a user of the access list."""
        client = redis.Redis(
            unix_socket_path=str(self.socket),
            username=user,
            password=user,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=5,
        )
        try:
            return client.execute_command(*command)
        finally:
            client.close()


def wait_until_followed(master: Server) -> None:
    """Waits until a replica of a server is in step with it."""
    give_up_at = time.monotonic() + READY_SECONDS
    while b"state=online" not in _replication(master):
        assert time.monotonic() < give_up_at, "no replica follows"
        time.sleep(0.05)


def _replication(server: Server) -> bytes:
    text = server.ask("EVAL", "return redis.call('INFO', 'replication')", "0")
    assert isinstance(text, bytes)
    return text
