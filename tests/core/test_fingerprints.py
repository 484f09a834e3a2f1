"""Fingerprints: what is alike, what is not, and what a value cannot do to us."""

import enum
import json
import math
import os
import subprocess
import sys
import time
from collections import OrderedDict, UserDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from guardrails.core.fingerprints import fingerprint
from guardrails.core.plain import NODES_MAX, size_bytes

KEY = b"a key of this deployment"

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(st.text(max_size=4), inner, max_size=6)
    ),
    max_leaves=10,
)


TEXT = st.text("aß😀 ")


class NamedPair(NamedTuple):
    x: int
    y: int


def digest(value: object) -> str:
    return fingerprint(value, key=KEY)


def test_keeps_its_digests_between_releases() -> None:
    # Sessions outlive deployments: a change of these digests hides loops in them.
    value = {"q": "Größe", "n": [1, 2.5, True, None], "o": {"x": b"\x00"}}
    assert digest(value) == "ac5c7647f743b728c139cddc498350f7"
    assert digest({"city": "Berlin"}) == "ccd3397c66767d0a6178ddb4e3683e4c"


@pytest.mark.parametrize(
    "values",
    [
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}),
        (1, 1.0),
        (100, 1e2),
        (0, 0.0, -0.0),
        ([1, 2], (1, 2)),
        ("Größe", json.loads('"Gr\\u00f6\\u00dfe"')),
        ({3, 1, 2}, {2, 3, 1}, frozenset({1, 2, 3})),
        (math.nan, float("nan")),
        (b"ab", bytearray(b"ab")),
        ({"a": "b"}, OrderedDict(a="b")),
        ({("a", 1): 2, ("b", 1): 3}, {("b", 1): 3, ("a", 1): 2}),
        ("open", enum.StrEnum("State", {"OPEN": "open"})("open")),
        ([1, 2], NamedPair(1, 2)),
    ],
)
def test_takes_these_values_for_the_same(values: tuple[object, ...]) -> None:
    assert len({digest(value) for value in values}) == 1


@pytest.mark.parametrize(
    "values",
    [
        (["a", "b"], ["ab"], ["a", ["b"]], ["a", "b", ""]),
        (1, True, "1", b"1", [1], {1}, {1: 1}, 1.5, Decimal(1), None),
        (0, False, "", b"", [], {}, set[int](), None),
        ({}, {"a": None}, {"a": {}}, {"a": []}),
        ([1, 2], [2, 1]),
        ("x", "x ", "X"),
        ("é", "e\u0301"),  # NFC and NFD
        ("\ud800", "\udfff", "?", "😀", "\ud83d\ude00"),
        (math.nan, math.inf, -math.inf, "nan", 1.5, -1.5),
        (10**5000, 10**5000 * 2**9, -(10**5000), 2**53, 2**64, -(2**64)),
        ({"a": {"b": 1}, "c": 2}, {"a": {"b": 2}, "c": 1}),
        ({"a": "s1:b"}, {"as1:b": ""}),
        ({(1, 2)}, {(2, 1)}, {frozenset({1})}),
    ],
)
def test_tells_these_values_apart(values: tuple[object, ...]) -> None:
    assert len({digest(value) for value in values}) == len(values)


@given(left=JSON, right=JSON)
def test_agrees_with_equality_of_json(left: object, right: object) -> None:
    assert (digest(left) == digest(right)) == (_normal(left) == _normal(right))


def _normal(value: object) -> str:
    """Returns JSON with sorted keys and integral floats as integers."""

    def walk(value: object) -> object:
        if isinstance(value, dict):
            return {name: walk(member) for name, member in value.items()}
        if isinstance(value, list):
            return [walk(member) for member in value]
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            return int(value)
        return value

    return json.dumps(walk(value), sort_keys=True)


@given(value=st.dictionaries(st.text(max_size=30), JSON, max_size=6))
def test_ignores_the_order_of_keys(value: dict[str, object]) -> None:
    assert digest(dict(reversed(value.items()))) == digest(value)


@given(value=st.dictionaries(st.text(), st.text() | st.integers() | st.floats()))
def test_writes_a_flat_dict_in_one_go_as_it_writes_any(
    value: dict[str, object],
) -> None:
    assert digest(value) == digest(OrderedDict(value))


@pytest.mark.parametrize(
    "value",
    [
        {str(i).zfill(2_000): "x" * 1_990 for i in range(32)},
        {"n": 2**900, "m": -(2**5_000)},
        {"n": "x" * 2_001, "m": 1},
        {str(i): i for i in range(33)},
    ],
)
def test_writes_a_dict_at_the_bounds_of_one_go_as_it_writes_any(
    value: dict[str, object],
) -> None:
    assert digest(value) == digest(OrderedDict(value))


def test_depends_on_the_key_and_the_label() -> None:
    digests = {
        fingerprint("x", key=b"1"),
        fingerprint("x", key=b"2"),
        fingerprint("x", key=b"1", label="tool"),
        fingerprint("", key=b"1", label="toolx"),
    }
    assert len(digests) == 4
    assert all(len(bytes.fromhex(digest)) == 16 for digest in digests)


