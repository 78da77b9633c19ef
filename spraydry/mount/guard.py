"""What stands between a FUSE handler and pyfuse3's main loop, which an unforeseen exception would end."""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from pyfuse3 import FUSEError

from spraydry.errors import SprayDryError

P = ParamSpec("P")
T = TypeVar("T")


class Describing(Protocol):
    """Handlers that can say what a request was about."""

    def describe(self, handler: str, args: Sequence[Any]) -> str:
        """In words, for the log."""


D = TypeVar("D", bound=Describing)
Handler = Callable[Concatenate[D, P], Coroutine[Any, Any, T]]

log = logging.getLogger("spraydry.mount")


def guarded(handler: Handler[D, P, T]) -> Handler[D, P, T]:
    """Log an exception other than FUSEError, and answer EIO."""

    @functools.wraps(handler)
    async def guard(self: D, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await handler(self, *args, **kwargs)
        except FUSEError:
            raise
        except SprayDryError as error:
            log.error("%s of %s: %s", handler.__name__, self.describe(handler.__name__, args), error)
        except Exception:
            log.exception("%s of %s failed", handler.__name__, self.describe(handler.__name__, args))
        raise FUSEError(errno.EIO)

    return guard
