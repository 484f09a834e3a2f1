"""Bridges: reaches a server by its URL, through a program that speaks HTTP for us.

Streamable HTTP with its sessions, resumption and OAuth is not written anew here: a
bridge makes a stdio server of it, and that one is guarded like any other.
"""

import shutil
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

__all__ = ["bridge", "host_of"]


def bridge(
    url: str, *, which: Callable[[str], str | None] = shutil.which
) -> Sequence[str]:
    """Returns the command that makes a stdio server of a URL.

    Args:
        url: Of a streamable HTTP endpoint.
        which: Finds a program, as `shutil.which` does.

    Raises:
        ValueError: If no bridge is installed; the message says how to get one.
    """
    if which("mcp-proxy"):
        # Its log holds the headers of every request at any lower level.
        options = ("--log-level", "ERROR", "--transport", "streamablehttp")
        return ("mcp-proxy", *options, url)
    if which("npx"):
        return ("npx", "-y", "mcp-remote", url)
    raise ValueError(
        f"{url}: reaching a server by its URL needs a bridge, and none is installed. "
        "Install one: pipx install mcp-proxy, or Node for npx mcp-remote."
    )


def host_of(command: Sequence[str]) -> str | None:
    """Returns the host if a command line is nothing but a URL, else `None`."""
    if len(command) != 1 or not command[0].startswith(("http://", "https://")):
        return None
    return urlsplit(command[0]).hostname
