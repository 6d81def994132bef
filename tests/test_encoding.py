"""What agents pass, as JSON: every kind of value, and the kinds that resist."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import json
import logging
import math
import pathlib
import random
import re
import sys
import threading
import types
import uuid
from typing import Any, NamedTuple

import msgspec
import pydantic
import pydantic.v1
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catenary import encoding
from catenary.encoding import MAX_DEPTH, encode, to_builtins


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, 2)


class Place(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Source:
    title: Any = None
    page: Any = 1


@dataclasses.dataclass(slots=True, repr=False)
class HalfMade:
    title: Any
    never_set: Any = dataclasses.field(init=False)


class Token(msgspec.Struct, rename="camel", tag="tok", omit_defaults=True):
    text_part: Any
    hits: Any = msgspec.field(default_factory=list)
    score: Any = 0
    maybe: Any = msgspec.UNSET


class Loose(msgspec.Struct):
    maybe: Any = msgspec.UNSET


class Row(msgspec.Struct, array_like=True):
    left: Any
    right: Any


class Answer(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    text: Any
    when: dt.datetime | None = None


class OldAnswer(pydantic.v1.BaseModel):
    text: Any


class Scalar:
    """As a NumPy scalar: only ``item``."""

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def item(self) -> Any:
        return self.value


class Vector(Scalar):
    """As a NumPy array: ``tolist``, ``item`` and ``size``."""

    size = 3

    def tolist(self) -> Any:
        return self.value


class Unknown:
    pass


class Hostile:
    """Raises whatever is asked of it."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __str__(self) -> str:
        raise RuntimeError("str")

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    def __hash__(self) -> int:
        return 7


class Mute:
    """Has no text, not even as an array."""

    def __str__(self) -> str:
        raise RuntimeError("str")

    def tolist(self) -> Any:
        raise RuntimeError("tolist")


class FailingModel:
    def model_dump(self, **_: Any) -> Any:
        raise ValueError("a field failed")


class Endless:
    """A model whose dump holds two more of its kind."""

    def model_dump(self, **_: Any) -> Any:
        return {"left": Endless(), "right": Endless()}


class Selfish(Scalar):
    def __init__(self) -> None:
        super().__init__(self)


class Zone(dt.tzinfo):
    def utcoffset(self, _: dt.datetime | None) -> dt.timedelta:
        raise ValueError("no such zone")

    dst = tzname = utcoffset  # type: ignore[assignment]


class Moment(dt.datetime):
    pass


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "not this"


def read(value: Any) -> Any:
    """Encode, check what holds for every output, and read it as a client would."""
    encoded = encode(value)
    text = encoded.decode("utf-8")
    seen = json.loads(text, parse_constant=lambda name: pytest.fail(f"not JSON: {name}"))
    assert depth(seen) <= MAX_DEPTH + 1
    assert to_builtins(value) == seen
    return seen


def depth(value: Any) -> int:
    parts = value.values() if isinstance(value, dict) else value
    return 1 + max(map(depth, parts), default=0) if isinstance(value, (dict, list)) else 0


def unencodable(name: str) -> dict[str, str]:
    return {"unencodable": name}


MOMENT = dt.datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=dt.UTC)
ID = uuid.UUID(int=7)

