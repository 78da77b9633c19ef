"""Expressions: read into steps, written again, and where their errors stand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spraydry.actions.compose.expression import Cut, Lay, Step, is_expression, read, written
from spraydry.errors import ExpressionError
from spraydry.repository.address import Address

READ: dict[str, list[Step]] = {
    "base": [Lay(Address("base"), None, 0)],
    "  base@v3 + models@v7:weights -> opt/weights - secret ": [
        Lay(Address("base", "v3"), None, 2),
        Lay(Address("models", "v7", b"weights"), b"opt/weights", 12),
        Cut(b"secret", 47),
    ],
    "my-root@v1-2:a/b-c - a-b/-c": [Lay(Address("my-root", "v1-2", b"a/b-c"), None, 0), Cut(b"a-b/-c", 21)],
    "a -> /x//y/./ + b -> .": [Lay(Address("a"), b"x/y", 0), Lay(Address("b"), b"", 16)],
    """r:"two words" - '-' - "it's" - '"'""": [
        Lay(Address("r", None, b"two words"), None, 0),
        Cut(b"-", 16),
        Cut(b"it's", 22),
        Cut(b'"', 31),
    ],
    """a:x'+'y -> '->'""": [Lay(Address("a", None, b"x+y"), b"->", 0)],
}


@pytest.mark.parametrize("text", READ)
def test_what_is_read(text: str) -> None:
    assert read(text) == READ[text]


WRONG = {
    "": (0, "empty"),
    "   ": (3, "empty"),
    "a +": (3, "missing"),
    "a -": (3, "a path to cut is missing"),
    "a ->": (4, "goes is missing"),
    "a -> + b": (5, "goes is missing"),
    "- a": (0, "missing before -"),
    "a + + b": (4, "missing before \\+"),
    "a - - b": (4, "quoted: '-'"),
    "a b": (2, "operator is missing"),
    "a:one two": (6, "blanks is quoted"),
    "a - x -> y": (6, "belongs behind an address"),
    "a -> x -> y": (7, "belongs behind an address"),
    "a + 'b": (4, "not closed"),
    "a:it's": (4, "not closed"),
    "a - /": (4, "everything"),
    "a - ./.": (4, "everything"),
    "a - ../b": (4, "no path to cut"),
    "a -> b/../c": (5, "no path where"),
    "a -> b\0c": (5, "no path where"),
    "a + @v1": (4, "names nothing"),
    "a + :x": (4, "names nothing"),
    "a@ + b": (0, "names nothing"),
    "a:../b": (0, "'..'"),
    "a+b": (0, "between blanks"),
    "b + a->b": (4, "between blanks"),
    "a - " + "x" * 256: (4, "no path"),
}


@pytest.mark.parametrize("text", WRONG)
def test_where_an_error_stands(text: str) -> None:
    place, what = WRONG[text]
    with pytest.raises(ExpressionError, match=what) as raised:
        read(text)
    assert (raised.value.place, raised.value.expression) == (place, text)
    assert "\n" not in str(raised.value)


_words = st.text(st.sampled_from(" \t+->'\"a.é\udcff@"), min_size=1, max_size=6)
_parts = st.lists(_words.filter(lambda word: word not in (".", "..")), min_size=1, max_size=3).map(
    lambda parts: "/".join(parts).encode("utf-8", "surrogateescape")
)
_lays = st.builds(Lay, st.builds(Address, st.just("r-1"), st.sampled_from([None, "v1"]), _parts), _parts, st.just(0))


@given(
    st.builds(lambda first, rest: [first, *rest], _lays, st.lists(st.one_of(_lays, st.builds(Cut, _parts, st.just(0)))))
)
def test_what_was_written_is_read_again(steps: list[Step]) -> None:
    assert [replace(step, place=0) for step in read(written(steps))] == steps


def test_what_is_meant_as_an_expression() -> None:
    assert all(map(is_expression, ("a + b", "a -> b", "a - b", "a:'b'", "+")))
    assert not any(map(is_expression, ("a", "a-b@v-1:c+d", "a:b c", "")))
