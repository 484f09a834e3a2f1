"""Texts of traces: the same, whatever of them was known."""

import json

from hypothesis import given
from hypothesis import strategies as st

from guardrails.core.loops import ToolTrace
from guardrails.stores.sqlite.trace_texts import traces_from, written_traces

names = st.text(max_size=6)

traces = st.builds(
    ToolTrace,
    tool=names,
    arguments_digest=names,
    result_digest=names | st.none(),
    call_id=names | st.none(),
    cost_nano_usd=st.integers(0, 10**15) | st.none(),
)


@given(
    first=st.lists(traces, max_size=6),
    kept=st.sets(st.integers(0, 5)),
    added=st.lists(traces, max_size=2),
)
def test_what_is_written_anew_is_what_would_be_written_at_once(
    first: list[ToolTrace], kept: set[int], added: list[ToolTrace]
) -> None:
    """Of the traces that were read some stay, in order, and others come behind."""
    before = traces_from("s", written_traces("s", tuple(first)).text)
    assert before == tuple(first)

    now = (*(trace for at, trace in enumerate(before) if at in kept), *added)
    text = written_traces("s", now, before).text

    assert text == written_traces("another", now).text
    assert traces_from("s", text) == now
    assert json.loads(text) == [
        [t.tool, t.arguments_digest, t.result_digest, t.call_id, t.cost_nano_usd]
        for t in now
    ]


@given(first=st.lists(traces, max_size=3), second=st.lists(traces, max_size=3))
def test_a_text_that_another_process_has_written_since_is_read(
    first: list[ToolTrace], second: list[ToolTrace]
) -> None:
    text = written_traces("another", tuple(second)).text
    written_traces("s", tuple(first))

    assert traces_from("s", text) == tuple(second)
