"""The folder of a dir store: finding, making, removing and listing what lies in it, at whatever depth."""

from __future__ import annotations

import errno
import heapq
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from operator import itemgetter

from spraydry.stores.base import is_key
from spraydry.stores.shared.files import open_file, open_folder, sync_folder
from spraydry.stores.shared.layout import Layout, Nest
from spraydry.stores.shared.nesting import LEVELS, is_nest, letters

_LIST_TOGETHER = 1 << 16  # names of one folder that are held at a time


@dataclass(frozen=True)
class Folder:
    """A store's folder, open for one operation, with the layout it had when that began. Methods raise OSError."""

    fd: int
    layout: Layout

    @contextmanager
    def open(self, nest: Nest) -> Iterator[int]:
        """A descriptor of a folder. Raises FileNotFoundError where there is none."""
        found = open_folder(self.fd, nest)
        try:
            yield found
        finally:
            os.close(found)

    def find(self, namespace: str, name: str) -> int | None:
        """A descriptor of a value's file, for reading; None if there is none."""
        nests = self.layout.nests(namespace, name)
        for nest in (*nests, *nests):  # twice: it may have gone from one that comes later to one that came before
            try:
                with self.open(nest) as folder:
                    file = open_file(folder, name)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno == errno.ELOOP:  # a link is no value
                    continue
                raise
            if stat.S_ISREG(os.fstat(file).st_mode):
                return file
            os.close(file)
        return None

    def make(self, nest: Nest, touched: set[Nest]) -> None:
        """Make a folder and those above it, unless it is there; where one was made is added to `touched`."""
        try:
            with self.open(nest):
                return
        except FileNotFoundError:
            pass
        for level, part in enumerate(nest):
            with self.open(nest[:level]) as above, suppress(FileExistsError):
                os.mkdir(part, 0o700, dir_fd=above)
                touched.add(nest[:level])
                if self.layout.folder_mode != 0o700:
                    with self.open(nest[: level + 1]) as made:
                        os.fchmod(made, self.layout.folder_mode)

    def holds(self, nest: Nest, name: str) -> bool:
        """Whether something of that name lies in a folder."""
        try:
            with self.open(nest) as folder:
                os.stat(name, dir_fd=folder, follow_symlinks=False)
                return True
        except FileNotFoundError:
            return False

    def unlink(self, nest: Nest, name: str, touched: set[Nest]) -> None:
        """Remove a file, if there is one, and the folders it leaves empty but for that of the namespace."""
        try:
            with self.open(nest) as folder:
                os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            return
        self.left(nest, touched)

    def left(self, nest: Nest, touched: set[Nest]) -> None:
        """Something went from a folder: note that, and remove the folders that are empty now."""
        touched.add(nest)
        with suppress(OSError):  # they are not empty
            for level in range(len(nest) - 1, 0, -1):
                with self.open(nest[:level]) as above:
                    os.rmdir(nest[level], dir_fd=above)
                touched.discard(nest[: level + 1])
                touched.add(nest[:level])

    def sync(self, touched: set[Nest]) -> None:
        """Make durable which names are in these folders."""
        for nest in touched:
            with self.open(nest) as folder:
                sync_folder(folder)
        touched.clear()


def walk(root: Folder, nest: Nest, front: str, after: str) -> Iterator[tuple[str, int | None]]:
    """Names behind `after` and sizes of the files in a folder and its nests, in order, whatever their depths, those at
    several once for each; no size where it went meanwhile, perhaps to another depth. All begin with `front`."""
    try:
        with root.open(nest) as folder:
            found = _folders(folder) if len(nest) <= LEVELS else ()
            nests = sorted(name for name in found if front + letters(name) >= after[: len(front) + 2])
            deeper = (value for name in nests for value in walk(root, (*nest, name), front + letters(name), after))
            yield from heapq.merge(_files(folder, front, after), deeper, key=itemgetter(0))
    except FileNotFoundError:
        return


def _folders(folder: int) -> Iterator[str]:
    with os.scandir(folder) as entries:
        yield from (entry.name for entry in entries if is_nest(entry.name) and entry.is_dir(follow_symlinks=False))


def _files(folder: int, front: str, after: str) -> Iterator[tuple[str, int | None]]:
    while True:
        with os.scandir(folder) as entries:
            names = heapq.nsmallest(
                _LIST_TOGETHER,
                (
                    entry.name
                    for entry in entries
                    if entry.name > after
                    and entry.name.startswith(front)
                    and is_key("frames", entry.name)
                    and entry.is_file(follow_symlinks=False)
                ),
            )
        for name in names:
            try:
                yield name, os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
            except FileNotFoundError:
                yield name, None
        if len(names) < _LIST_TOGETHER:
            return
        after = names[-1]
