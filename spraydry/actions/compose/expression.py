"""Expressions: `base@v3 + models@v7:weights -> opt/weights - secret`, read into steps; each knows where it stands."""

from __future__ import annotations

import os
from dataclasses import dataclass

from spraydry.errors import ExpressionError, UsageError
from spraydry.repository.address import Address, parse

PLUS, MINUS, ARROW = "+", "-", "->"
_OPERATORS = (PLUS, MINUS, ARROW)
_BLANKS = " \t\r\n"


@dataclass(frozen=True)
class Lay:
    """A term: what an address names is laid over all before it, at `target`, b"" for the top; None for where it goes by
    itself: a folder's contents at the top, anything else there under its name."""

    address: Address
    target: bytes | None
    place: int


@dataclass(frozen=True)
class Cut:
    """A path that is cut out of all before it."""

    path: bytes
    place: int


Step = Lay | Cut


@dataclass(frozen=True)
class _Word:
    text: str
    place: int
    operator: bool


def is_expression(text: str) -> bool:
    """Whether a text that names nothing as an address may be meant as an expression: it has an operator or a quote."""
    return has_operator(text) or any(quote in text for quote in "\"'")


def has_operator(text: str) -> bool:
    """Whether one of the words of a text, quoted or not, is an operator."""
    return any(word in _OPERATORS for word in text.split())


def read(text: str) -> list[Step]:
    """The steps of an expression, from left to right; the first one is a term. Raises ExpressionError."""
    words = _words(text)
    steps: list[Step] = []
    at = 0
    operator = PLUS
    while True:
        if at == len(words):
            what = "a path to cut" if operator == MINUS else "an address, ROOT[@VERSION][:PATH],"
            raise ExpressionError(f"{what} is missing" if steps else "the expression is empty", text, len(text))
        word = words[at]
        if word.operator:
            hint = f" (a name like that is quoted: '{word.text}')" if steps else ""
            raise ExpressionError(f"something is missing before {word.text}{hint}", text, word.place)
        at += 1
        if operator == MINUS:
            path = _path(text, word, "to cut")
            if not path:
                raise ExpressionError("this would cut out everything", text, word.place)
            steps.append(Cut(path, word.place))
        else:
            address, target = _address(text, word), None
            if at < len(words) and words[at].operator and words[at].text == ARROW:
                if at + 1 == len(words) or words[at + 1].operator:
                    raise ExpressionError("the path where it goes is missing", text, _end(text, words, at + 1))
                target = _path(text, words[at + 1], "where something goes")
                at += 2
            steps.append(Lay(address, target, word.place))
        if at == len(words):
            return steps
        word, at = words[at], at + 1
        if not word.operator or word.text == ARROW:
            what = "-> belongs behind an address" if word.operator else "an operator is missing here: +, - or ->"
            hint = "" if word.operator else "; a name with blanks is quoted"
            raise ExpressionError(what + hint, text, word.place)
        operator = word.text


def _end(text: str, words: list[_Word], at: int) -> int:
    return words[at].place if at < len(words) else len(text)


def _words(text: str) -> list[_Word]:
    """Words between blanks; quoted parts of them are taken as they are, and make no operator."""
    words: list[_Word] = []
    at = 0
    while at < len(text):
        if text[at] in _BLANKS:
            at += 1
            continue
        begin, parts = at, []
        while at < len(text) and text[at] not in _BLANKS:
            if text[at] not in "\"'":
                parts.append(text[at])
                at += 1
                continue
            end = text.find(text[at], at + 1)
            if end < 0:
                raise ExpressionError(
                    f"this {text[at]} is not closed (a name that has one is quoted with the other)", text, at
                )
            parts.append(text[at + 1 : end])
            at = end + 1
        words.append(_Word("".join(parts), begin, text[begin:at] in _OPERATORS))
    return words


def _address(text: str, word: _Word) -> Address:
    try:
        address = parse(word.text)
    except UsageError as error:
        raise ExpressionError(str(error), text, word.place) from None
    if any(sign in address.root for sign in (PLUS, ARROW)):
        raise ExpressionError(f"{address.root!r} names no root; operators stand between blanks", text, word.place)
    return address


def _path(text: str, word: _Word, what: str) -> bytes:
    parts = [part for part in os.fsencode(word.text).split(b"/") if part not in (b"", b".")]
    if b".." in parts or b"\0" in os.fsencode(word.text) or any(len(part) > 255 for part in parts):
        raise ExpressionError(f"{word.text!r} is no path {what}", text, word.place)
    return b"/".join(parts)


def written(steps: list[Step]) -> str:
    """The expression that `read` gives these steps for."""
    parts: list[str] = []
    for step in steps:
        if isinstance(step, Cut):
            parts += [MINUS, quoted(os.fsdecode(step.path))]
            continue
        parts += [PLUS] * bool(parts) + [quoted(str(step.address))]
        if step.target is not None:
            parts += [ARROW, quoted(os.fsdecode(step.target) or "/")]
    return " ".join(parts)


def quoted(word: str) -> str:
    """A word as it is written in an expression: quoted where it must be."""
    if word and word not in _OPERATORS and not any(sign in word for sign in _BLANKS + "\"'"):
        return word
    return '"' + word.replace('"', '"\'"\'"') + '"'
