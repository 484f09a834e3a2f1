"""Baggage: what a request says of itself, and what it may not say."""

from hypothesis import given
from hypothesis import strategies as st

from guardrails import Attribution
from guardrails_mcp.baggage import BAGGAGE_CHARACTERS_MAX, baggage_of, names_in

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


def test_names_are_read_from_the_members_of_ours() -> None:
    text = (
        "userId=alice, guardrails.customer_id=acme%20inc;prop=1,"
        "guardrails.agent = helper ,guardrails.session_id=s-1,guardrails.other=x"
    )

    assert names_in({"baggage": text}) == {
        "customer_id": "acme inc",
        "agent": "helper",
        "session_id": "s-1",
    }


def test_a_request_cannot_name_another_project() -> None:
    """Accounts of two projects never meet: it would be a way past every limit."""
    assert names_in({"baggage": "guardrails.project_id=other"}) == {}


@given(st.dictionaries(st.sampled_from(["customer_id", "agent", "feature"]), NAMES))
def test_what_is_written_is_read_again(names: dict[str, str]) -> None:
    names = {
        key: name
        for key, name in names.items()
        if name.isprintable() and name.strip() == name
    }
    attribution = Attribution.of(**names)

    found = names_in({"baggage": baggage_of(attribution)})

    assert found == {key: attribution.value(key) for key in names}


@given(
    st.one_of(
        st.none(),
        st.integers(),
        st.lists(st.text()),
        st.dictionaries(st.text(), st.text()),
        st.builds(lambda text: {"baggage": text}, st.text()),
    )
)
def test_anything_may_come_as_meta(meta: object) -> None:
    assert set(names_in(meta)) <= {
        "customer_id",
        "user_id",
        "feature",
        "agent",
        "session_id",
        "prompt_version",
    }


def test_endless_baggage_is_not_read() -> None:
    text = "guardrails.agent=a," + "x" * BAGGAGE_CHARACTERS_MAX

    assert names_in({"baggage": text}) == {}
