"""`spraydry ingest`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from spraydry.commands import terminal
from spraydry.commands.listing import missing_stores
from spraydry.commands.progress import Progress
from spraydry.commands.session import open_repository

if TYPE_CHECKING:
    from spraydry.actions.ingest import Ingested
    from spraydry.repository.repository import Repository
    from spraydry.repository.versions import Version

_SHOWN_PROBLEMS = 20


def ingest(
    *sources: str,
    root: str | None = None,
    as_: Annotated[str | None, Parameter(name="--as")] = None,
    exclude: Annotated[list[str] | None, Parameter(negative=())] = None,
    one_file_system: bool = False,
    level: int = 3,
    chunker: str | None = None,
    memory: str = "300M",
    threads: int | None = None,
    erofs_image: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Make a new version from directories, files, roots or a tar stream.

    Only what changed costs anything: files whose inode, size and times are as they
    were are not even opened, and what is stored already, in whatever version or
    root, is not stored again. A tree that did not change makes no version.

    One directory becomes the root itself; several sources, or a file, stand in it
    under their base names. Names in a file .spraydryignore (rules as in
    .gitignore) are left out. Exit code 3: something could not be read or changed
    while it was read; everything else was kept.

    For example:
        spraydry ingest ~/photos
        spraydry ingest ~/photos --as before-the-move --exclude '*.tmp'
        spraydry ingest /etc /usr/local/etc --root config
        spraydry ingest ~/site root:models@v7:weights --root deployed
        ssh host tar c /srv | spraydry ingest - --root srv

    Parameters
    ----------
    sources
        Directories and files; root:NAME[@VERSION][:PATH] for what the repository holds already, of which nothing is
        read (a file that is called so is written ./root:...); or - for a tar stream on standard input.
    root
        Name of the root; by default that of the one directory.
    as_
        Name of the version; by default v1, v2, and so on.
    exclude
        A pattern, as in .gitignore, for what to leave out; may be given several times.
    one_file_system
        Do not go into other mounted file systems.
    level
        zstd level, -7 to 22.
    chunker
        How files are cut: fastcdc:min=16K,avg=48K,max=256K, or fixed:size=64K; by default as the last time.
    memory
        Roughly the most memory to use.
    threads
        How many threads, and processes for many small files, read and compress; by default one per CPU.
    erofs_image
        Also make the image with which the engine erofs mounts the version at once, whatever its size.
    dry_run
        Read and count, but store nothing.
    json
        Print one JSON document.
    """
    from spraydry.actions.ingest import ingest as run
    from spraydry.actions.ingest import ingest_tar
    from spraydry.errors import UsageError
    from spraydry.format.chunker import parse_bytes

    if not sources:
        raise UsageError("name what to ingest: spraydry ingest DIR")
    stream = "-" in sources
    if stream and (len(sources) > 1 or root is None):
        raise UsageError("a tar stream comes alone and needs a name: spraydry ingest - --root NAME")
    if threads is not None and threads < 1:
        raise UsageError(f"--threads {threads}: at least 1")
    memory_bytes = parse_bytes(memory)
    image = ""
    with _repository(dry_run) as repository, Progress(quiet=json) as progress:
        try:
            if stream:
                assert root is not None
                result = ingest_tar(
                    repository,
                    sys.stdin.buffer,
                    root=root,
                    name=as_,
                    chunker=chunker,
                    level=level,
                    dry_run=dry_run,
                    progress=progress,
                )
            else:
                result = run(
                    repository,
                    sources,
                    root=root,
                    name=as_,
                    chunker=chunker,
                    level=level,
                    exclude=exclude or (),
                    one_file_system=one_file_system,
                    memory_bytes=memory_bytes,
                    threads=threads,
                    dry_run=dry_run,
                    progress=progress,
                )
        except KeyboardInterrupt:
            kept = "" if dry_run else "; what was stored is kept: run it again to go on"
            raise KeyboardInterrupt("interrupted" + kept) from None
        if erofs_image and result.version is not None and not dry_run:
            image = _make_image(repository, result.version, progress)
        missing = missing_stores(repository)
    _tell(result, dry_run, json)
    for text in missing:
        terminal.warn(text)
    if image and not json:
        terminal.line(f"  erofs image   {image}")
    return 3 if result.problems else 0


def _make_image(repository: Repository, version: Version, progress: Progress) -> str:
    """Make the image of a version, or say why there is none; what it takes up, in words."""
    from spraydry.actions.image import cached_image, make_image
    from spraydry.errors import ImageImpossible

    found = repository.resolve(str(version))
    try:
        path = cached_image(repository, found) or make_image(repository, found, progress=progress)
    except ImageImpossible as error:
        progress.note(f"{version} gets no erofs image: {error}")
        return ""
    return terminal.size(os.path.getsize(path))


def _repository(dry_run: bool) -> Repository:
    """The repository to write to; for a dry run one that is only read, or an empty one where there is none."""
    import spraydry
    from spraydry.errors import StoreNotFound

    if not dry_run:
        return open_repository(create=True, read_only=False)
    try:
        return open_repository()
    except StoreNotFound:
        return spraydry.open("memory:", create=True)


def _tell(result: Ingested, dry_run: bool, json: bool) -> None:
    for path, why in result.problems[:_SHOWN_PROBLEMS]:
        terminal.warn(f"{terminal.printable(path)}: {why}")
    if len(result.problems) > _SHOWN_PROBLEMS:
        terminal.warn(f"and {len(result.problems) - _SHOWN_PROBLEMS:,} more that could not be kept as they are")
    if json:
        version = result.version
        terminal.print_json(
            {
                "root": result.root,
                "version": version.name if version else None,
                "new": result.new,
                "files": result.files,
                "bytes": result.size,
                "unchanged_files": result.unchanged_files,
                "read_files": result.read_files,
                "read_bytes": result.read_bytes,
                "new_bytes": result.new_bytes,
                "deduplicated_bytes": result.deduplicated_bytes,
                "stored_bytes": result.stored_bytes,
                "seconds": round(result.seconds, 3),
                "problems": [{"path": path, "why": why} for path, why in result.problems],
                "left_out": [{"path": path, "why": why} for path, why in result.left_out],
                "dry_run": dry_run,
            }
        )
        return
    for path, why in result.left_out:
        terminal.line(f"left out: {terminal.printable(path)} ({why})")
    size, plural = terminal.size, terminal.plural
    if dry_run:
        terminal.line(
            f"{result.root}: a new version would be made" if result.new else f"{result.root}: nothing changed"
        )
    elif result.version is not None:
        incomplete = ", incomplete" if result.problems else ""
        if result.new:
            terminal.line(f"{result.version} is there{incomplete}")
        elif result.named:
            terminal.line(f"{result.version} is there: nothing changed, so it is another name of the newest version")
        else:
            terminal.line(f"nothing changed since {result.version}: no new version was made")
    took = terminal.duration(result.seconds)
    if result.read_bytes and result.seconds >= 0.1:
        took += f" ({size(result.read_bytes / result.seconds)}/s read)"
    terminal.line(f"  {plural(result.files, 'file')}, {size(result.size)} in {took}")
    terminal.line(f"  unchanged     {plural(result.unchanged_files, 'file')}")
    terminal.line(f"  read          {plural(result.read_files, 'file')}, {size(result.read_bytes)}")
    terminal.line(f"  deduplicated  {size(result.deduplicated_bytes)}")
    terminal.line(f"  new           {size(result.new_bytes)}, stored in {size(result.stored_bytes)}")