@pytest.mark.parametrize("key", [b"", b"x" * 65])
def test_refuses_a_key_that_is_none(key: bytes) -> None:
    with pytest.raises(ValueError, match="1 to 64 bytes"):
        fingerprint("x", key=key)


@pytest.mark.parametrize("kind", [dict, OrderedDict])
@pytest.mark.parametrize("inner", ["x", ["x"]])
def test_leaves_out_ignored_keys_of_the_outermost_dict_only(
    kind: type[dict[str, object]], inner: object
) -> None:
    def ignoring(**arguments: object) -> str:
        return fingerprint(kind(arguments), key=KEY, ignore=("at", "id"))

    assert ignoring(q=inner, at=1, id=7) == ignoring(id=8, q=inner) == ignoring(q=inner)
    assert ignoring(q=inner) == digest({"q": inner})
    assert ignoring(q=inner, a=1) != ignoring(q=inner)
    assert ignoring(q={"at": 1}) != ignoring(q={"at": 2})


def test_is_the_same_in_every_process() -> None:
    code = (
        "from guardrails.core.fingerprints import fingerprint as f\n"
        "v = [{'b': 1, 'a': {'x', 'y', 'zz'}}, set(map(str, range(9_000))), object()]\n"
        "print(f(v, key=b'k'), f({'a': 1}, key=b'k'))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={
                **os.environ,
                "PYTHONHASHSEED": seed,
                "PYTHONPATH": ":".join(sys.path),
            },
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


class Color(enum.Enum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True, slots=True)
class Order:
    id: int
    note: str = ""


@dataclass
class Line:
    order: Order
    count: int = 1


class Refund(BaseModel):
    order: int
    reasons: list[str] = []


@pytest.mark.parametrize(
    "values",
    [
        (Order(1), Order(2), Order(1, "x")),
        (Line(Order(1)), Line(Order(2)), Line(Order(1), 2)),
        (Refund(order=1), Refund(order=2), Refund(order=1, reasons=["late"])),
        (Color.RED, Color.BLUE),
        (date(2026, 1, 1), date(2026, 1, 2), datetime(2026, 1, 1)),
        (
            datetime(2026, 1, 1, 9),
            datetime(2026, 1, 1, 9, tzinfo=UTC),
            datetime(2026, 1, 1, 9, 0, 1),
        ),
        (timedelta(1), timedelta(2)),
        (Decimal("1.0"), Decimal("1.5")),
        (UUID(int=1), UUID(int=2)),
        (PurePosixPath("a"), PurePosixPath("b")),
    ],
)
def test_tells_plain_data_objects_apart_by_their_fields(
    values: tuple[object, ...],
) -> None:
    assert len({digest({"x": value}) for value in values}) == len(values)


def test_takes_equal_data_objects_for_the_same() -> None:
    assert digest(Refund(order=1)) == digest(Refund(order=1, reasons=[]))
    assert digest(Line(Order(1))) == digest(Line(Order(1)))


def test_knows_other_objects_by_the_name_of_their_type_only() -> None:
    # Addresses and counters change on every call and would hide every loop.
    assert digest(SimpleNamespace(a=1)) == digest(SimpleNamespace(a=2))
    assert digest(UserDict()) != digest(SimpleNamespace())
    assert digest(lambda: 1) == digest(print_nothing)


def print_nothing() -> None: ...


def test_consumes_no_iterator() -> None:
    numbers = (number for number in range(3))
    digest([numbers, {"n": numbers}])
    assert size_bytes(numbers) is None
    assert list(numbers) == [0, 1, 2]


class Touched(BaseException):
    """No `Exception`: nothing but the test may catch it."""


def _touched(*_: object, **__: object) -> object:
    if Hostile.is_armed:
        raise Touched
    return 0


class Hostile:
    is_armed = False


CONSTRUCTION = {"__new__", "__init__", "__init_subclass__", "__subclasshook__"}


def _hostile(base: type, *arguments: object) -> object:
    class Kind(type(base)):  # type: ignore[misc]
        __hash__ = __eq__ = __instancecheck__ = __subclasscheck__ = _touched

    names = {*dir(base), "__bool__", "__bytes__", "model_dump"} - CONSTRUCTION
    hooks = dict.fromkeys(names, _touched) | {"__class__": property(_touched)}
    return Kind(f"Hostile{base.__name__}", (base,), hooks)(*arguments)


@pytest.fixture
def armed() -> Iterator[None]:
    yield
    Hostile.is_armed = False


