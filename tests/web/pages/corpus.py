"""A repository to look at: photos, code, notes with many versions, a long directory, and what means harm."""

from __future__ import annotations

import random
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import spraydry
from spraydry.actions.hoard import Hoard
from spraydry.actions.ingest import ingest
from spraydry.actions.tag import tag
from spraydry.repository.repository import Repository
from tests.versions import make_version

MANY = 2600

SCRIPT = b"document.title='owned';fetch('/-/owned');parent.owned=1;window.owned=1"
EVIL_SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="120" height="80"'
    b' onload="' + SCRIPT + b'"><script>' + SCRIPT + b"</script>"
    b'<rect width="120" height="80" fill="teal"/><image href="/-/picture" width="1" height="1" onerror="'
    + SCRIPT
    + b'"/>'
    b'<foreignObject width="9" height="9"><body xmlns="http://www.w3.org/1999/xhtml"><img src="x" onerror="'
    + SCRIPT
    + b'"/></body></foreignObject><a xlink:href="javascript:'
    + SCRIPT
    + b'"><text y="20">a</text></a></svg>'
)
EVIL_HTML = (
    b"<!doctype html><meta http-equiv=refresh content='1;url=/-/owned'><title>innocent</title><body onload=\""
    + SCRIPT
    + b'"><script>'
    + SCRIPT
    + b'</script><img src=/-/picture onerror="'
    + SCRIPT
    + b'"><form id=f action=/-/owned method=post><button>go</button></form><script>document.forms[0].submit()</script>'
    b"<iframe src='javascript:parent.owned=1'></iframe><link rel=stylesheet href=/-/style><a href='javascript:"
    + SCRIPT
    + b"'>x</a><script type=module src=/evil@v1/evil.js></script>"
)
EVIL_README = (
    b"# Hello\n\n<script>" + SCRIPT + b'</script>\n<img src=x onerror="' + SCRIPT + b'">\n[x](javascript:owned)\n'
)
EVIL_NAMES = (
    b"<script>window.owned=1<!--",
    b'"><img src=x onerror=window.owned=1>',
    b"javascript:window.owned=1",
    b"'+window.owned+'",
    b"{{ 7 * 7 }}",
    b"not-utf8-\xff\xfe",
    b"line\nfeed",
    b"tab\tbell\x07escape\x1b[31m",
    "evil\u202egpj.exe".encode(),
    "\u05e9\u05dc\u05d5\u05dd.txt".encode(),
    b"percent%41%2f%00",
    b"question?mark#hash&and=is;semi",
    b"back\\slash 'quote' \"double\"",
    b" blank ",
    b"..%2f..%2fetc",
    b"@at:colon",
    "zero\u200bwidth".encode(),
    b"n" * 255,
)


