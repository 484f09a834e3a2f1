"""Addresses: no URL and no name leads an alert into the operator's network."""

import pytest

from guardrails.alerts.addresses import (
    checked_slack_url,
    checked_url,
    is_allowed,
    masked,
)
from tests.alerts.conftest import SLACK

HOSTILE = [
    # No TLS, or no HTTP at all.
    "http://alerts.example.org/",
    "ftp://alerts.example.org/",
    "file:///etc/passwd",
    "gopher://alerts.example.org/",
    "javascript:alert(1)",
    "data:text/plain,x",
    "//alerts.example.org/",
    "alerts.example.org/path",
    "https:alerts.example.org",
    "https:///path",
    "https://",
    "",
    # The loopback, however it is written.
    "https://127.0.0.1/",
    "https://127.0.0.1:8443/",
    "https://127.1/",
    "https://127.0.1/",
    "https://127.255.255.254/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0177.0.0.1/",
    "https://017700000001/",
    "https://127.0.0.0x1/",
    "https://127.0.0.1./",
    "https://0/",
    "https://0.0.0.0/",
    "https://[::1]/",
    "https://[::]/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[2001:0:7f00:1::]/",
    # Where clouds give out credentials.
    "https://169.254.169.254/latest/meta-data/",
    "https://[::ffff:169.254.169.254]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[fd00:ec2::254]/",
    "https://2852039166/",
    "https://0xa9fea9fe/",
    "https://0251.0376.0251.0376/",
    # Private, shared, reserved, many.
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://172.31.255.255/",
    "https://192.168.0.1/",
    "https://100.64.0.1/",
    "https://192.0.0.8/",
    "https://192.0.2.1/",
    "https://192.88.99.1/",
    "https://198.18.0.1/",
    "https://198.51.100.1/",
    "https://203.0.113.1/",
    "https://224.0.0.1/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    "https://[ff02::1]/",
    "https://[fc00::1]/",
    "https://[2001:db8::1]/",
    "https://[100::1]/",
    # What two readers understand in two ways.
    "https://user@alerts.example.org/",
    "https://alerts.example.org@127.0.0.1/",
    "https://user:pass@alerts.example.org/",
    "https://alerts.example.org\\@127.0.0.1/",
    "https://alerts.example.org\\.evil.test/",
    "https://alerts.example.org#@127.0.0.1/",
    "https://alerts.example.org/#fragment",
    "https://alerts.example.org:0/",
    "https://alerts.example.org:99999/",
    "https://alerts.example.org:x/",
    "https://alerts.example.org:/",
    "https://alerts.example.org%2f@127.0.0.1/",
    "https://%31%32%37.0.0.1/",
    "https://alerts .example.org/",
    "https://alerts.example.org/\r\nhost: 127.0.0.1",
    "https://alerts.example.org/\x00",
    "https://\uff11\uff12\uff17.0.0.1/",
    "https://ⓛocalhost/",
    "https://alerts..example.org/",
    "https://[alerts.example.org]/",
    "https://[::1/",
    "https://*/",
]


def test_there_are_many_of_them() -> None:
    assert len(set(HOSTILE)) >= 60


@pytest.mark.parametrize("url", HOSTILE)
def test_nothing_is_sent_to_a_hostile_url(url: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        checked_url(url, allow_http=False, allow_private=False)
    assert not url or url not in str(caught.value)


@pytest.mark.parametrize("url", HOSTILE)
def test_nothing_but_slack_is_slack(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        checked_slack_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://alerts.example.org",
        "https://alerts.example.org/",
        "https://alerts.example.org:8443/in?key=a%20b",
        "https://93.184.216.34/",
        "https://[2606:2800:220:1:248:1893:25c8:1946]/",
        "https://xn--bcher-kva.example/",
        "https://a_b.example.org./",
    ],
)
def test_a_public_receiver_is_fine(url: str) -> None:
    assert checked_url(url, allow_http=False, allow_private=False) == url


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/in", "http://10.0.0.7/", "https://[fd12::1]/"]
)
def test_an_operator_may_allow_a_receiver_of_their_own(url: str) -> None:
    assert checked_url(url, allow_http=True, allow_private=True) == url


@pytest.mark.parametrize(
    "address",
    [
        *("169.254.169.254", "fe80::1", "fe80::1%eth0", "0.0.0.0", "::", "224.0.0.1"),
        *("ff02::1", "255.255.255.255", "::ffff:127.0.0.1", "::ffff:10.0.0.1"),
        *("64:ff9b::a00:1", "2002:a00:1::", "2001:0:a00:1::", "100::1", "192.0.0.8"),
    ],
)
def test_what_nobody_s_receiver_is_at_cannot_be_allowed(address: str) -> None:
    assert not is_allowed(address, allow_private=True)


@pytest.mark.parametrize("allow_private", [True, False])
@pytest.mark.parametrize("host", ["169.254.169.254", "[::ffff:127.0.0.1]", "[fe80::1]"])
def test_nobody_is_told_to_allow_what_cannot_be_allowed(
    host: str, *, allow_private: bool
) -> None:
    with pytest.raises(ValueError, match="that no receiver may have"):
        checked_url(f"http://{host}/", allow_http=True, allow_private=allow_private)


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.slack.com/services/T0/B0/x?next=1",
        "https://hooks.slack.com/services/T0/B0",
        "https://hooks.slack.com/services/T0/B0/x/",
        "https://hooks.slack.com/services/../T0/B0/x",
        "https://hooks.slack.com/workflows/T0/A0/1/x",
        "https://hooks.slack.com:8443/services/T0/B0/x",
        "https://hooks.slack.com./services/T0/B0/x",
        "https://slack.com/services/T0/B0/x",
        "https://hooks.slack.com.example.org/services/T0/B0/x",
        "https://evil-hooks.slack.com/services/T0/B0/x",
        "http://hooks.slack.com/services/T0/B0/x",
    ],
)
def test_what_looks_like_slack_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        checked_slack_url(url)


def test_slack_is_slack() -> None:
    assert checked_slack_url(SLACK) == SLACK


def test_what_makes_a_url_a_secret_is_not_shown() -> None:
    assert masked(SLACK) == "hooks.slack.com/services/***"
    url = "https://alerts.example.org:8443/in/hunter2?key=hunter2"
    assert masked(url) == "https://alerts.example.org:8443/***"
    assert masked("https://[fd12::1]/hunter2") == "https://[fd12::1]/***"