@pytest.mark.usefixtures("armed")
@pytest.mark.parametrize(
    ("base", "argument"),
    [
        (object, None),
        (str, "text" * 100),
        (int, 7),
        (float, 2.0),
        (bytes, b"bytes"),
        (bytearray, b"bytes"),
        (list, [1]),
        (tuple, [1]),
        (dict, {"a": 1}),
        (set, [1]),
        (frozenset, [1]),
        (Decimal, "1"),
    ],
)
def test_calls_no_method_of_the_value(base: type, argument: object) -> None:
    Hostile.is_armed = False
    arguments = () if argument is None else (argument,)
    hostile = _hostile(base, *arguments)
    as_key = {hostile: hostile, "a": 1}
    as_element = {hostile, "a"}
    Hostile.is_armed = True
    for value in (hostile, [hostile], {"a": hostile}, as_key, as_element):
        fingerprint(value, key=KEY, ignore=("a",))
        size_bytes(value)
    if base not in (object, Decimal):
        assert digest(hostile) == digest(base(argument))


def test_survives_a_class_that_lies_about_its_fields() -> None:
    foreign = Line.__dict__["__dict__"]
    liar = type("Liar", (), {"__dict__": foreign, "__dataclass_fields__": {"a": 1}})()
    assert digest(liar) == digest(liar) != digest("Liar")
    assert size_bytes(liar) is None


def _nested(depth: int) -> object:
    value: object = "core"
    for _ in range(depth):
        value = [value]
    return value


def _cyclic() -> list[object]:
    cycle: list[object] = ["x"]
    cycle += [cycle, {"again": cycle}]
    return cycle


HUGE = {
    "text": lambda: "x" * 10**7,
    "emoji": lambda: "😀" * (10**7 // 4),
    "bytes": lambda: bytearray(10**7),
    "texts": lambda: ["😀" * 65_536] * 40,
    "numbers": lambda: list(range(10**6)),
    "keys": lambda: {f"{n:050}": n for n in range(2 * 10**5)},
    "long keys": lambda: {"é" * 10**5 + str(n): n for n in range(50)},
    "set": lambda: {f"{n:050}" for n in range(2 * 10**5)},
    "rows": lambda: [{"id": n, "name": f"{n:040}"} for n in range(10**5)],
    "objects": lambda: [Order(n) for n in range(10**5)],
    "deep": lambda: _nested(10**5),
    "wide and deep": lambda: [[[_nested(100)] * 100] * 100] * 100,
    "cycle": _cyclic,
    "integer": lambda: 1 << 80_000_000,
    "integers": lambda: [1 << 4_000] * 20_000,
}


@pytest.mark.parametrize("name", HUGE)
def test_takes_milliseconds_for_any_value(name: str) -> None:
    # About 5 ms; ten times that on a busy machine. Without bounds it is seconds.
    value = HUGE[name]()
    for measured in (digest, size_bytes):
        assert min(_seconds(measured, value) for _ in range(5)) < 0.05
    assert digest(value) == digest(value)


def _seconds(function: Callable[[object], object], value: object) -> float:
    start = time.thread_time()  # Not the time of other processes.
    function(value)
    return time.thread_time() - start


def test_sees_length_and_both_ends_of_a_long_string() -> None:
    body = "x" * 10**6
    digests = {digest(t) for t in (body, body + "x", "y" + body[1:], body[:-1] + "y")}
    assert len(digests) == 4
    # Beyond the bounds two values may look alike.
    middle = len(body) // 2
    assert digest(body) == digest(f"{body[:middle]}y{body[middle + 1 :]}")


def test_sees_the_length_of_what_is_beyond_the_bounds() -> None:
    size = 3 * NODES_MAX
    assert digest([0] * size) != digest([0] * (size + 1))
    assert digest(dict.fromkeys(range(size))) != digest(dict.fromkeys(range(size + 1)))
    assert digest(set(range(size))) != digest(set(range(size + 1)))
    assert digest(_nested(10)) != digest(_nested(11))


def test_sees_small_arguments_beside_a_huge_one() -> None:
    def arguments(page: int) -> object:
        return {"a": [[0] * 100] * 1_000, "b": "x" * 10**6, "z": {"page": page}}

    assert digest(arguments(1)) != digest(arguments(2))


@given(value=st.recursive(st.from_type(object), st.tuples, max_leaves=5))
def test_never_raises(value: object) -> None:
    assert len(digest(value)) == 32
    size_bytes(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", 0),
        ("Größe", 7),
        (b"abc", 3),
        (bytearray(4), 4),
        ({"a": "bc"}, 7),  # {"a":"bc"} without its quotes, and one comma
        (["ab", ["c"]], 10),
        ("é" * 10**6, 2 * 10**6),
        (Order(1), 13),
        (object(), None),
        ([object()], None),
        ({"a": print_nothing}, None),
    ],
)
def test_measures_bytes(value: object, expected: int | None) -> None:
    assert size_bytes(value) == expected


@given(value=st.recursive(TEXT, lambda i: st.lists(i) | st.dictionaries(TEXT, i)))
def test_measures_json_without_quotes(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    exact = len(text.replace('"', "").encode())
    commas_too_many = text.count("[") + text.count("{")
    size = size_bytes(value)
    assert size is not None
    assert exact <= size <= exact + commas_too_many
