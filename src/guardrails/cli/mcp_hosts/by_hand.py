"""Lists of MCP servers in TOML or YAML: `init` says what to write into them.

It does not write it: nothing here keeps the comments and the layout of such a file.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import yaml

from guardrails.cli.mcp_hosts.clients import (
    URLS,
    Client,
    Server,
    own_command,
    server_of,
    wrapped,
)

__all__ = ["is_by_hand", "language_of", "listed", "written"]

_LANGUAGES = {".toml": "TOML", ".yaml": "YAML", ".yml": "YAML"}


def is_by_hand(client: Client) -> bool:
    """Whether a client's list is one that people change themselves."""
    return client.path.suffix in _LANGUAGES


def language_of(client: Client) -> str:
    """Returns what a client's list is written in."""
    return _LANGUAGES[client.path.suffix]


def listed(text: str, client: Client) -> Sequence[Server]:
    """Returns the servers of a file, in its order.

    Raises:
        ValueError: If the text is neither TOML nor YAML, whichever it should be.
    """
    return [
        server_of(name, (client.key, name), {**entry, "command": entry.get(word)})
        for name, entry in _entries(_parsed(text, client).get(client.key))
        for word in [client.command]
        # Goose has extensions of its own there, which it does not start.
        if word in entry or not URLS.isdisjoint(entry)
    ]


def written(
    server: Server, client: Client, prefix: Sequence[str], *, is_undo: bool
) -> Sequence[str]:
    """Returns the lines of a server's entry that guard it, or do so no more."""
    words = own_command(server) if is_undo else wrapped(server, prefix)
    sign = " =" if language_of(client) == "TOML" else ":"
    values = {client.command: words[0], "args": list(words[1:])}
    # What JSON can say, TOML and YAML say alike.
    return [
        f"{key}{sign} {json.dumps(value, ensure_ascii=False)}"
        for key, value in values.items()
    ]


def _parsed(text: str, client: Client) -> dict[str, object]:
    if language_of(client) == "TOML":
        return tomllib.loads(text)
    try:
        value = cast("object", yaml.safe_load(text))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"no YAML: {error}") from None
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def _entries(servers: object) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yields the entries by their names, which those of a list have inside."""
    if isinstance(servers, list):
        entries = cast("list[object]", servers)
        named = [(None, entry) for entry in entries]
    elif isinstance(servers, dict):
        named = list(cast("dict[object, object]", servers).items())
    else:
        named = []
    for name, entry in named:
        if isinstance(entry, dict):
            members = cast("dict[str, object]", entry)
            yield str(members.get("name") if name is None else name), members
