"""Nesting: the folders a value lies in below its namespace, made of the front of its name."""

from __future__ import annotations

LEVELS = 3  # 256 ** 3 folders are enough for anybody's frames
_LETTERS = 2
# No name can end so: a folder is never in the way of a value of the same letters that lies beside it.
_MARK = "="


def nested(name: str, depth: int) -> tuple[str, ...]:
    """The folders in which `name` lies at that depth, outermost first: at most `depth`, each of two letters.

    A name has only as many as it has whole pairs of letters: `nested("abcde", 3)` is `("ab=", "cd=")`.
    """
    pairs = min(depth, len(name) // _LETTERS)
    return tuple(name[_LETTERS * level : _LETTERS * (level + 1)] + _MARK for level in range(pairs))


def is_nest(folder: str) -> bool:
    """Whether a folder of that name may hold nested values."""
    return len(folder) == _LETTERS + 1 and folder.endswith(_MARK)


def letters(folder: str) -> str:
    """The two letters a nest's values have in common at its level."""
    return folder[:_LETTERS]
