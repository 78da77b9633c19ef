"""Frames as a store has them: read, decoded, and their chunks named by what they are."""

from __future__ import annotations

from itertools import accumulate

from spraydry.errors import CollectedThere, DictionaryMissing, ValueNotFound
from spraydry.format import frame as frames
from spraydry.format.digest import Buffer, digest
from spraydry.format.run import FrameInfo, Row
from spraydry.stores.base import Store


class Frames:
    """Reads frames and the dictionaries they need, which it keeps. Blocks; threads may share it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._dictionaries: dict[bytes, frames.Dictionary] = {}

    def decode_frame(self, name: bytes) -> tuple[FrameInfo, list[Row], Buffer]:
        """Read a frame and give its chunks' digests, computed from the bytes: what is in a row is verified by that."""
        return self.decoded(name, self._stored_frame(name))

    def plain_frame(self, name: bytes) -> tuple[frames.Header, Buffer]:
        """Read a frame; its chunks are not yet verified."""
        return frames.decode(self._stored_frame(name), self.dictionary)

    def _stored_frame(self, name: bytes) -> bytes:
        try:
            return self.store.get("frames", name.hex())
        except CollectedThere:
            raise
        except ValueNotFound:
            raise ValueNotFound(f"frame {name.hex()} is gone") from None

    def decoded(self, name: bytes, stored: bytes) -> tuple[FrameInfo, list[Row], Buffer]:
        """As `decode_frame`, of bytes that were read; that they are those of the name is not looked at."""
        head, plain = frames.decode(stored, self.dictionary)
        view = memoryview(plain)
        rows = [
            Row(digest(view[at : at + length]), 0, at, length)
            for at, length in zip(accumulate(head.lengths, initial=0), head.lengths, strict=False)
        ]
        return frame_info(name, head, len(stored)), rows, plain

    def lend_dictionary(self, dictionary: frames.Dictionary) -> None:
        """Decode frames with a dictionary from now on, whether the store has it or not."""
        self._dictionaries[dictionary.digest] = dictionary

    def dictionary(self, name: bytes) -> frames.Dictionary:
        """A dictionary by its digest. Raises DictionaryMissing."""
        if name not in self._dictionaries:
            try:
                plain = self.store.get("dictionaries", name.hex())
            except ValueNotFound:
                raise DictionaryMissing(f"dictionary {name.hex()} is gone") from None
            self._dictionaries[name] = frames.load_dictionary(name, plain)
        return self._dictionaries[name]


def frame_info(name: bytes, head: frames.Header, stored_bytes: int) -> FrameInfo:
    """What the index keeps of a frame."""
    return FrameInfo(name, head.frame_class, head.codec, head.level, head.dictionary, head.plain_bytes, stored_bytes)