PLAIN_CASES: list[tuple[Any, Any]] = [
    (None, None),
    ("é \u2028 </script> \x00", "é \u2028 </script> \x00"),
    ({"a": [1, 2.5, True, None, -0.0]}, {"a": [1, 2.5, True, None, -0.0]}),
    ([math.nan, math.inf, -math.inf], [None, None, None]),
    (MOMENT, "2026-01-02T03:04:05.000600Z"),
    (Moment(2026, 1, 2), "2026-01-02T00:00:00"),
    ((MOMENT.date(), MOMENT.time()), ["2026-01-02", "03:04:05.000600"]),
    (dt.timedelta(days=1, seconds=3), "P1DT3S"),
    ((ID, decimal.Decimal("1.50")), [str(ID), "1.50"]),
    ([Colour.RED, Colour.PAIR], ["red", [1, 2]]),
    ([{1}, frozenset((2,)), collections.deque((3,)), range(2)], [[1], [2], [3], [0, 1]]),
    ([b"ab", bytearray(b"ab"), memoryview(b"ab"), memoryview(b"a b ")[::2]], ["YWI="] * 4),
    ([pathlib.PurePosixPath("/a/b"), Text("text")], ["/a/b", "text"]),
    (ValueError("no"), {"type": "ValueError", "message": "no"}),
    (Place(1, 2), [1, 2]),
    (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    (collections.defaultdict(list, a=[1]), {"a": [1]}),
    ([types.MappingProxyType({"a": 1}), collections.UserDict(a=2)], [{"a": 1}, {"a": 2}]),
    ([{"a": 1}.keys(), {"a": 1}.values()], [["a"], [1]]),
    (Source("t", MOMENT.date()), {"title": "t", "page": "2026-01-02"}),
    (HalfMade("t"), {"title": "t"}),
    (Token("x"), {"type": "tok", "textPart": "x"}),
    (Loose(), {}),
    (Row(1, Token("x", score=2)), [1, {"type": "tok", "textPart": "x", "score": 2}]),
    (Answer(text=[1], when=MOMENT), {"text": [1], "when": "2026-01-02T03:04:05.000600Z"}),
    (OldAnswer(text={"a": ID}), {"text": {"a": str(ID)}}),
    ([Scalar(3), Vector([1, 2]), array.array("d", [1.5])], [3, [1, 2], [1.5]]),
    (
        {1: "a", ID: "b", 1.5: "c", Colour.RED: "d"},
        {"1": "a", str(ID): "b", "1.5": "c", "red": "d"},
    ),
]


def without_addresses(value: object) -> str:
    """Name a case the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


@pytest.mark.parametrize(("value", "expected"), PLAIN_CASES, ids=without_addresses)
def test_value_has_its_documented_form(value: Any, expected: Any) -> None:
    assert read(value) == expected


@pytest.mark.parametrize(("value", "expected"), PLAIN_CASES, ids=without_addresses)
def test_form_is_the_same_beside_a_part_that_needs_the_careful_walk(
    value: Any, expected: Any
) -> None:
    assert read([value, {None: 2**64}]) == [expected, {"None": str(2**64)}]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (2**64 - 1, 2**64 - 1),
        (-(2**63), -(2**63)),
        (2**64, str(2**64)),
        (-(2**63) - 1, str(-(2**63) - 1)),
        (10**5000, unencodable("int")),
    ],
    ids=["largest", "smallest", "above", "below", "too long for Python's own text"],
)
def test_integers_stay_numbers_up_to_64_bits(number: int, expected: Any) -> None:
    for around in (lambda part: part, lambda part: {"n": [part]}, lambda part: ["0" * 99, part]):
        assert read(around(number)) == around(expected)


def test_digits_in_strings_are_not_taken_for_numbers() -> None:
    value = {"a": '\\"' + "9" * 40, "b": 'x\\\\"' + "8" * 30, "9" * 25: 1.0e-7}
    assert read(value) == value


def test_surrogates_join_their_other_half_or_become_the_replacement_character() -> None:
    assert read({"\ud800a": ["\ud83d\ude00", "x\udfff"]}) == {"\ufffda": ["😀", "x\ufffd"]}
    assert read(pathlib.PurePosixPath("caf\udce9")) == "caf\ufffd"
    assert read(Source("\udc00")) == {"title": "\ufffd", "page": 1}


@pytest.mark.parametrize(
    "key", [None, True, (1, 2), 1j, pathlib.PurePosixPath("p"), Text("text"), 2**70], ids=repr
)
def test_any_key_becomes_its_text(key: Any) -> None:
    assert read({key: 1}) == {"text" if isinstance(key, Text) else str(key): 1}


def test_last_of_equal_keys_counts() -> None:
    assert read({1: "a", "1": "b"}) == {"1": "b"}
    assert read({None: "a", "None": "b"}) == {"None": "b"}


def test_key_that_raises_is_named_by_its_class() -> None:
    assert read({Hostile(): 1, "b": 2}) == {"unencodable Hostile": 1, "b": 2}


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Unknown(), "Unknown"),
        (Unknown, "type"),
        (Hostile(), "Hostile"),
        (FailingModel(), "FailingModel"),
        (Selfish(), "Selfish"),
        (1j, "complex"),
        (MOMENT.replace(tzinfo=Zone()), "datetime"),
        (range(10**12), "range"),
        (ValueError(Hostile()), "ValueError"),
        (msgspec.UNSET, "UnsetType"),
    ],
    ids=lambda value: value if type(value) is str else "",
)
def test_only_the_offending_part_is_unencodable(value: Any, name: str) -> None:
    assert read({"a": [1, value], "b": "kept"}) == {"a": [1, unencodable(name)], "b": "kept"}


def test_model_keeps_the_fields_that_can_be_written() -> None:
    assert read(Answer(text=Unknown())) == {"text": unencodable("Unknown"), "when": None}


def test_model_writes_its_fields_as_it_writes_json() -> None:
    answer = Answer(text=pydantic.TypeAdapter(pydantic.HttpUrl).validate_python("http://a.test/x"))
    assert read(answer)["text"] == "http://a.test/x"


def test_generator_is_not_consumed() -> None:
    letters = iter("abc")
    generator = (letter for letter in letters)
    assert read([generator, letters]) == [
        unencodable("generator"),
        unencodable("str_ascii_iterator"),
    ]
    assert next(generator) == "a"


def test_huge_array_is_not_made_into_a_list() -> None:
    class Huge(Vector):
        size = 10**9

        def tolist(self) -> Any:
            pytest.fail("it was listed")

    assert read(Huge(None)) == unencodable("Huge")


def test_cycle_is_cut_where_it_closes() -> None:
    knot: dict[str, Any] = {"name": "a"}
    knot["self"] = [knot]
    source = Source("s")
    source.page = source
    assert read(knot) == {"name": "a", "self": [unencodable("dict")]}
    assert read(source) == {"title": "s", "page": unencodable("Source")}
    assert read([shared := [1], shared]) == [[1], [1]]


def test_shortest_value_that_nests_too_deep_is_found() -> None:
    assert (
        encode(json.loads("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))).count(b"[") == MAX_DEPTH
    )


@pytest.mark.parametrize("wrap", [lambda part: [part], lambda part: {"]": part, "[": "}"}])
def test_nesting_is_limited_for_the_wire(wrap: Any) -> None:
    value: Any = "leaf"
    for _ in range(MAX_DEPTH):
        value = wrap(value)
    assert read(value) == value
    assert depth(read(wrap(value))) == MAX_DEPTH + 1
    assert depth(read(wrap(wrap(value)))) == MAX_DEPTH + 1


def test_wide_value_keeps_its_shape() -> None:
    value = [{"a": ["[", {}], "b": "}"} for _ in range(500)]
    assert read(value) == value


def test_knot_of_objects_ends_in_bounded_time() -> None:
    people: list[dict[str, Any]] = [{} for _ in range(30)]
    for person in people:
        person["knows"] = people
    assert b"unencodable" in encode(people)
    assert b"unencodable" in encode(Endless())


def test_encoded_value_can_be_encoded_again() -> None:
    value: Any = Unknown()
    for _ in range(MAX_DEPTH):
        value = [value]
    assert read(read(value)) == read(value)


def test_raw_that_is_no_json_is_a_marker_among_builtins() -> None:
    assert to_builtins([msgspec.Raw(b"{"), math.nan]) == [unencodable("Raw"), None]
    assert to_builtins([msgspec.Raw(b'{"a":1}')]) == [{"a": 1}]


def test_each_class_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    class Strange:
        pass

    with caplog.at_level(logging.WARNING, logger="catenary.encoding"):
        for _ in range(3):
            encode([Strange(), Strange()])
    assert [record.getMessage() for record in caplog.records] == [
        "Strange cannot be encoded as JSON (there is no rule for it); readers see a marker."
    ]


def test_number_of_logged_classes_is_bounded() -> None:
    for number in range(2 * encoding._MAX_WARNINGS):
        encode(type(f"Kind{number}", (), {})())
    assert len(encoding._warned) == encoding._MAX_WARNINGS
    encoding._warned.clear()


def test_what_is_not_an_exception_passes() -> None:
    class Stopping:
        def model_dump(self, **_: Any) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode([Stopping()])


def test_value_may_encode_while_it_is_encoded() -> None:
    class Nested:
        def model_dump(self, **_: Any) -> Any:
            return {"inner": encode({"a": Scalar(1)}).decode()}

    assert read([Nested(), {None: Nested()}])[0] == {"inner": '{"a":1}'}


def test_threads_do_not_disturb_each_other() -> None:
    values = [[PLAIN_CASES[number % len(PLAIN_CASES)][0], {None: number}] for number in range(40)]
    expected = [encode(value) for value in values]
    wrong: list[int] = []

    def work() -> None:
        for _ in range(10):
            wrong.extend(n for n in range(40) if encode(values[n]) != expected[n])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    assert not wrong


texts = st.text(st.characters(codec=None), max_size=12) | st.from_regex(r'[\[\]{}"\\0-9]{0,30}')
leaves = (
    st.none() | st.booleans() | st.integers() | st.integers(2**60, 2**66) | st.floats() | texts
    | st.binary(max_size=9) | st.datetimes() | st.timedeltas() | st.decimals() | st.uuids()
    | st.sampled_from(Colour) | st.builds(Unknown) | st.builds(Mute) | st.builds(FailingModel)
    | st.builds(Selfish) | st.just(Unknown) | st.builds(iter, st.just(())) | st.complex_numbers()
)  # fmt: skip
keys = texts | st.integers() | st.none() | st.booleans() | st.floats() | st.builds(Mute)


def nested(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(parts, max_size=4)
    return (
        lists | lists.map(tuple) | lists.map(collections.deque)
        | st.dictionaries(keys, parts, max_size=4)
        | st.builds(Source, parts, parts) | st.builds(Token, parts, hits=parts)
        | st.builds(Row, parts, parts) | st.builds(Answer, text=parts)
        | st.builds(Scalar, parts) | st.builds(Vector, parts) | st.builds(ValueError, parts)
    )  # fmt: skip


@given(st.recursive(leaves, nested, max_leaves=30))
@settings(deadline=None, max_examples=300)
def test_whatever_comes_is_encoded_as_json(value: Any) -> None:
    read(value)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda parts: st.lists(parts, max_size=5) | st.dictionaries(st.text(), parts, max_size=5),
    max_leaves=30,
)


@given(json_values)
@settings(deadline=None)
def test_json_comes_back_unchanged(value: Any) -> None:
    assert json.dumps(read(value)) == json.dumps(value)


@given(json_values)
@settings(deadline=None)
def test_careful_walk_and_msgspec_agree(value: Any) -> None:
    assert read([value, 2**64])[0] == read(value)


tricky = st.sampled_from(['"]', '["', '\\"[', "\\\\]", '{"', "}", "[" * 40, "9" * 20, "", "\\"])


@given(st.integers(1, 60), st.lists(tricky, min_size=1, max_size=9), st.booleans())
@settings(deadline=None)
def test_verdict_on_depth_is_exact_whatever_strings_hold(
    levels: int, strings: list[str], in_dicts: bool
) -> None:
    value: Any = "leaf"
    for level in range(levels):
        text = strings[level % len(strings)]
        value = {text: value, "z": text} if in_dicts else [text, value, text]
    assert encoding._is_sound(msgspec.json.encode(value)) == (levels <= MAX_DEPTH)


def test_random_graphs_never_raise() -> None:
    """Objects that hold each other at random, with a printed seed."""
    seed = 20260102
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(200):
        nodes: list[Any] = [kind() for kind in (dict, list, Source, Scalar) * 3]
        for node in nodes:
            link(node, dice.choice([*nodes, 2**70]), dice.choice([*nodes, None]))
        read(nodes[0])


def link(node: Any, first: Any, second: Any) -> None:
    if isinstance(node, dict):
        node.update({None: first, "b": second})
    elif isinstance(node, list):
        node.extend([first, second])
    elif isinstance(node, Source):
        node.title, node.page = first, second
    else:
        node.value = first
