"""Bytes that whatever fits a regular expression must hold: looking for those first is many times faster."""

from __future__ import annotations

import re

_SPECIAL = frozenset(b".^$*+?{}[]\\|()")
_QUANTIFIER = re.compile(rb"[*?+]|\{\d*,?\d*\}")
_CLASS = re.compile(rb"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_ESCAPED = frozenset(b"\\.^$*+?{}[]|()-/ \"'#&~<>=!%,:;@`_")  # escaped, these are themselves


def literal(pattern: bytes) -> bytes:
    """The longest run of bytes that is in everything a regular expression fits; empty where none is certain.

    Only what stands outside of groups, classes and alternatives is looked at; the pattern has been compiled before.
    """
    runs: list[bytes] = []
    run = bytearray()
    depth = at = 0

    def end() -> None:
        runs.append(bytes(run))
        run.clear()

    while at < len(pattern):
        byte = pattern[at]
        step, one = 1, b""
        if byte == 0x5C:  # a backslash
            step = 2
            follows = pattern[at + 1 : at + 2]
            if follows[0] in _ESCAPED:
                one = follows
            elif follows in b"xuUN0123456789":
                return b""  # a byte by its number, or a group again: rare, and long to tell apart
        elif byte == 0x5B:  # a class
            if not (found := _CLASS.match(pattern, at)):
                return b""
            step = found.end() - at
        elif byte == 0x28:
            if pattern[at + 1 : at + 2] == b"?" and pattern[at + 2 : at + 3] not in (b":", b"P"):
                return b""  # flags, or what must not follow
            depth += 1
        elif byte == 0x29:
            depth -= 1
        elif byte == 0x7C:
            if depth == 0:
                return b""
        elif byte not in _SPECIAL:
            one = pattern[at : at + 1]
        at += step
        quantifier = _QUANTIFIER.match(pattern, at)
        if not one or depth:
            end()
        elif quantifier is None:
            run += one
        elif quantifier[0] == b"+":
            run += one
            end()
        else:
            end()
        if quantifier is not None:
            at = quantifier.end()
    end()
    return max(runs, key=len)
