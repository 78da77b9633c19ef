"""What whoever sent a request may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from starlette.requests import HTTPConnection

from spraydry.errors import SprayDryError

Right = Literal["list", "read", "add", "overwrite", "delete"]
RIGHTS: tuple[Right, ...] = ("list", "read", "add", "overwrite", "delete")


class Refused(SprayDryError):
    """The token, or its lack, does not give that right; `known` tells whether there was a good token at all."""

    def __init__(self, text: str, known: bool) -> None:
        super().__init__(text)
        self.known = known


@dataclass(frozen=True)
class Grant:
    """Everything is allowed: what a server on loopback without tokens gives."""

    def allows(self, right: Right, *, namespace: str = "", root: str = "", hoard: str = "") -> bool:
        """Whether `right` is given, to a namespace of the store, a root, or a hoard."""
        return True

    def require(self, right: Right, *, namespace: str = "", root: str = "", hoard: str = "") -> None:
        """Raises Refused unless it is."""
        if not self.allows(right, namespace=namespace, root=root, hoard=hoard):
            raise Refused(f"this token does not give the right to {right} there", True)


def grant_of(request: HTTPConnection) -> Grant:
    """The grant of the request's token; set by the middleware in front of all handlers."""
    grant: Grant = request.scope["spraydry.grant"]
    return grant
