"""Certificates: what the `ssl_` options of a URL name."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redis.asyncio.connection import SSLConnection as AsyncSSLConnection

__all__ = ["FILES", "problem_of", "tls_context", "tls_options"]

FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
"""Options that name a file or a folder of this machine."""


def tls_context(options: Mapping[str, Any]) -> ssl.SSLContext:
    """Returns the context that redis-py makes of a URL's `ssl_` options."""
    return AsyncSSLConnection(**tls_options(options)).ssl_context.get()


def tls_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the `ssl_` options among those of a URL."""
    return {name: value for name, value in options.items() if name[:4] == "ssl_"}


def problem_of(options: Mapping[str, Any]) -> str | None:
    """Says what is wrong with the files that a URL names; `None` if nothing is."""
    named = {name: options[name] for name in FILES if options.get(name)}
    for name, path in named.items():
        try:
            with Path(path).open("rb"):
                pass
        except IsADirectoryError:
            if name != "ssl_ca_path":
                return f"{name} {path!r} is a folder"
        except OSError as error:
            return f"{name} {path!r} cannot be read: {error.strerror}"
    if not named:
        return None
    try:
        tls_context(options)
    except ssl.SSLError:
        return f"no certificate, or one without its key: {', '.join(named)}"
    return None
