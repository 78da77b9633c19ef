"""What whoever sent a request may do: rights, given by rules to what their patterns name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, cast, get_args

from spraydry.errors import SprayDryError, StoreReadOnly, UsageError

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

Right = Literal["list", "read", "add", "overwrite", "delete"]
RIGHTS: tuple[Right, ...] = get_args(Right)
_LOOKING: frozenset[Right] = frozenset({"list", "read"})
_PATTERN = re.compile(r"[^\x00-\x20\x7f,:=]{1,255}")


class Refused(SprayDryError):
    """The token, or its lack, does not give that right; `known` tells whether there was a good token at all."""

    def __init__(self, text: str, known: bool) -> None:
        super().__init__(text)
        self.known = known


@dataclass(frozen=True)
class Rule:
    """Rights to the namespaces, roots and hoards whose names match one of the patterns (`*` stands for any text), in
    the repositories whose names do. One without namespaces, roots and hoards gives them to everything there."""

    rights: frozenset[Right]
    namespaces: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    hoards: tuple[str, ...] = ()
    repositories: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether it is about everything there."""
        return not (self.namespaces or self.roots or self.hoards)

    @cached_property
    def matches(self) -> tuple[Callable[[str], object], ...]:
        """What tells whether a name of a namespace, root, hoard, repository is meant."""
        return (_match(self.namespaces), _match(self.roots), _match(self.hoards), _match(self.repositories))


@dataclass(frozen=True)
class Grant:
    """What one token gives in one repository. Any thread may ask it; it never changes.

    `name` is the token's, empty where there was none; `known` tells whether there was a good one (or a signed link).
    With `read_only` nothing may be written, whatever the rules say.
    """

    rules: tuple[Rule, ...] = ()
    name: str = ""
    known: bool = True
    read_only: bool = False

    def allows(self, right: Right, *, namespace: str = "", root: str = "", hoard: str = "") -> bool:
        """Whether `right` is given, to a namespace of the store, a root, or a hoard: to each that is named; where
        none is, to everything in the repository."""
        return not (self.read_only and right not in _LOOKING) and self._gives(right, namespace, root, hoard)

    def require(self, right: Right, *, namespace: str = "", root: str = "", hoard: str = "") -> None:
        """Raises Refused unless it is; StoreReadOnly where it would be, but nothing is written."""
        if not self._gives(right, namespace, root, hoard):
            if not self.known:
                raise Refused(
                    "this needs a token: send it as `Authorization: Bearer ...`, or set $SPRAYDRY_TOKEN", False
                )
            whose = "this token does not give" if self.name else "whoever has no token does not have"
            raise Refused(f"{whose} the right to {right} there", True)
        if self.read_only and right not in _LOOKING:
            raise StoreReadOnly("this server takes no changes: it only serves what is there")

    @property
    def anything(self) -> bool:
        """Whether it gives any right at all."""
        return any(rule.rights for rule in self.rules)

    def _gives(self, right: Right, namespace: str, root: str, hoard: str) -> bool:
        rules = [rule for rule in self.rules if right in rule.rights]
        if any(rule.whole for rule in rules):
            return True
        asked = [(kind, name) for kind, name in enumerate((namespace, root, hoard)) if name]
        return bool(asked) and all(any(rule.matches[kind](name) for rule in rules) for kind, name in asked)


NOTHING = Grant(known=False)
EVERYTHING = Grant((Rule(frozenset(RIGHTS)),))


def grant_of(request: HTTPConnection) -> Grant:
    """The grant of the request's token; set by the middleware in front of all handlers."""
    grant: Grant = request.scope["spraydry.grant"]
    return grant


def parse_rights(text: str) -> frozenset[Right]:
    """`read,list` as rights. Raises UsageError."""
    rights = [part.strip() for part in text.split(",")]
    for right in rights:
        if right not in RIGHTS:
            raise UsageError(f"{right!r} is no right: there are {', '.join(RIGHTS)}")
    return frozenset(cast("list[Right]", rights))


def check_patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    """The patterns, as a rule has them. Raises UsageError for what can match no name."""
    checked = tuple(patterns)
    for pattern in checked:
        if not _PATTERN.fullmatch(pattern):
            raise UsageError(f"{pattern!r} is no pattern: write a name, with * for any text, such as 'photos*'")
    return checked


def _match(patterns: tuple[str, ...]) -> Callable[[str], object]:
    parts = (".*".join(map(re.escape, re.split(r"\*+", pattern))) for pattern in patterns)
    return re.compile("|".join(parts) if patterns else r"(?!)", re.DOTALL).fullmatch
