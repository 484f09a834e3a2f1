"""Tables: what fits in a width, and names that try to get out of their cell."""

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from guardrails.cli.screens.names import safe
from guardrails.cli.screens.table import Column, table_lines


def names(*cells: str, width_max: int = 16, keeps_end: bool = False) -> Column:
    return Column(
        title="Name",
        cells=cells,
        priority=1,
        is_text=True,
        width_max=width_max,
        keeps_end=keeps_end,
    )


def numbers(*cells: str, title: str = "Total", priority: int = 1) -> Column:
    return Column(title=title, cells=cells, priority=priority)


def lines(*columns: Column, width: int = 80) -> list[str]:
    return [line.plain for line in table_lines(columns, width=width)]


def test_names_align_left_and_numbers_right() -> None:
    """The titles stand above their cells in the same way."""
    assert lines(names("acme", "globex"), numbers("$1", "$100")) == [
        "Name    Total",
        "acme       $1",
        "globex   $100",
        "",
    ]


def test_less_important_columns_fall_away() -> None:
    """At a width that is too small, columns of the highest number go first."""
    columns = (
        names("acme"),
        numbers("7", title="Steps", priority=2),
        numbers("$1"),
        numbers("3,000", title="Tokens", priority=3),
    )

    assert lines(*columns, width=40)[0] == "Name  Steps  Total  Tokens"
    assert lines(*columns, width=25)[0] == "Name  Steps  Total"
    assert lines(*columns, width=15)[0] == "Name  Total"
    assert lines(*columns, width=1)[0] == "Name  Total"


def test_a_name_is_cut_to_what_is_left() -> None:
    """Numbers are never cut; a name that is says so."""
    cut = lines(names("a-very-long-agent-name"), numbers("$1"), width=20)[1]

    assert cut == "a-very-long-…     $1"


def test_an_id_keeps_both_ends() -> None:
    """Ids made in one second differ only at their end."""
    column = names("0193a5b2-7c1f-4e11-9d55-aa", width_max=40, keeps_end=True)

    assert lines(column, numbers("$1"), width=20)[1] == "0193a5…d55-aa     $1"


def test_ids_that_differ_are_told_apart() -> None:
    """Less important columns fall away for that, but not for ids of any length."""
    tokens = numbers("1", "2", "3", title="Tokens", priority=2)
    total = numbers("$1", "$2", "$3")
    ids = [f"order-{number}-of-the-day" for number in (1, 2, 3)]
    told = lines(names(*ids, width_max=40, keeps_end=True), tokens, total, width=30)
    assert [line.split()[0] for line in told[1:4]] == [
        "order-1…the-day",
        "order-2…the-day",
        "order-3…the-day",
    ]
    ids = [f"{'a' * 15}{number}{'z' * 15}" for number in (1, 2, 3)]
    long = lines(names(*ids, width_max=40, keeps_end=True), tokens, total, width=30)
    assert long[0].split() == ["Name", "Tokens", "Total"]


def test_as_many_names_as_can_be_are_shown_in_full() -> None:
    """What lacks least takes first what is left of the width."""
    long, short = names("a-name-that-is-long", width_max=40), names("support-agent")

    assert lines(long, short, width=27)[1] == "a-name-that…  support-agent"


def test_wide_characters_take_two_cells() -> None:
    """A Japanese name moves no number out of its column."""
    wide, narrow = lines(names("研究", "abcd"), numbers("$1", "$2"))[1:3]

    assert cell_len(wide) == cell_len(narrow)
    assert (wide, narrow) == ("研究     $1", "abcd     $2")


def test_a_wide_name_is_cut_between_its_characters() -> None:
    """Half of a wide character is nothing that a terminal can show."""
    cut = lines(names("研究アシスタントの名前"), numbers("$1"), width=19)[1]

    assert cell_len(cut) == 19


def test_a_right_to_left_name_is_isolated() -> None:
    """Else the number beside it would be drawn as a part of the name."""
    line = lines(names("עוזר"), numbers("$1"))[1]

    assert line == "\u2068עוזר\u2069     $1"
    assert cell_len(line) == len("name  Total")


def test_a_name_cannot_move_the_cursor_or_reorder_the_line() -> None:
    """Terminal escapes, line breaks and direction overrides become a sign."""
    assert safe("a\x1b[2Jb\nc\u202ed\x9be") == "a\ufffd[2Jb\ufffdc\ufffdd\ufffde"


def test_a_plain_name_stays_as_it_is() -> None:
    """Nothing is lost of a name that does no harm."""
    assert safe("café-研究-[red]-👩‍👩‍👧") == "café-研究-[red]-👩‍👩‍👧"


@given(
    st.lists(st.text(max_size=40), min_size=1, max_size=5),
    st.integers(min_value=30, max_value=120),
)
def test_no_line_is_wider_than_the_terminal(cells: list[str], width: int) -> None:
    """Whatever the names, rows end in one column and inside the width."""
    shown = [safe(cell) for cell in cells]
    column = names(*shown, width_max=100)
    body = lines(column, numbers(*["$1.00"] * len(cells)), width=width)[:-1]

    assert len({cell_len(line) for line in body}) == 1
    assert cell_len(body[0]) <= width
