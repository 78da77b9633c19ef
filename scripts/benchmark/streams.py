"""Trees that exist only as a tar stream, each a process of its own: `streams.py KIND FROM COUNT` writes one to stdout,
and how many files and folders it had to stderr.

    tree FROM COUNT     small files, some dozens in a folder, folders some levels deep
    flat FROM COUNT     the same files in one folder, by names in no order
    blocks FROM COUNT   files of 1 MiB, which compress about two to one

Every file is known by its number: its path, size and content are the same in every run, and differ from those of all
other numbers, so that nothing is deduplicated. Written for speed: it shares the machine with what is measured.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator

BLOCK = 1 << 20  # bytes of a file of `blocks`
OFTEN = 1 << 20  # written at once
TIME = 1_700_000_000
FOLDER = 24  # files; every fourth group of four folders is one
ENDINGS = ("py", "json", "txt", "md", "h", "html")
WORDS = ("the", "of", "and", "to", "in", "is", "for", "on", "with", "as", "by", "from", "an", "be", "are")
MASK = (1 << 64) - 1


def scrambled(number: int) -> int:
    """64 bits in no order, other ones for every number."""
    number = (number ^ number >> 29) * 0xBF58476D1CE4E5B9 & MASK
    return (number ^ number >> 32) * 0x94D049BB133111EB & MASK


def tree_path(number: int) -> str:
    """Up to sixteen folders in each; the files are in the last ones."""
    folder = number // FOLDER
    if scrambled(folder >> 2) & 3 == 0:
        folder &= ~3
    digits = f"{folder:04x}"
    ending = ENDINGS[scrambled(number) % len(ENDINGS)]
    return "/".join([*(f"part-{digit}" for digit in digits), f"item_{number:07d}.{ending}"])


def flat_path(number: int) -> str:
    return f"all/{scrambled(number):016x}.dat"


def block_path(number: int) -> str:
    return f"{number >> 16:04x}/{number >> 8 & 255:02x}/{number:08x}.bin"


PATHS = {"tree": tree_path, "flat": flat_path, "blocks": block_path}


class Contents:
    """Pieces of a pool of made-up text, each with its number in front: up to 640 bytes."""

    def __init__(self) -> None:
        rng = random.Random(1)
        names = [f"{rng.choice(WORDS)}_{rng.getrandbits(24):x}" for _ in range(3000)]
        self.pool = " ".join(rng.choice(WORDS if rng.random() < 0.6 else names) for _ in range(150_000)).encode()

    def get(self, number: int) -> bytes:
        bits = scrambled(number)
        at = bits % (len(self.pool) - 1000)
        return b"%d %x\n" % (number, bits) + self.pool[at : at + 20 + (bits >> 40) % 600]


class Blocks:
    """Pieces of a pool that is half noise, half repetition, with other letters for its letters in each."""

    def __init__(self) -> None:
        rng = random.Random(2)
        often = rng.randbytes(4 << 10)  # repeats within every chunk
        parts = []
        for _ in range(4096):
            at = rng.randrange(len(often) - 1024)
            parts += [rng.randbytes(1024), often[at : at + 1024]]
        self.pool = b"".join(parts)

    def get(self, number: int) -> bytes:
        letters = list(range(256))
        random.Random(number).shuffle(letters)
        at = scrambled(number) % (len(self.pool) - BLOCK)
        return self.pool[at : at + BLOCK].translate(bytes(letters))


# --- tar


def _rest(kind: bytes) -> tuple[bytes, int]:
    """What follows the checksum, and what it adds to that, the checksum itself being taken as blanks."""
    rest = kind + bytes(100) + USTAR
    return rest.ljust(512 - 156, b"\0"), sum(rest) + 8 * 32


USTAR = b"ustar\00000" + b"user".ljust(32, b"\0") + b"group".ljust(32, b"\0")
OF_FILE, OF_FOLDER = _rest(b"0"), _rest(b"5")


def header(path: bytes, size: int, when: int, folder: bool = False) -> bytes:
    """512 bytes; the path has at most 100."""
    fields = b"%07o\x000001750\x000001750\0%011o\0%011o\0" % (0o755 if folder else 0o644, size, when)
    rest, total = OF_FOLDER if folder else OF_FILE
    total += sum(path) + sum(fields)
    return path.ljust(100, b"\0") + fields + b"%06o\0 " % total + rest


def members(kind: str, first: int, count: int) -> Iterator[bytes]:
    """All of a tar stream but its end; every folder stands before what is in it."""
    path_of = PATHS[kind]
    content = (Blocks() if kind == "blocks" else Contents()).get
    made = {""}
    for number in range(first, first + count):
        path = path_of(number)
        folder = path[: path.rindex("/")]
        if folder not in made:
            parts = folder.split("/")
            for depth in range(1, len(parts) + 1):
                outer = "/".join(parts[:depth])
                if outer not in made:
                    made.add(outer)
                    yield header(outer.encode() + b"/", 0, TIME, folder=True)
        data = content(number)
        yield b"".join((header(path.encode(), len(data), TIME + number % 10_000_000), data, bytes(-len(data) % 512)))


def write(kind: str, first: int, count: int, target: int) -> int:
    """How many files and folders there were."""
    parts: list[bytes] = []
    waiting = entries = 0
    for part in members(kind, first, count):
        parts.append(part)
        entries += 1
        waiting += len(part)
        if waiting >= OFTEN:
            _write_all(target, b"".join(parts))
            parts, waiting = [], 0
    _write_all(target, b"".join([*parts, bytes(1024)]))
    return entries


def _write_all(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]


if __name__ == "__main__":
    try:
        print(write(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.stdout.fileno()), file=sys.stderr)
    except BrokenPipeError:  # who reads it has ended, and says why
        sys.exit(1)
