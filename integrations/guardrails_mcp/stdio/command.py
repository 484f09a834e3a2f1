"""`guardrails wrap`: its command line, and what its environment says."""

import argparse
import os
import re
from collections.abc import Mapping, Sequence

from guardrails_mcp.stdio.bridges import bridge, host_of
from guardrails_mcp.stdio.proxy import Proxy
from guardrails_mcp.stdio.supervisor import supervised

__all__ = ["child_environment", "main", "server_name"]

LINE_BYTES_MAX = 16 * 2**20
"""Of one message: more than any tool should hand to a model, and two of them, one in
each direction, still fit into the memory of a proxy that nobody notices."""

_INHERITED = frozenset(
    f"GUARDRAILS_{name}"
    for name in (
        "PROJECT_ID",
        "CUSTOMER_ID",
        "USER_ID",
        "AGENT",
        "FEATURE",
        "PROMPT_VERSION",
        "SESSION_ID",
        "TAGS",
    )
)
"""Names, which a server may want for calls of its own. Everything else of ours may be a
secret: addresses of stores hold passwords."""

_OURS = ("GUARDRAILS_", "MCPSPEND_API_KEY")

_RUNNERS = re.compile(
    r"(npx|npm|exec|node|nodejs|bunx|bun|x|run|deno|uvx|uv|pipx|python[\d.]*|py|env|sh|bash|cmd|c)"
    r"(\.(exe|cmd))?"
)
"""Words of a command line that say how a server is run, and not which."""

_BRIDGES = frozenset({"mcp-remote", "mcp-proxy", "supergateway"})
"""Programs that reach any server by its URL."""

_CONTAINERS = frozenset({"docker", "podman", "nerdctl"})

_BARE = frozenset(
    {"-i", "-t", "-it", "-ti", "-d", "--interactive", "--tty", "--detach", "--rm"}
    | {"--init", "--privileged", "--read-only", "--no-healthcheck"}
)
"""Options of `docker run` without a value."""

_NO_NAME = re.compile(r"(?<=.)@.*$|==.*$|\.(js|mjs|cjs|ts|py|exe|cmd)$")
"""What follows a package's or file's name."""

_EPILOG = """\
names and limits come from GUARDRAILS_* in the environment, prices and limits from
guardrails.yaml, searched upwards from the working directory. What a request
says in its _meta.baggage wins. The exit code is the server's. Without a session's
name, each start of a server is a session with limits of its own: name one for clients
that start the server anew for each call.

  GUARDRAILS_PROJECT_ID, _CUSTOMER_ID, _USER_ID, _AGENT, _FEATURE,
  _PROMPT_VERSION, _SESSION_ID, _TAGS   who is charged
  GUARDRAILS_MAX_COST_USD, _MAX_STEPS,
  _MAX_MODEL_CALLS, _MAX_TOOL_CALLS,
  _MAX_TOKENS, _MAX_WALL_TIME_S         limits of a session
  GUARDRAILS_STORE, _CONFIG             where the limits are kept
  GUARDRAILS_SERVER                     as --server
  GUARDRAILS_MAX_LINE_BYTES             messages above it end that call

a URL is reached through mcp-proxy, or npx mcp-remote, if one is installed.

example: guardrails wrap -- npx -y @modelcontextprotocol/server-filesystem .
"""


def main(arguments: Sequence[str]) -> int:
    """Runs an MCP server behind the proxy and returns its exit code.

    Args:
        arguments: What follows `guardrails wrap` on the command line.
    """
    parser = argparse.ArgumentParser(
        prog="guardrails wrap",
        description="Guard an MCP server: put this in front of its command.",
        usage="guardrails wrap [--server NAME] [--config FILE] [--] CMD ... | URL",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--server",
        default=os.environ.get("GUARDRAILS_SERVER") or None,
        metavar="NAME",
        help="what the server is called in prices, limits and reports; by default "
        "what its command line says",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="the configuration, instead of the nearest guardrails.yaml",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    command: list[str] = options.command
    # Some hosts take the two dashes out before they start us.
    command = command[1:] if command[:1] == ["--"] else command
    if not command:
        parser.error("which server? Write its command after --, as in the example.")
    name = options.server or host_of(command) or server_name(command)
    if host_of(command):
        try:
            command = list(bridge(command[0]))
        except ValueError as error:
            parser.error(str(error))
    if options.config is not None:
        os.environ["GUARDRAILS_CONFIG"] = options.config
    proxy = Proxy(
        command,
        environ=child_environment(os.environ),
        server=name,
        bytes_max=_bytes_max(parser, os.environ),
        host=os.getppid(),
    )
    return supervised(proxy.run)


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment of the server: the host's without our secrets."""
    return {
        name: value
        for name, value in environ.items()
        if name in _INHERITED or not name.startswith(_OURS)
    }


def server_name(command: Sequence[str]) -> str:
    """Returns what a command line calls the server that it starts.

    `npx -y @modelcontextprotocol/server-memory@1.2` is `server-memory`,
    `python -m mcp_server_time` is `mcp_server_time`, `docker run -i mcp/fetch` is
    `fetch`, and what `npx mcp-remote URL` reaches is called as its host.
    """
    words = [word for word in command if not word.startswith("-")]
    names = (name for name in map(_name, words) if name)
    named = (name for name in names if not _RUNNERS.fullmatch(name))
    name = next(named, "server")
    if name in _BRIDGES:
        return next(filter(None, (host_of([word]) for word in words)), name)
    if name in _CONTAINERS and "run" in command:
        image = _image(command[command.index("run") + 1 :])
        return _name(re.sub(r":[^/]*$", "", image)) or name
    return name


def _name(word: str) -> str:
    """Returns what a path, a package or an image is called."""
    return _NO_NAME.sub("", re.split(r"[/\\]", word.rstrip("/\\"))[-1])


def _image(words: Sequence[str]) -> str:
    """Returns the image that `docker run` is given; empty if it is given none."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        at += 1 if "=" in words[at] or words[at] in _BARE else 2
    return words[at] if at < len(words) else ""


def _bytes_max(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> int:
    text = environ.get("GUARDRAILS_MAX_LINE_BYTES", "").strip()
    if not text:
        return LINE_BYTES_MAX
    if not text.isascii() or not text.isdigit() or not int(text):
        parser.error(
            f"GUARDRAILS_MAX_LINE_BYTES={text!r} is no number of bytes. Write a whole "
            f"number such as {LINE_BYTES_MAX}."
        )
    return int(text)
