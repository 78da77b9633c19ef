"""One change as a patch: a unified diff of text, a line that says so of what is no text or too long."""

from __future__ import annotations

from collections.abc import Iterator

from spraydry.actions.diff.diff import CHANGED, Change
from spraydry.actions.diff.lines import hunks
from spraydry.format.entry import FILE, SYMLINK, Entry
from spraydry.repository.repository import Repository
from spraydry.repository.stream import parts

MAX_TEXT_BYTES = 4 << 20  # of a file that is compared line by line: about 50 bytes of memory for each
_LOOKED_AT_BYTES = 8000  # a zero byte in so many at the beginning says that it is no text
_NO_END = b"\\ No newline at end of file\n"


def patch(repository: Repository, change: Change) -> Iterator[bytes]:
    """The lines of a patch, as `patch -p1` takes them; none where nothing but attributes changed.

    Paths that would not be one line are quoted as git quotes them. Reads the contents. Raises CorruptData and
    ChunkNotFound.
    """
    if change.was is not None:
        yield b"rename from %b\n" % quoted(change.was)
        yield b"rename to %b\n" % quoted(change.path)
        return
    if change.what == CHANGED and not {"content", "kind"} & {*change.aspects}:
        return
    before, after = _of_file(change.before), _of_file(change.after)
    if before is None and after is None:
        yield from _other(change)
        return
    names = (
        (b"/dev/null" if before is None else quoted(b"a/" + change.path)),
        (b"/dev/null" if after is None else quoted(b"b/" + change.path)),
    )
    if max(entry.size for entry in (before, after) if entry is not None) > MAX_TEXT_BYTES:
        yield b"Large files %b and %b differ\n" % names
        return
    old, new = (b"" if entry is None else _content(repository, entry) for entry in (before, after))
    if any(b"\0" in text[:_LOOKED_AT_BYTES] for text in (old, new)):
        yield b"Binary files %b and %b differ\n" % names
        return
    first = True
    for hunk in hunks(_lines(old), _lines(new)):
        if first:
            for mark, name in zip((b"---", b"+++"), names, strict=True):
                yield b"%b %b%b\n" % (mark, name, b"\t" * (b" " in name))  # or patch(1) takes the blank for its end
            first = False
        yield b"@@ -%b +%b @@\n" % (_span(hunk.old, hunk.old_length), _span(hunk.new, hunk.new_length))
        for line in hunk.lines:
            yield line if line.endswith(b"\n") else line + b"\n"
            if not line.endswith(b"\n"):
                yield _NO_END
    if first:  # an empty file: nothing a unified diff could show
        yield b"Empty file %b %b\n" % ((b"added", names[1]) if before is None else (b"removed", names[0]))


def quoted(name: bytes) -> bytes:
    """A name as it is; in quotes, with escapes, where it has control characters, quotes, backslashes, or a blank as its
    last byte."""
    if not name.endswith(b" ") and not any(map(_hidden, name)):
        return name
    return b'"%b"' % b"".join(b"\\%03o" % byte if _hidden(byte) else bytes((byte,)) for byte in name)


def _hidden(byte: int) -> bool:
    return byte < 32 or byte in b'"\\\x7f'


def _of_file(entry: Entry | None) -> Entry | None:
    return entry if entry is not None and entry.kind == FILE else None


def _other(change: Change) -> Iterator[bytes]:
    """A symlink's target, one line a side; directories and others have no content."""
    for mark, entry in ((b"-", change.before), (b"+", change.after)):
        if entry is not None and entry.kind == SYMLINK and isinstance(entry.content, bytes):
            yield b"%bsymlink %b -> %b\n" % (mark, quoted(change.path), quoted(entry.content))


def _content(repository: Repository, entry: Entry) -> bytes:
    read = parts(entry, repository.read_chunk)
    return b"".join(bytes(span.length) if chunk is None else bytes(chunk) for span, chunk in read)


def _lines(text: bytes) -> list[bytes]:
    """Lines with their line feeds; only those end a line."""
    found = [line + b"\n" for line in text.split(b"\n")]
    last = found.pop()[:-1]
    return [*found, last] if last else found


def _span(first: int, length: int) -> bytes:
    """Lines counted from 1; of none, the line before them."""
    return b"%d" % (first + 1) if length == 1 else b"%d,%d" % (first + (length > 0), length)
