"""URLs of Redis: what cannot be read is refused, and no password is shown."""

import pytest

from guardrails import Guard
from guardrails.errors import ConfigurationError
from guardrails.stores import open_store
from guardrails.stores.redis.connection.topology import masked


@pytest.mark.parametrize(
    "url",
    [
        "redis://app:hun/ter2@host:6379/0",
        "redis://app:hun?ter2@host:6379/0",
        "redis://app:hunter2@host:port/0",
        "redis://app:hunter2@host:6379/0?color=red",
        "redis+cluster://app:hun/ter2@host:6379",
        "redis+cluster://app:hun?ter2@host:6379",
        "redis+sentinel://app:hun/ter2@host:26379/service/0",
        "redis://app:hunter2@host..example:6379/0",
        "redis+sentinel://app:hunter2@host..example/service/0",
        "rediss://app:hunter2@host:6379/0?ssl_cert_reqs=maybe",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_its_password(url: str) -> None:
    """The half of a password that looks like a host or a port is part of it."""
    with pytest.raises(ConfigurationError, match="cannot be read") as error:
        Guard({}, store=url)

    assert "hun" not in str(error.value)
    assert "ter2" not in str(error.value)
    assert error.value.__cause__ is None


@pytest.mark.parametrize(
    "url", ["redsi://:hunter2@h/0", "redsi://h/0?password=hunter2"]
)
def test_a_misspelt_scheme_is_refused_without_the_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="not a store") as error:
        open_store(url)

    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://app:hunter2@host:6379/0", "redis://***@host:6379/0"),
        ("redis://host/0?password=hunter2", "redis://host/0?password=***"),
        ("redis://app:hun?ter2@host/0", "redis://***"),
        ("redis://host/0?password=hun@ter2", "redis://***?password=***"),
        ("unix://app:hunter2@/run/redis.sock", "unix://***@/run/redis.sock"),
    ],
)
def test_credentials_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


def test_options_of_the_client_may_follow_a_url() -> None:
    """Nothing is asked yet, so nobody need be there."""
    open_store("redis://host:6379/0?health_check_interval=10").close()
    open_store("rediss://host:6379/0?ssl_cert_reqs=none").close()
    open_store("unix:///run/redis.sock?db=1").close()
