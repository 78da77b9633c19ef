"""The steps of an ingest: scan, order, read and cut, deduplicate and store, build trees, commit."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from spraydry.actions.commit import commit
from spraydry.actions.compose.surgery import folder_like
from spraydry.actions.compose.theatre import Part, Theatre
from spraydry.actions.ingest.attributes import entry_of
from spraydry.actions.ingest.build import build
from spraydry.actions.ingest.content import Hashed, Read, Reader
from spraydry.actions.ingest.nodes import Nodes
from spraydry.actions.ingest.processes import PROCESS_BYTES, Processes, read_all
from spraydry.actions.ingest.proposal import propose
from spraydry.actions.ingest.roots import Roots, told_apart
from spraydry.actions.ingest.scan import Findings, Scanner, Source
from spraydry.actions.progress import Done, Report, unheard
from spraydry.errors import CollectedMeanwhile, PathNotFound, StoreError, StoreFull, UsageError
from spraydry.format.chunker import DEFAULT_SPEC, parse_spec
from spraydry.format.classes import TREE
from spraydry.format.digest import digest
from spraydry.format.entry import DIRECTORY, Entry
from spraydry.format.frame import DEFAULT_LEVEL, LEVELS
from spraydry.format.version import check_new_name
from spraydry.parallel import default_threads
from spraydry.repository.leases import Lease, hold
from spraydry.repository.local import cache_folder
from spraydry.repository.repository import Repository
from spraydry.repository.runs import merge_runs
from spraydry.repository.scancache import ScanCache
from spraydry.repository.versions import Version
from spraydry.repository.writer import FRAME_TARGET_BYTES, Writer
from spraydry.stores.database.scratch import scratch_errors

DEFAULT_MEMORY_BYTES = 300 << 20
MIN_MEMORY_BYTES = 128 << 20
_BASE_BYTES = 100 << 20  # the interpreter, libraries and the scratch database's cache, measured
_PER_TASK_BYTES = 20 << 20  # a window, its chunks, the frames and compressor they keep busy

_MOUNT_OF_OURS = r"\S+ \S+ (\d+):(\d+) .* - (?:fuse\.spraydry |erofs \S*/spraydry/[0-9a-f]{32}/erofs-)"

_TRIES = 5


@dataclass(frozen=True)
class Ingested:
    """What came of an ingest. `version` is None after a dry run that would have made one.

    `files` and `size` count regular files, `unchanged_files` those that were not opened, being as they were at the last
    ingest. `problems` and `left_out` are (path, why); with problems the version is incomplete.
    """

    root: str
    version: Version | None
    new: bool
    named: bool
    files: int
    size: int
    unchanged_files: int
    read_files: int
    read_bytes: int
    new_bytes: int
    deduplicated_bytes: int
    stored_bytes: int
    seconds: float
    problems: list[tuple[bytes, str]] = field(default_factory=list)
    left_out: list[tuple[bytes, str]] = field(default_factory=list)


def ingest(
    repository: Repository,
    sources: Sequence[str | bytes],
    *,
    root: str | None = None,
    name: str | None = None,
    chunker: str | None = None,
    level: int = DEFAULT_LEVEL,
    exclude: Sequence[str] = (),
    one_file_system: bool = False,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    threads: int | None = None,
    dry_run: bool = False,
    progress: Report = unheard,
) -> Ingested:
    """Make the newest version of a root from files and directories, and from what the repository holds.

    One directory becomes the root itself; several sources, or a file, stand in it under their base names. A source
    `root:NAME[@VERSION][:PATH]` is what that address names; nothing of it is read. `root` is named after the one
    directory by default; `name` is the version's (v1, v2, ... by default). `chunker` is a spec
    string (default: the one of the root's newest version). `progress` is called from this thread, often.

    A tree that did not change makes no version. What cannot be read is left out and reported in the result. Raises
    UsageError, PathNotFound, VersionExists, StoreError; then and when interrupted, what was stored stays, unreferenced,
    and the next ingest goes on from it. It runs again by itself when what it rests on was collected meanwhile.
    """

    def once(lease: Lease | None = None) -> Ingested:
        return _ingest(
            repository,
            sources,
            root=root,
            name=name,
            chunker=chunker,
            level=level,
            exclude=exclude,
            one_file_system=one_file_system,
            memory_bytes=memory_bytes,
            threads=threads,
            dry_run=dry_run,
            progress=progress,
            lease=lease,
        )

    try:
        return once()
    except CollectedMeanwhile:
        pass
    # The source is still there. Others collect just now, so what it stores is listed from the first.
    with hold(repository, f"ingest of {root or 'a folder'}", writing=True, at_once=True) as lease:
        for _ in range(_TRIES - 2):
            with suppress(CollectedMeanwhile):
                repository.refresh()
                return once(lease)
        return once(lease)


def _ingest(
    repository: Repository,
    sources: Sequence[str | bytes],
    *,
    root: str | None,
    name: str | None,
    chunker: str | None,
    level: int,
    exclude: Sequence[str],
    one_file_system: bool,
    memory_bytes: int,
    threads: int | None,
    dry_run: bool,
    progress: Report,
    lease: Lease | None,
) -> Ingested:
    started = time.time_ns()
    clock = time.monotonic()
    paths, roots = told_apart(repository, sources)
    if not sources:
        raise UsageError("nothing was named to be ingested")
    if level not in LEVELS:
        raise UsageError(f"zstd has no level {level} (write one from {LEVELS[0]} to {LEVELS[-1]})")
    if memory_bytes < MIN_MEMORY_BYTES:
        raise UsageError(f"an ingest needs at least {MIN_MEMORY_BYTES >> 20}M of memory")
    if root is None and roots.sources:
        raise UsageError("what the repository holds goes into a root that is named: write --root NAME")
    root = root_name(paths, root)
    if name is not None:
        check_new_name(name, "version")
        repository.log.check_unused(root, name)
    newest = repository.log.newest(root)
    spec = chunker or (newest.record.spec if newest else DEFAULT_SPEC)
    threads = threads or default_threads()
    read_files = read_bytes = 0
    findings = Findings()
    _raise_descriptor_limit()
    with scratch_errors(), ExitStack() as stack:
        began_at = repository.log.head[0]
        opened, top = _sources(paths, roots, stack)
        reader = Reader([source.fd for source in opened], parse_spec(spec))
        nodes = Nodes()
        stack.callback(nodes.close)
        cache = ScanCache(repository, root, spec, [source.path for source in opened], create=not dry_run)
        stack.callback(cache.close)
        writer = stack.enter_context(
            Writer(repository, level, FRAME_TARGET_BYTES, threads, dry_run=dry_run, lease=lease)
        )
        stack.enter_context(kept(writer, dry_run))

        def keep(plain: bytes) -> bytes:
            writer.add(digest(plain), plain, TREE)
            return digest(plain)

        room = memory_bytes - _BASE_BYTES
        fds = [source.fd for source in opened]
        processes = Processes(reader, fds, spec, min(threads, room // 2 // PROCESS_BYTES))
        stack.callback(processes.close)

        def looking() -> None:
            processes.start(nodes.work_files)
            progress(Done("looking", nodes.files, nodes.bytes))

        scanner = Scanner(
            nodes,
            cache,
            findings,
            keep,
            exclude=exclude,
            one_file_system=one_file_system,
            own=_own_files(repository),
            own_devices=_own_devices(),
        )
        scanner.tick = looking
        scanner.scan(opened, top)
        processes.start(nodes.work_files)
        ahead = max(2, min(2 * threads, (room - processes.count * PROCESS_BYTES) // _PER_TASK_BYTES))
        for result in read_all(reader, nodes.work(), processes, threads, ahead):
            if isinstance(result, Hashed):
                reads = _large(reader, writer, result)
                read_bytes += sum(length for length, _ in result.runs)
            else:
                reads = result
                read_bytes += sum(read.size for read in reads)
            _store(writer, nodes, findings, opened, reads)
            read_files += len(reads)
            progress(Done("reading", read_files, read_bytes, nodes.work_files, nodes.work_bytes))
        progress(Done("making trees", read_files, read_bytes))
        theatre = stack.enter_context(Theatre(repository)) if roots.sources else None
        built = build(
            nodes,
            {source.name: source.path for source in opened},
            opened[0].path if top is None else b"",
            cache,
            started,
            theatre.keep if theatre else lambda name, plain: writer.add(name, plain, TREE),
        )
        if theatre is not None:
            built = roots.laid(theatre, built)
            theatre.store(writer, Part(built.entry, built.links))
        written = writer.finish()
        version: Version | None = None
        new = named = False
        if dry_run:
            new = newest is None or newest.record.entry != built.entry
        else:
            proposal = roots.joined(propose(root, name, built, spec, findings, written))
            committed = commit(repository, proposal, began_at)
            version, new, named = committed.version, committed.new, committed.named
            cache.commit(version.made_in, repository.log.digests[version.made_in - 1])
            merge_runs(repository)
            repository.store.flush()
        return Ingested(
            root=root,
            version=version,
            new=new,
            named=named,
            files=nodes.files + roots.totals.files,
            size=nodes.bytes + roots.totals.size,
            unchanged_files=nodes.known_files + roots.totals.files,
            read_files=nodes.work_files,
            read_bytes=nodes.work_bytes,
            new_bytes=written.plain_bytes,
            deduplicated_bytes=written.known_bytes,
            stored_bytes=written.stored_bytes,
            seconds=time.monotonic() - clock,
            problems=findings.problems,
            left_out=findings.left_out,
        )


def root_name(paths: Sequence[bytes], root: str | None) -> str:
    """The root's name: the one given, or that of the only source. Raises UsageError where neither fits."""
    if root is not None:
        check_new_name(root, "root")
        return root
    if len(paths) != 1:
        raise UsageError("several sources go into one root: name it with --root")
    root = os.fsdecode(os.path.basename(paths[0]))
    try:
        check_new_name(root, "root")
    except UsageError as error:
        raise UsageError(f"{error}: give another with --root") from None
    return root


def _sources(paths: Sequence[bytes], roots: Roots, stack: ExitStack) -> tuple[list[Source], Entry | None]:
    """The sources opened, in the order of their names; and the entry of the root, unless the only one is it."""
    sources: list[Source] = []
    statuses = []
    for path in paths:
        try:
            status = os.stat(path)
            directory = stat.S_ISDIR(status.st_mode)
            base = os.path.realpath(path) if directory else os.path.dirname(path)
            fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise PathNotFound(f"{os.fsdecode(path)} cannot be ingested: {error.strerror}") from None
        stack.callback(os.close, fd)
        if directory and len(paths) == 1 and not roots.sources:
            return [Source(path, path, b"", fd)], None
        name = os.path.basename(path)
        if not name:
            raise UsageError("the top of the file system has no name to stand under beside others: ingest it alone")
        if any(source.name == name for source in sources):
            raise UsageError(f"two sources are called {os.fsdecode(name)!r}: ingest the directory above them")
        sources.append(Source(path, path if directory else os.path.dirname(path), name, fd))
        statuses.append(status)
    if not sources:
        return [], folder_like(roots.sources[0][1].entry, b"")
    sources.sort(key=lambda source: source.name)
    newest = max(statuses, key=lambda status: status.st_mtime_ns)
    top = entry_of(b"", newest, 0, None, ())
    return sources, Entry(b"", DIRECTORY, 0o755, top.uid, top.gid, top.mtime_s, top.mtime_ns, 0, None, (), None)


def _large(reader: Reader, writer: Writer, hashed: Hashed) -> list[Read]:
    """Take the chunks of a window; at the end of its file, what became of the file."""
    unknown = writer.unknown([chunk.name for chunk in hashed.chunks])
    for chunk in hashed.chunks:
        writer.add(chunk.name, chunk.plain, chunk.frame_class, chunk.name not in unknown, part=True)
    stream = hashed.window.stream
    for length, name in hashed.runs:
        stream.content.add(length, name)
    for page in stream.pages:
        writer.add(page.name, page.plain, page.frame_class)
    stream.pages.clear()
    return [] if hashed.window.end is None else [reader.finish(hashed.window)]


def _store(writer: Writer, nodes: Nodes, findings: Findings, sources: Sequence[Source], reads: Sequence[Read]) -> None:
    unknown = writer.unknown([chunk.name for read in reads for chunk in read.chunks])
    for read in reads:
        for name_class, name, plain in read.chunks:
            # Most are known; of the others only they are kept, not all that was read with them.
            writer.add(name, bytes(plain) if name in unknown else plain, name_class, name not in unknown)
        if read.entry is not None:
            nodes.found(read.work.id, read.entry, read.size, read.same)
        if read.problem is not None:
            path = b"/".join((sources[read.work.source].base, read.work.directory + read.work.name))
            findings.problems.append((path, read.problem))


@contextlib.contextmanager
def kept(writer: Writer, dry_run: bool) -> Iterator[None]:
    """When an ingest is interrupted, publish what was stored, so that the next one need not store it again."""
    try:
        yield
    except BaseException as error:
        # A store that failed otherwise is not tried again: what it says of later writes cannot be relied on.
        if not dry_run and not (isinstance(error, StoreError) and not isinstance(error, StoreFull)):
            with contextlib.suppress(Exception):
                writer.keep()
        raise


def _own_files(repository: Repository) -> frozenset[tuple[int, int]]:
    """(device, inode) of the repository's own files and this machine's cache, which no ingest should hold."""
    own = set()
    candidates = [os.path.dirname(cache_folder(repository.config.repository))]
    for location in repository.store.locations():
        candidates += [location + ending for ending in ("", "-wal", "-shm", "-journal")]
    for candidate in candidates:
        with contextlib.suppress(OSError):
            status = os.stat(candidate)
            own.add((status.st_dev, status.st_ino))
    return frozenset(own)


def _own_devices() -> frozenset[int]:
    """The devices of mounts that spraydry made."""
    devices = set()
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            if match := re.match(_MOUNT_OF_OURS, line):
                devices.add(os.makedev(int(match[1]), int(match[2])))
    return frozenset(devices)


def _raise_descriptor_limit() -> None:
    """A walk holds one descriptor per level of depth."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 65536)), hard))
