"""The file `segments` of a folder: what it holds, its limits, its lock, and a counter of changes to its files."""

from __future__ import annotations

import os
import re
from binascii import crc32
from collections.abc import Iterator
from contextlib import contextmanager

from spraydry.errors import CorruptData, FormatTooNew, NotARepository, StoreNotFound, UsageError
from spraydry.segments.files import File, is_read_only, lock, sync_folder, unlock
from spraydry.segments.layout import FORMAT, GENERATION, GENERATION_AT, HEAD, HEAD_MAGIC, TOTALS, TOTALS_AT

DEFAULT_FILE_BYTES = 1 << 30
HEAD_NAME = "segments"
UNKNOWN = -2  # a generation that is never current
OWN_NAME = re.compile(r"[0-9]{8}\.(data|index)(\.tmp)?|[0-9]{8}-[0-9]{8}\.merged(\.tmp)?|segments|reserve")


class Head:
    """The head of one folder. Blocks; threads may share it."""

    def __init__(self, folder: str, create: bool, read_only: bool) -> None:
        """Raises StoreNotFound, NotARepository for a folder with other things in it. `read_only` becomes true where
        nothing can be written."""
        self.read_only = read_only
        self.path = os.path.join(folder, HEAD_NAME)
        self._file = self._made(folder) if create and not read_only else self._opened(folder)
        self.generation = UNKNOWN  # that of the view its user has

    def limits(self, max_file_size: int | None, max_files: int | None) -> tuple[int, int]:
        """The two limits: as they are kept, but for what is given here, which is kept from now on."""
        packed = self._file.read(HEAD.size, 0)
        if not packed.startswith(HEAD_MAGIC):
            if not packed:
                raise StoreNotFound(f"there is no repository at {os.path.dirname(self.path)}")
            raise NotARepository(f"{self.path} is no list of segments: name another folder")
        crc = crc32(packed[:-4]).to_bytes(4, "little")
        if len(packed) < HEAD.size or packed[-4:] != crc:
            raise CorruptData(f"{self.path} is damaged: remove this file alone and open the folder with `create`")
        _, version, files, file_bytes, _ = HEAD.unpack(packed)
        if version > FORMAT:
            raise FormatTooNew(f"{self.path} was written by a newer spraydry (format {version}): update spraydry")
        limits = file_bytes if max_file_size is None else max_file_size, files if max_files is None else max_files
        if limits != (file_bytes, files) and not self.read_only:
            self._file.write([_packed(*limits)], 0)
        return limits

    def lock(self) -> File:
        """Held until it is unlocked; shared by those who only read."""
        return lock(self.path, shared=self.read_only)

    def now(self) -> int:
        """The generation as it is: odd while the set of files is being changed."""
        return int.from_bytes(os.pread(self._file.fd, GENERATION.size, GENERATION_AT), "little")

    def is_current(self) -> bool:
        """Whether the view is of now, or somebody is at work on what comes after it."""
        return self.now() in (self.generation, self.generation + 1)

    def kept_totals(self) -> bytes:
        """As somebody kept them; to be checked."""
        return self._file.read(TOTALS.size, TOTALS_AT)

    def keep_totals(self, packed: bytes) -> None:
        """Under the lock."""
        self._file.write([packed], TOTALS_AT)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Around changes to the set of files, under the lock. The user's view must be the new one at the end."""
        self.generation = self._step()
        yield
        self.generation = self._step()

    def settle(self) -> None:
        """Under the lock: end a change whose maker died, so that everybody looks again."""
        if self.now() % 2 and not self.read_only:
            self._step()
            self.generation = UNKNOWN

    def _step(self) -> int:
        generation = self.now() + 1
        self._file.write([GENERATION.pack(generation)], GENERATION_AT)
        return generation

    def _made(self, folder: str) -> File:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if not os.path.exists(self.path):
            for name in os.listdir(folder):
                if not OWN_NAME.fullmatch(name):
                    raise NotARepository(f"{folder} holds other things ({name!r}): name an empty or a new folder")
        file = File(self.path, os.O_RDWR | os.O_CREAT)
        held = self.lock()
        try:
            if file.size() == 0:
                file.write([_packed(DEFAULT_FILE_BYTES, 0).ljust(GENERATION_AT + GENERATION.size, b"\0")], 0)
                os.fsync(file.fd)
                sync_folder(folder)
                sync_folder(os.path.dirname(folder))
        finally:
            unlock(held)
        return file

    def _opened(self, folder: str) -> File:
        try:
            if not self.read_only:
                try:
                    return File(self.path, os.O_RDWR)
                except OSError as error:
                    if not is_read_only(error):
                        raise
                    self.read_only = True
            return File(self.path)
        except (FileNotFoundError, NotADirectoryError):
            raise StoreNotFound(f"there is no repository at {folder}") from None


def check_limits(max_file_size: int | None, max_files: int | None) -> None:
    """Raises UsageError for limits that cannot be kept."""
    if max_file_size is not None and not 0 < max_file_size < 1 << 62:
        raise UsageError(f"not a size for segments: {max_file_size} (write max_file_size=64M, or leave it out)")
    if max_files is not None and not (max_files == 0 or 2 <= max_files < 1 << 31):
        raise UsageError(f"not a number of segments: {max_files} (max_files is 2 or more, or 0 for any number)")


def _packed(max_file_size: int, max_files: int) -> bytes:
    head = HEAD.pack(HEAD_MAGIC, FORMAT, max_files, max_file_size, 0)[:-4]
    return head + crc32(head).to_bytes(4, "little")
