"""Attribution: names from outside are data, and stay distinct."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrails.core.attribution import (
    AGENT_DEPTH_MAX,
    DIMENSIONS,
    NAME_BYTES_MAX,
    TAGS_MAX,
    Attribution,
    check_name,
    clean_name,
)

MEGABYTE = 1_000_000

# Lone surrogates, too: JSON from outside may hold them.
ANYTHING = st.text(st.characters(exclude_categories=()), max_size=300) | st.builds(
    lambda text, times: text * times,
    st.text(st.characters(exclude_categories=()), min_size=1, max_size=4),
    st.integers(min_value=1, max_value=400),
)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "is empty"),
        ("  \t", "is empty"),
        ("a\nb", "control characters"),
        ("a\x00b", "control characters"),
        ("a\x1b[31mb", "control characters"),
        ("a\x7fb", "control characters"),
        ("a\x85b", "control characters"),
        ("a\u2028b", "control characters"),
        ("a\u2029b", "control characters"),
        ("a\ud800b", "control characters"),
        ("x" * 257, "longer than 256 bytes"),
        ("ä" * 129, "longer than 256 bytes"),
        ("x" * MEGABYTE, "longer than 256 bytes"),
        (7, r"7 \(int\) is not a name"),
        (None, "NoneType is not a name"),
        (b"acme", r"b'acme' \(bytes\) is not a name"),
        (["acme"], "list is not a name"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_developer_is_told_of_a_bad_name(value: object, reason: str) -> None:
    """The message names the key and the fault, and is short."""
    with pytest.raises(ValueError, match=f"^customer_id: .*{reason}") as caught:
        check_name(value, key="customer_id")

    assert len(str(caught.value)) < 300


def test_a_name_of_a_strange_type_cannot_raise_by_being_shown() -> None:
    """Its own `repr` is not asked."""

    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError("boom")

    with pytest.raises(ValueError, match="Hostile is not a name"):
        check_name(Hostile(), key="k")
    assert clean_name(Hostile()) is None


@pytest.mark.parametrize(
    "name", ["acme", "a b", "Größe 😀", "x" * 256, "ä" * 128, "%/="]
)
def test_good_names_are_kept(name: str) -> None:
    """Spaces, any script and signs are no reason to refuse a name."""
    assert check_name(name, key="k") == name
    assert clean_name(name) == name


def test_one_name_in_two_spellings_is_one_account() -> None:
    """Composed or not, an é is an é: both become NFC."""
    assert check_name("e\u0301", key="k") == check_name("\u00e9", key="k") == "\u00e9"
    assert clean_name("e\u0301") == clean_name("\u00e9") == "\u00e9"


@pytest.mark.parametrize("value", [None, 7, b"acme", "", " ", "\n\t"])
def test_what_is_no_name_stays_unattributed(value: object) -> None:
    """Unknown is a value of its own, never an empty string."""
    assert clean_name(value) is None


@given(ANYTHING)
def test_a_cleaned_name_is_a_good_name(value: str) -> None:
    """Whatever comes in, what goes out passes the developer's check."""
    name = clean_name(value)

    assert name is None or check_name(name, key="k") == name
    assert name is None or len(name.encode()) <= NAME_BYTES_MAX
    assert (name is None) == (not value.strip())


@given(ANYTHING, ANYTHING)
def test_different_names_stay_different(one: str, other: str) -> None:
    """Cutting and cleaning bring no two customers into one account."""
    alike = unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)
    names = clean_name(one), clean_name(other)

    assert names == (None, None) or alike or names[0] != names[1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x" * 300 + "1", "x" * 300 + "2"),
        ("x" * MEGABYTE, "x" * (MEGABYTE - 1)),
        ("a\x00b", "a\x01b"),
        ("a\x00b", "a\ufffdb"),
        ("a\ud800", "a\ud801"),
        ("ä" * 200, "ä" * 201),
    ],
    ids=["ends", "1 MB", "controls", "replacement", "surrogates", "cut"],
)
def test_names_that_look_alike_once_cleaned_stay_different(
    one: str, other: str
) -> None:
    """A digest of the whole completes what was cut or replaced."""
    assert clean_name(one) != clean_name(other)


def test_names_are_checked_where_an_attribution_is_built() -> None:
    """A misspelt dimension and a bad tag are the developer's to mend."""
    with pytest.raises(ValueError, match=r"^costumer_id: no such dimension"):
        Attribution.of(costumer_id="acme")
    with pytest.raises(ValueError, match=r"^user_id: "):
        Attribution.of(user_id="a\nb")
    with pytest.raises(ValueError, match=r"^tags\['env'\]: "):
        Attribution.of(tags={"env": ""})
    with pytest.raises(ValueError, match=f"at most {TAGS_MAX} are kept"):
        Attribution.of(tags={f"t{n}": "x" for n in range(TAGS_MAX + 1)})


def test_tags_have_an_order_of_their_own() -> None:
    """Two calls with the same tags have the same attribution."""
    one = Attribution.of(tags={"b": "2", "a": "1"})
    other = Attribution.of(tags={"a": "1", "b": "2"})

    assert one == other
    assert one.tags == (("a", "1"), ("b", "2"))


def test_nested_agents_are_a_path() -> None:
    """Parent first; the innermost stay when it grows too deep."""
    who = Attribution.of(agent="router", customer_id="acme")
    nested = who.under("support")
    deep = who
    for number in range(AGENT_DEPTH_MAX + 5):
        deep = deep.under(f"{number}")

    assert nested.agent_path == ("router", "support")
    assert nested.agent == "support"
    assert nested.customer_id == "acme"
    assert len(deep.agent_path) == AGENT_DEPTH_MAX
    assert deep.agent_path[-1] == deep.agent == f"{AGENT_DEPTH_MAX + 4}"


def test_a_session_follows_the_agents_around_it() -> None:
    """Its own names stay, and its agent is below those of the parent."""
    parent = Attribution.of(agent="router", customer_id="other")
    own = Attribution.of(customer_id="acme")

    assert own.following(parent, "support").agent_path == ("router", "support")
    assert own.following(parent, None).agent == "router"
    assert own.following(parent, "support").customer_id == "acme"


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_every_dimension_can_be_asked_for(dimension: str) -> None:
    """Scopes and reports read the same names."""
    assert Attribution.of(**{dimension: "x"}).value(dimension) == "x"