def png(width: int, height: int, colour: Callable[[int, int], tuple[int, int, int]]) -> bytes:
    """A picture."""

    def part(kind: bytes, plain: bytes) -> bytes:
        return struct.pack(">I", len(plain)) + kind + plain + struct.pack(">I", zlib.crc32(kind + plain))

    rows = b"".join(b"\0" + bytes(v for x in range(width) for v in colour(x, y)) for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")


def sunset(seed: int, width: int = 240, height: int = 160) -> bytes:
    """A picture of a sky, another one for each seed."""
    rng = random.Random(seed)
    top, low = ([rng.randrange(20, 230) for _ in range(3)] for _ in range(2))
    x0, y0, r = rng.randrange(width), rng.randrange(height // 2, height), rng.randrange(18, 40)

    def colour(x: int, y: int) -> tuple[int, int, int]:
        if (x - x0) ** 2 + (y - y0) ** 2 < r * r:
            return 255, 236, 170
        a = y / height
        return tuple(int(top[c] * (1 - a) + low[c] * a) for c in range(3))  # type: ignore[return-value]

    return png(width, height, colour)


def fill(repository: Repository, folder: Path) -> None:
    """Make all roots, with files kept in `folder` meanwhile."""
    _photos(repository, folder / "photos")
    _code(repository, folder / "toolbox")
    _notes(repository, folder / "notes")
    make_version(repository, "many", {b"entry-%05d.txt" % number: b"%d" % number for number in range(MANY)})
    make_version(repository, "evil", evil(b"1"))
    make_version(repository, "evil", evil(b"2"))
    make_version(repository, "bare", {})
    _hoards(repository)


def evil(mark: bytes) -> dict[bytes, object]:
    """A tree that means harm."""
    tree: dict[bytes, object] = {name: b"content of " + name + mark for name in EVIL_NAMES}
    tree[b"evil.svg"] = EVIL_SVG.replace(b"teal", b"teal" if mark == b"1" else b"navy")
    tree[b"evil.html"] = EVIL_HTML + mark
    tree[b"evil.js"] = SCRIPT
    tree[b"evil.xhtml"] = b'<html xmlns="http://www.w3.org/1999/xhtml"><script>' + SCRIPT + b"</script></html>"
    tree[b"evil.xml"] = (
        b'<?xml version="1.0"?><x:script xmlns:x="http://www.w3.org/1999/xhtml">' + SCRIPT + b"</x:script>"
    )
    tree[b"README.md"] = EVIL_README
    tree[b"picture.png"] = EVIL_HTML  # HTML that calls itself a picture
    tree[b"out"] = "/etc/passwd"
    tree[b"up"] = "../../outside"
    tree[b"script-link"] = "javascript:window.owned=1"
    tree[b"<b>folder"] = {b"<i>inner.py": b"print('</script><script>window.owned=1</script>')\n"}
    return tree


def _photos(repository: Repository, folder: Path) -> None:
    for year in (2023, 2024):
        (folder / str(year)).mkdir(parents=True)
        for number in range(8):
            (folder / str(year) / f"sunset-{number:02}.png").write_bytes(sunset(year * 10 + number))
    (folder / "README.md").write_text("# Photos\n\nEvery summer, by the sea.\n\n- 2023: Brittany\n- 2024: Sardinia\n")
    (folder / "albums.json").write_text('{\n  "albums": ["2023", "2024"],\n  "cover": "2024/sunset-01.png"\n}\n')
    ingest(repository, [str(folder)], root="photos")
    (folder / "2024" / "sunset-03.png").write_bytes(sunset(77))
    (folder / "2025").mkdir()
    for number in range(6):
        (folder / "2025" / f"evening-{number:02}.png").write_bytes(sunset(20250 + number, 320, 200))
    (folder / "albums.json").write_text(
        '{\n  "albums": ["2023", "2024", "2025"],\n  "cover": "2025/evening-01.png",\n  "public": false\n}\n'
    )
    ingest(repository, [str(folder)], root="photos")
    shutil.move(folder / "2023", folder / "brittany")
    (folder / "2025" / "evening-05.png").unlink()
    (folder / "empty").mkdir()
    (folder / "tone.wav").write_bytes(_wav())
    (folder / "leaflet.pdf").write_bytes(b"%PDF-1.4\n%%EOF\n")
    (folder / "link").symlink_to("2025/evening-01.png")
    ingest(repository, [str(folder)], root="photos")
    tag(repository, "photos@v2", "summer")


def _wav() -> bytes:
    samples = bytes(128 + (at // 20 % 2) * 40 for at in range(8000))
    return (
        b"RIFF"
        + struct.pack("<I", 36 + len(samples))
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8)
        + b"data"
        + struct.pack("<I", len(samples))
        + samples
    )


def _code(repository: Repository, folder: Path) -> None:
    source = Path(spraydry.__file__).parent
    shutil.copytree(source / "format", folder / "format", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "README").write_text("A toolbox.\n")
    ingest(repository, [str(folder)], root="toolbox")
    shutil.copytree(source / "stores" / "shared", folder / "shared", ignore=shutil.ignore_patterns("__pycache__"))
    digest = folder / "format" / "digest.py"
    digest.write_text(
        digest.read_text().replace("DIGEST_BYTES = 32", "DIGEST_BYTES = 64  # twice as long") + "\n# end\n"
    )
    (folder / "blob.bin").write_bytes(random.Random(1).randbytes(300_000))
    ingest(repository, [str(folder)], root="toolbox")
    digest.rename(folder / "format" / "names.py")
    ingest(repository, [str(folder)], root="toolbox")


def _notes(repository: Repository, folder: Path) -> None:
    folder.mkdir()
    rng = random.Random(3)
    words = ["water", "light", "stone", "river", "evening", "bread", "window", "north", "paper", "garden"]
    for number in range(24):
        text = "\n".join(" ".join(rng.choices(words, k=9)) for _ in range(rng.randrange(4, 90)))
        (folder / f"day-{number:02}.txt").write_text(text + "\n")
        (folder / "diary.txt").write_text(
            "\n".join(f"Day {day}: {words[day % 10]}" for day in range(number + 1)) + "\n"
        )
        ingest(repository, [str(folder)], root="notes")


def _hoards(repository: Repository) -> None:
    with Hoard("avatars", repository=repository) as hoard:
        hoard.put_many((f"2026/{number:03}.txt", b"%d\n" % number) for number in range(300))
        hoard["alice.png"] = sunset(1)
        hoard["alice.png"] = sunset(2)
        hoard["<script>window.owned=1"] = EVIL_HTML
        hoard["gone"] = b"x"
        del hoard["gone"]
