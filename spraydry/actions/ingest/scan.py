"""Walking the sources of an ingest: every entry becomes a node; what was not changed is taken from the scan cache."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from spraydry.actions.ingest.attributes import KINDS, device_number, entry_of, outsized, read_xattrs
from spraydry.actions.ingest.ignore import IGNORE_FILE, Ignore
from spraydry.actions.ingest.nodes import Node, Nodes, Work, near
from spraydry.format.classes import class_of
from spraydry.format.entry import DIRECTORY, FILE, SYMLINK, Content, Entry, Xattrs, decode_entry, encode_entry
from spraydry.repository.scancache import Cached, CachedDirectory, ScanCache, folded, is_settled

_ENCODING, _ENCODING_ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass
class Findings:
    """What an ingest has to say besides its numbers; paths are as a user would write them."""

    problems: list[tuple[bytes, str]] = field(default_factory=list)
    left_out: list[tuple[bytes, str]] = field(default_factory=list)
    users: set[int] = field(default_factory=set)
    groups: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Source:
    """One thing to ingest: its absolute path, the directory its files are reached from (itself, or the one a file lies
    in), the name it stands under in the version (empty: it is the root itself), and an open descriptor of `base`."""

    path: bytes
    base: bytes
    name: bytes
    fd: int


@dataclass
class _Place:
    """A directory in which entries lie."""

    fd: int
    path: bytes  # absolute, for the cache and messages
    below: bytes  # from the source, empty or ending in a slash
    depth: int  # of the entries in it
    source: int
    prefix: bytes  # of paths in the version

    def __post_init__(self) -> None:
        self.near = near(self.below)


@dataclass
class _Directory(_Place):
    """A directory being walked."""

    node: Node
    names: Iterator[bytes]
    entry: Entry
    cached: Iterator[Cached]
    next_cached: Cached | None
    ignore: Ignore | None
    same: bool  # so far nothing differs from what the cache says
    patterns: Sequence[Ignore]  # what leaves names out


class Scanner:
    """Walks with directory descriptors, never by long paths: PATH_MAX does not matter, and no symlink is followed.

    For one thread. `keep(plain)` stores the bytes of attributes too large for an entry and gives their digest.
    """

    def __init__(
        self,
        nodes: Nodes,
        cache: ScanCache,
        findings: Findings,
        keep: Callable[[bytes], bytes],
        *,
        exclude: Sequence[str] = (),
        one_file_system: bool = False,
        own: frozenset[tuple[int, int]] = frozenset(),
        own_devices: frozenset[int] = frozenset(),
    ) -> None:
        """`own` are the (device, inode) of spraydry's own files and folders, `own_devices` those of its mounts."""
        self._nodes = nodes
        self._cache = cache
        self._findings = findings
        self._users, self._groups = findings.users, findings.groups
        self._keep = keep
        self._exclude = Ignore(b"", exclude, None) if exclude else None
        self._one_file_system = one_file_system
        self._own = own
        self._own_inodes = {inode for _, inode in own}
        self._own_devices = own_devices
        self.tick: Callable[[], None] = lambda: None

    def scan(self, sources: Sequence[Source], root: Entry | None) -> None:
        """Walk the sources. `root` is the entry of the directory that holds them; None where the only source is it."""
        depth = 0
        cached: dict[bytes, Cached] = {}
        if root is not None:
            if first := self._cache.find(b""):
                cached = {row.name: row for row in self._cache.rows(b"", first)}
            self._nodes.add(
                Node(self._nodes.new_id(), 0, DIRECTORY, b"", 0, 0, 0, 0, 0, encode_entry(root), False, False)
            )
            depth = 1
        for place, source in enumerate(sources):
            status = os.fstat(source.fd)
            name = os.path.basename(source.path)
            if source.base != source.path:
                status = os.lstat(name, dir_fd=source.fd)
                self._leaf(_Place(source.fd, source.base, b"", depth, place, b""), name, status, cached.get(name))
                continue
            prefix = source.name + b"/" if source.name else b""
            fd = os.open(b".", _DIRECTORY_FLAGS, dir_fd=source.fd)
            self._walk(self._enter(fd, status, source.path, b"", source.name, depth, place, prefix, None))

    def _enter(
        self,
        fd: int,
        status: os.stat_result,
        path: bytes,
        below: bytes,
        name: bytes,
        depth: int,
        source: int,
        prefix: bytes,
        ignore: Ignore | None,
    ) -> _Directory:
        first = self._cache.find(path)
        if first and (first.device, first.inode, first.ctime_ns) == (
            status.st_dev,
            status.st_ino,
            folded(status.st_ctime_ns),
        ):
            entry, same = decode_entry(first.entry), True
        else:
            entry, same = entry_of(name, status, 0, None, self._xattrs(read_xattrs(fd))), False
        cached = iter(self._cache.rows(path, first)) if first else iter(())
        names = sorted([name.encode(_ENCODING, _ENCODING_ERRORS) for name in os.listdir(fd)])
        if IGNORE_FILE in names:
            ignore = self._read_ignore(fd, path, below, ignore)
        node = Node(
            self._nodes.new_id(),
            depth,
            DIRECTORY,
            name,
            0,
            status.st_dev,
            status.st_ino,
            folded(status.st_mtime_ns),
            folded(status.st_ctime_ns),
            encode_entry(msgspec.structs.replace(entry, content=None)),
            False,
            False,
        )
        self._nodes.add(node)
        self._users.add(status.st_uid)
        self._groups.add(status.st_gid)
        return _Directory(
            fd,
            path,
            below,
            depth + 1,
            source,
            prefix,
            node,
            iter(names),
            entry,
            cached,
            next(cached, None),
            ignore,
            same,
            [patterns for patterns in (self._exclude, ignore) if patterns is not None],  # options first, as with git
        )

    def _walk(self, top: _Directory) -> None:
        stack = [top]
        try:
            while stack:
                here = stack[-1]
                entered = self._step(here)
                if entered is not None:
                    stack.append(entered)
                    continue
                stack.pop()
                os.close(here.fd)
                same = self._leave(here)
                if stack and not same:
                    stack[-1].same = False
        finally:
            for here in stack:
                os.close(here.fd)

    def _step(self, here: _Directory) -> _Directory | None:
        """Take names of a directory until one is a directory to enter; None when there are no more."""
        device = here.node.device
        for name in here.names:
            try:
                status = os.lstat(name, dir_fd=here.fd)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._problem(here, name, error)
                continue
            is_directory = stat.S_ISDIR(status.st_mode)
            if self._left_out(here, name, status, is_directory):
                continue
            cached = here.next_cached
            if cached is not None and cached.name == name and (cached.entry is None) is is_directory:
                here.next_cached = next(here.cached, None)
            else:
                cached = self._cached(here, name, is_directory)
            if not is_directory:
                if not self._leaf(here, name, status, cached):
                    here.same = False
                continue
            if cached is None:
                here.same = False
            path = here.path + b"/" + name
            try:
                fd = os.open(name, _DIRECTORY_FLAGS, dir_fd=here.fd)
            except OSError as error:
                self._problem(here, name, error)
                here.same = False
                self._unread_directory(here, name, status)
                continue
            if self._one_file_system and status.st_dev != device:
                self._findings.left_out.append((path, "another file system"))
                here.same = False
                self._unread_directory(here, name, status)
                os.close(fd)
                continue
            below = here.below + name + b"/"
            try:
                return self._enter(
                    fd, os.fstat(fd), path, below, name, here.depth, here.source, here.prefix, here.ignore
                )
            except OSError as error:
                os.close(fd)
                self._problem(here, name, error)
                here.same = False
                self._cache.forget(path)
        return None

    def _leave(self, here: _Directory) -> bool:
        """All names are done. True if the directory is as it was; then one node stands for it and all below."""
        gone = [] if here.next_cached is None else [here.next_cached]
        for cached in (*gone, *here.cached):
            here.same = False
            self._vanished(here, cached)
        if here.same:
            self._nodes.collapse(msgspec.structs.replace(here.node, entry=encode_entry(here.entry), whole=True))
        return here.same

    def _cached(self, here: _Directory, name: bytes, is_directory: bool) -> Cached | None:
        """What the cache knows of a name; what sorts before it has vanished."""
        while here.next_cached is not None and here.next_cached.name < name:
            here.same = False
            self._vanished(here, here.next_cached)
            here.next_cached = next(here.cached, None)
        cached = here.next_cached
        if cached is None or cached.name != name:
            return None
        here.next_cached = next(here.cached, None)
        if is_directory != (cached.entry is None):
            self._vanished(here, cached)
            return None
        return cached

    def _vanished(self, here: _Directory, cached: Cached) -> None:
        if cached.entry is None:
            self._cache.forget(here.path + b"/" + cached.name)

    def _leaf(self, here: _Place, name: bytes, status: os.stat_result, cached: Cached | None) -> bool:
        """Anything that is no directory. True if the cache knew it as it is."""
        kind = KINDS[stat.S_IFMT(status.st_mode)]
        device, inode, nodes = status.st_dev, status.st_ino, self._nodes
        size = status.st_size if kind == FILE else 0
        mtime_ns, ctime_ns = folded(status.st_mtime_ns), folded(status.st_ctime_ns)
        entry = None
        if (
            cached is not None
            and cached.inode == inode
            and cached.ctime_ns == ctime_ns
            and cached.mtime_ns == mtime_ns
            and cached.size == size
        ):
            entry = cached.entry
        id = nodes.new_id()
        if kind == FILE:
            nodes.files += 1
            nodes.bytes += size
            nodes.known_files += entry is not None
        if not id & 1023:
            self.tick()
        self._users.add(status.st_uid)
        self._groups.add(status.st_gid)
        hardlinked = status.st_nlink > 1
        known = entry is not None
        first = not hardlinked or nodes.first_of(device, inode, id, here.prefix + here.below + name)
        if entry is None and first:
            if kind == FILE:
                nodes.add_work(Work(id, class_of(name), name, here.below, here.source, device, inode, size), here.near)
            else:
                try:
                    entry = self._special(here.fd, name, kind, status)
                except OSError as error:
                    self._findings.problems.append((here.path + b"/" + name, error.strerror or str(error)))
        nodes.add(Node(id, here.depth, kind, name, size, device, inode, mtime_ns, ctime_ns, entry, hardlinked, False))
        return known and not hardlinked

    def _special(self, fd: int, name: bytes, kind: int, status: os.stat_result) -> bytes:
        content: Content = None
        size = 0
        if kind == SYMLINK:
            content = os.readlink(name, dir_fd=fd)
            size = len(content)
        elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            content = device_number(status)
        xattrs = self._xattrs(read_xattrs(b"/proc/self/fd/%d/%s" % (fd, name)))
        return encode_entry(entry_of(name, status, size, content, xattrs))

    def _unread_directory(self, here: _Directory, name: bytes, status: os.stat_result) -> None:
        """A directory that stays empty: it could not be opened, or is the root of another file system."""
        self._cache.forget(here.path + b"/" + name)  # the version made now does not hold what it says
        entry = encode_entry(entry_of(name, status, 0, None, ()))
        self._nodes.add(
            Node(
                self._nodes.new_id(),
                here.depth,
                DIRECTORY,
                name,
                0,
                status.st_dev,
                0,  # no inode has this number: the cache will not take it for what it is not
                folded(status.st_mtime_ns),
                folded(status.st_ctime_ns),
                entry,
                False,
                False,
            )
        )

    def _left_out(self, here: _Directory, name: bytes, status: os.stat_result, is_directory: bool) -> bool:
        for ignore in here.patterns:
            if (said := ignore.says(here.below + name, is_directory)) is not None:
                if said:
                    return True
                break
        if status.st_ino in self._own_inodes and (status.st_dev, status.st_ino) in self._own:
            self._findings.left_out.append((here.path + b"/" + name, "spraydry's own"))
            return True
        if status.st_dev != here.node.device and status.st_dev in self._own_devices:
            self._findings.left_out.append((here.path + b"/" + name, "a spraydry mount"))
            return True
        return False

    def _read_ignore(self, fd: int, path: bytes, below: bytes, above: Ignore | None) -> Ignore | None:
        try:
            with open(os.open(IGNORE_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=fd), "rb") as file:
                lines = os.fsdecode(file.read(1 << 20)).splitlines()
            return Ignore(below, lines, above)
        except (OSError, ValueError) as error:
            self._findings.problems.append((path + b"/" + IGNORE_FILE, f"its patterns cannot be read: {error}"))
            return above

    def _xattrs(self, xattrs: Xattrs) -> Xattrs | bytes:
        plain = outsized(xattrs)
        return xattrs if plain is None else self._keep(plain)

    def _problem(self, here: _Directory, name: bytes, error: OSError) -> None:
        self._findings.problems.append((here.path + b"/" + name, error.strerror or str(error)))


def cached_directory(node: Node, entry: bytes, rows: Sequence[Cached], began_ns: int) -> CachedDirectory:
    """A directory as the cache keeps it, after its tree was made by an ingest that began at `began_ns`."""
    # What the directory itself is, is looked at again where it may not show that it changes: no ctime is negative.
    ctime_ns = node.ctime_ns if is_settled(node.ctime_ns, began_ns) else -1
    return CachedDirectory(node.device, node.inode, ctime_ns, entry, tuple(rows))
