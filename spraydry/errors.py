"""The one hierarchy of errors; each class carries its exit code, its errno and whether trying again can help."""

from __future__ import annotations

import errno as _errno


class SprayDryError(Exception):
    """Base of everything spraydry raises on purpose; its text is one line that says what is wrong and what to do.

    `exit_code` is what the command line returns, `errno` what a mount answers, `retryable` whether the same call may
    succeed later without anything being changed by hand.
    """

    exit_code = 1
    errno = _errno.EIO
    retryable = False


class UsageError(SprayDryError):
    """An argument that cannot be meant: a size that is no size, a name that does not fit."""

    exit_code = 2
    errno = _errno.EINVAL


class ExpressionError(UsageError):
    """An expression that cannot be read or done: `place` counts the characters of `expression` before the trouble."""

    def __init__(self, text: str, expression: str, place: int) -> None:
        super().__init__(text)
        self.expression = expression
        self.place = place


class SourceIncomplete(SprayDryError):
    """Some sources could not be read; everything else was kept."""

    exit_code = 3


class NotFound(SprayDryError):
    """Something that was named is not there: its text is `bare`, followed by `near`, which says what there is instead,
    of which not everybody may know."""

    exit_code = 4
    errno = _errno.ENOENT

    def __init__(self, text: str, near: str = "") -> None:
        super().__init__(text + near)
        self.bare = text


class RootNotFound(NotFound):
    """No root of that name."""


class VersionNotFound(NotFound):
    """The root has no version of that name."""


class PathNotFound(NotFound):
    """The version holds nothing at that path."""


class HoardNotFound(NotFound):
    """No hoard of that name."""


class KeyNotFound(NotFound, KeyError):
    """The hoard has no such key."""

    __str__ = Exception.__str__  # that of KeyError shows text as Python would write it


class ChunkNotFound(NotFound):
    """No frame is known that holds the chunk."""

    exit_code = 6
    errno = _errno.EIO


class VersionExists(SprayDryError):
    """The version name was used before, perhaps by a version removed since; names are never used twice."""

    exit_code = 5
    errno = _errno.EEXIST


class KeyExists(SprayDryError):
    """The hoard has that key, which was to be new."""

    exit_code = 5
    errno = _errno.EEXIST


class Conflict(SprayDryError):
    """Another transaction changed a key which this one rests on; beginning anew may help."""

    exit_code = 5
    errno = _errno.EAGAIN
    retryable = True


class CorruptData(SprayDryError):
    """Stored bytes are not what they should be."""

    exit_code = 6


class ChunkCorrupt(CorruptData):
    """Every copy of a chunk that was found decodes to other bytes than its name says."""


class FrameCorrupt(CorruptData):
    """A frame's bytes do not parse, or decode to something it does not claim to be."""


class DictionaryMissing(CorruptData):
    """A frame needs a dictionary which is gone or damaged."""


class StoreError(SprayDryError):
    """A store could not do what was asked."""

    exit_code = 7


class StoreNotFound(StoreError):
    """There is no repository at the given place."""

    exit_code = 4
    errno = _errno.ENOENT


class ValueNotFound(StoreError):
    """A store holds nothing under that name."""

    errno = _errno.ENOENT


class CollectedThere(ValueNotFound):
    """What a lazy clone lacks is not at its origin any more."""


class NotListed(StoreError):
    """A store cannot list what lies in a namespace, though it can be read by name."""


class StoreUnavailable(StoreError):
    """A store does not answer at present: locked by another process, unreachable."""

    retryable = True
    errno = _errno.EAGAIN


class CollectedMeanwhile(StoreUnavailable):
    """What a version in the making rests on was collected, and could not be read any more to be stored again."""


class StoreReadOnly(StoreError):
    """Something was to be written to a store that cannot be written."""

    errno = _errno.EROFS


class StoreFull(StoreError):
    """No room is left where the store lies."""

    exit_code = 8
    errno = _errno.ENOSPC


class NotARepository(StoreError):
    """The place holds something, but no spraydry repository."""

    exit_code = 6


class FormatTooNew(StoreError):
    """The repository was written by a newer spraydry."""

    exit_code = 9


class SlotTaken(StoreError):
    """Another writer won the log slot; read it and try the next."""

    retryable = True


class UploadRefused(StoreError):
    """What was sent to a server is not what its name, its index or the log say: it was not taken."""


class TooLarge(UsageError):
    """A request has more bytes, or asks for more, than a server takes at a time."""


class MountError(SprayDryError):
    """A mount could not be made or taken down."""

    exit_code = 10


class ImageImpossible(SprayDryError):
    """The tree holds something that a file system image of that kind cannot hold."""

    exit_code = 10


class RestoreError(SprayDryError):
    """What was named could not be put down faithfully."""

    exit_code = 3
