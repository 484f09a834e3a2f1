"""Lines: every way to cut a stream gives the same lines, in bounded memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrails_mcp.stdio.lines import EDGE_BYTES, Lines, Oversized


def split(chunks: list[bytes], bytes_max: int = 1_000) -> list[bytes | Oversized]:
    lines = Lines(bytes_max)
    found = [line for chunk in chunks for line in lines.feed(chunk)]
    return found + lines.finish()


@given(st.lists(st.binary(max_size=12) | st.just(b"\n"), max_size=20))
def test_lines_put_together_are_what_came_in(chunks: list[bytes]) -> None:
    lines = split(chunks)

    assert b"".join(line for line in lines if isinstance(line, bytes)) == b"".join(
        chunks
    )
    assert lines == split([b"".join(chunks)])
    assert all(line.endswith(b"\n") for line in lines[:-1] if isinstance(line, bytes))


@given(st.integers(1, 40), st.integers(0, 60), st.integers(1, 7))
def test_a_line_that_is_too_long_is_counted_and_not_kept(
    bytes_max: int, size: int, chunk_size: int
) -> None:
    stream = b"a\n" + b"x" * size + b"\nb\n"
    chunks = [stream[i : i + chunk_size] for i in range(0, len(stream), chunk_size)]

    lines = split(chunks, bytes_max=max(2, bytes_max))

    assert lines[0] == b"a\n"
    assert lines[2] == b"b\n"
    if size + 1 > max(2, bytes_max):
        assert isinstance(lines[1], Oversized)
        assert lines[1].size_bytes == size + 1
    else:
        assert lines[1] == b"x" * size + b"\n"


@pytest.mark.parametrize("is_cut", [True, False])
def test_of_a_line_that_is_too_long_both_ends_are_kept(*, is_cut: bool) -> None:
    line = b'{"id":1,' + b"x" * (3 * EDGE_BYTES) + b',"id":2}\n'
    size = 1_000 if is_cut else len(line)
    chunks = [line[i : i + size] for i in range(0, len(line), size)]

    [found] = split(chunks, bytes_max=EDGE_BYTES)

    assert isinstance(found, Oversized)
    assert found.head == line[:EDGE_BYTES]
    assert found.tail == line[-EDGE_BYTES:]
    assert found.size_bytes == len(line)


def test_an_endless_line_takes_no_memory() -> None:
    lines = Lines(1_000)
    for _ in range(1_000):
        assert lines.feed(b"x" * 10_000) == []

    assert len(lines._kept) <= EDGE_BYTES
    assert lines.feed(b"\n")
