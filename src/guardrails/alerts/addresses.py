"""Addresses: where alerts may be sent, and how a secret URL is shown.

A URL is checked when it is read, and the addresses of its host are checked again
whenever it is connected to: a name can stand for another machine tomorrow.
"""

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

__all__ = ["MASK", "checked_slack_url", "checked_url", "is_allowed", "masked", "target"]

MASK = "***"

SLACK_HOST = "hooks.slack.com"

_SLACK_PATH = re.compile(r"/services/[A-Z0-9]+/[A-Z0-9]+/[A-Za-z0-9]+", re.ASCII)

_HINT_HTTP = " For a receiver of your own there is allow_http: true."

_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.ASCII | re.IGNORECASE)

_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII | re.IGNORECASE)

_OWN_NETWORKS = tuple(
    map(
        ipaddress.ip_network,
        (
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "::1/128",
            "fc00::/7",
        ),
    )
)
"""Where an operator's own receiver may be. Not link-local addresses: there clouds
give out credentials, and no receiver of alerts lives there."""

_PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")
"""All that is given out. What lies outside translates or tunnels to IPv4."""

_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (
            "192.0.0.0/24",  # Protocol assignments; RFC 6890.
            "192.88.99.0/24",  # Relays of 6to4, which are no more; RFC 7526.
            "2001::/23",  # Protocol assignments, among them Teredo; RFC 2928.
            "2002::/16",  # 6to4: it wraps any IPv4 address; RFC 3056.
        ),
    )
)
"""What versions of `ipaddress` judge in different ways."""


def checked_slack_url(text: str) -> str:
    """Returns the URL of an incoming webhook of Slack.

    Raises:
        ValueError: If it is not one. The message does not repeat it.
    """
    parts = _split(text, schemes=("https",))
    is_slack = parts.hostname == SLACK_HOST and parts.port in (None, 443)
    if not is_slack or parts.query or not _SLACK_PATH.fullmatch(parts.path):
        raise ValueError(
            f"this is no incoming webhook of Slack. Copy it from the app's page: "
            f"https://{SLACK_HOST}/services/T…/B…/…"
        )
    return text


def checked_url(text: str, *, allow_http: bool, allow_private: bool) -> str:
    """Returns the URL of a receiver.

    Args:
        text: The URL.
        allow_http: Whether it may go without TLS.
        allow_private: Whether its host may be an address of the operator's own.

    Raises:
        ValueError: If nothing may be sent there. The message does not repeat the URL.
    """
    hint = "" if allow_http else _HINT_HTTP
    schemes = ("https", "http") if allow_http else ("https",)
    parts = _split(text, schemes=schemes, hint=hint)
    host = parts.hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        last = host.rstrip(".").rpartition(".")[2]
        if not _HOST.fullmatch(host.rstrip(".")) or _NUMBER.fullmatch(last):
            raise ValueError("its host is neither a name nor an address.") from None
        return text
    if is_allowed(address.compressed, allow_private=allow_private):
        return text
    if not is_allowed(address.compressed, allow_private=True):
        raise ValueError("its host is an address that no receiver may have.")
    raise ValueError(
        "its host is not a public address. For a receiver of your own write "
        "allow_private: true."
    )


def is_allowed(address: str, *, allow_private: bool) -> bool:
    """Whether a connection to an IP address may be made.

    Args:
        address: As a resolver returns it.
        allow_private: Whether private and loopback addresses are meant.
    """
    ip = ipaddress.ip_address(address)
    # `in` compares a version with itself only: an IPv4 network holds no IPv6.
    if any(ip in network for network in _OWN_NETWORKS):
        return allow_private
    if ip.is_multicast or not ip.is_global:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip not in _PUBLIC_IPV6:
        return False
    return not any(ip in network for network in _NOT_PUBLIC)


def masked(url: str) -> str:
    """Shows where a URL leads, without what makes it a secret."""
    parts = urlsplit(url)
    if parts.hostname == SLACK_HOST:
        return f"{SLACK_HOST}/services/{MASK}"
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}/{MASK}"


def target(url: str) -> tuple[str, str, int, str]:
    """Takes a checked URL apart: its scheme, host, port, and path with query."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return parts.scheme, (parts.hostname or "").rstrip("."), port, path


def _split(text: str, *, schemes: tuple[str, ...], hint: str = "") -> SplitResult:
    """Takes a URL apart that two readers cannot understand in two ways."""
    if not text.isascii() or not text.isprintable() or set(text) & set(' \\"<>^`{|}'):
        raise ValueError("it has characters that no URL has. Write them as %…")
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError("this is not a URL.") from None
    if parts.scheme not in schemes:
        raise ValueError(
            f"it must begin with {' or '.join(f'{each}://' for each in schemes)}.{hint}"
        )
    if "@" in parts.netloc or not parts.hostname or parts.netloc.endswith(":"):
        raise ValueError("it needs a host, and no user or password in front of it.")
    if parts.port == 0 or "#" in text or "%" in parts.netloc:
        raise ValueError("it needs a host and a path, and no more. Remove the rest.")
    return parts
