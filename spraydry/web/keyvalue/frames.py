"""Uploaded frames and dictionaries: decoded before they are stored, and what was found in them lately remembered."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate

from spraydry.errors import CorruptData, DictionaryMissing, UploadRefused, ValueNotFound
from spraydry.format import frame as frames
from spraydry.format.digest import DIGEST_BYTES, digest
from spraydry.format.run import FrameInfo
from spraydry.repository.frames import frame_info
from spraydry.repository.repository import Repository

_REMEMBERED_BYTES = 32 << 20
_FRAME_BYTES = 400  # of a remembered frame, beside its chunks
_DICTIONARIES_BYTES = 32 << 20

Chunk = tuple[bytes, int, int]  # digest, offset, length


class Decoded:
    """What frames hold, as they were decoded here. Blocks; threads may share it. Memory is bounded."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, tuple[FrameInfo, bytes]] = OrderedDict()
        self._held = 0
        self._dictionaries: OrderedDict[bytes, frames.Dictionary] = OrderedDict()
        self._dictionaries_held = 0
        self._heard = (0, frozenset[bytes]())  # up to which slot, which frames were ever condemned

    def checked(self, name: str, value: bytes) -> tuple[FrameInfo, Sequence[Chunk]]:
        """What a frame holds that is to be stored under that name. Raises UploadRefused where it may not be."""
        if digest(value).hex() != name:
            raise UploadRefused(f"frame {name} was not stored: the bytes that came are not those of its name")
        if bytes.fromhex(name) in self._ever_condemned():
            raise UploadRefused(f"frame {name} was not stored: that one was given up, and names never come back")
        return self._decode(bytes.fromhex(name), value)

    def check_dictionary(self, name: str, value: bytes) -> None:
        """Raises UploadRefused unless that may be stored as a dictionary of that name."""
        if digest(value).hex() != name:
            raise UploadRefused(f"dictionary {name} was not stored: the bytes that came are not those of its name")
        if bytes.fromhex(name) in self._repository.log.dropped:
            raise UploadRefused(f"dictionary {name} was not stored: it was given up")
        try:
            frames.Dictionary.of(value)
        except CorruptData as error:
            raise UploadRefused(f"dictionary {name} was not stored: {error}") from None

    def of(self, name: bytes) -> tuple[FrameInfo, frozenset[Chunk]] | None:
        """What was found in a frame lately; None where that is not known any more."""
        with self._lock:
            if (known := self._known.get(name)) is None:
                return None
            self._known.move_to_end(name)
        info, packed = known
        chunks = (packed[at : at + _CHUNK] for at in range(0, len(packed), _CHUNK))
        return info, frozenset(
            (
                one[:DIGEST_BYTES],
                int.from_bytes(one[DIGEST_BYTES:-4], "little"),
                int.from_bytes(one[-4:], "little"),
            )
            for one in chunks
        )

    def read(self, name: bytes) -> tuple[FrameInfo, frozenset[Chunk]]:
        """What is in a frame that is stored, read and decoded. Raises UploadRefused where that cannot be done, and
        StoreUnavailable."""
        value = self._repository.store.get("frames", name.hex())
        if digest(value) != name:
            raise UploadRefused(f"frame {name.hex()} is damaged")
        info, chunks = self._decode(name, value)
        self.remember(info, chunks)
        return info, frozenset(chunks)

    def _decode(self, name: bytes, value: bytes) -> tuple[FrameInfo, Sequence[Chunk]]:
        try:
            head, plain = frames.decode(value, self._dictionary)
        except CorruptData as error:
            raise UploadRefused(f"frame {name.hex()} is not good: {error}") from None
        view = memoryview(plain)
        starts = accumulate(head.lengths, initial=0)
        chunks = [
            (digest(view[at : at + length]), at, length) for at, length in zip(starts, head.lengths, strict=False)
        ]
        return frame_info(name, head, len(value)), chunks

    def remember(self, info: FrameInfo, chunks: Sequence[Chunk]) -> None:
        """What is in a frame that is stored for good by now."""
        packed = b"".join(
            name + offset.to_bytes(4, "little") + length.to_bytes(4, "little") for name, offset, length in chunks
        )
        with self._lock:
            if info.name not in self._known:
                self._known[info.name] = info, packed
                self._held += len(packed) + _FRAME_BYTES
            while self._held > _REMEMBERED_BYTES:
                self._held -= len(self._known.popitem(last=False)[1][1]) + _FRAME_BYTES

    def _dictionary(self, name: bytes) -> frames.Dictionary:
        if name in self._repository.log.dropped:
            raise DictionaryMissing(f"dictionary {name.hex()} was given up")
        with self._lock:
            if (known := self._dictionaries.get(name)) is not None:
                self._dictionaries.move_to_end(name)
                return known
        try:
            found = frames.load_dictionary(name, self._repository.store.get("dictionaries", name.hex()))
        except ValueNotFound:
            raise DictionaryMissing(f"it needs dictionary {name.hex()}, which is not here") from None
        with self._lock:
            if name not in self._dictionaries:
                self._dictionaries[name] = found
                self._dictionaries_held += len(found.plain)
            while self._dictionaries_held > _DICTIONARIES_BYTES and len(self._dictionaries) > 1:
                self._dictionaries_held -= len(self._dictionaries.popitem(last=False)[1].plain)
        return found

    def _ever_condemned(self) -> frozenset[bytes]:
        slot = self._repository.log.head[0]
        if self._heard[0] != slot:
            self._heard = slot, frozenset(self._repository.log.ever_condemned())
        return self._heard[1]


_CHUNK = DIGEST_BYTES + 8
