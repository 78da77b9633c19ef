"""Real trees to measure on, each as two versions v1 and v2, built from public packages, the same ones everywhere.

    src-versions  many releases of a source tree side by side; v2 has one more
    photos        wallpapers: JPEG, PNG, WebP; v2 has 3 % of the files edited
    json-small    200,000 small documents as applications keep them; v2 has 1 % of them edited
    big           one file of 1 GiB, made of tars of the others; v2 has 1 % of its bytes edited in 256 places

They need pip (which only downloads), for photos apt-get and dpkg-deb. Nothing is installed.
"""

from __future__ import annotations

import glob
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tarfile
from typing import IO, NamedTuple

from benchmark import documents
from benchmark.system import say

SEED = 20240607
BASE_TIME = 1700000000  # of everything that has no mtime of its own

SOURCE_PACKAGE = "Django"
SOURCE_RELEASES = (
    "4.0",
    "4.0.10",
    "4.1",
    "4.1.13",
    "4.2",
    "4.2.10",
    "4.2.20",
    "5.0",
    "5.0.14",
    "5.1",
    "5.1.8",
    "5.1.15",
    "5.2",
    "5.2.6",
)
SOURCE_NEXT = "5.2.8"
PHOTO_PACKAGES = (
    "gnome-backgrounds",
    "mate-backgrounds",
    "plasma-workspace-wallpapers",
    "lomiri-wallpapers-16.04",
    "lomiri-wallpapers-20.04",
    "ukui-wallpapers",
    "openclipart-png",
)
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".jxl")
CLIPART = 250  # the largest ones of openclipart-png, which has thousands
DOCUMENTS = 200_000
BIG_BYTES = 1 << 30
BIG_PARTS = {"photos": 40, "json-small": 20, "src-versions": 40}  # percent; the last fills what others leave
BIG_EDITS = 256


class Corpus(NamedTuple):
    name: str
    v1: str
    v2: str
    own: bool = False  # a folder of the user's


class CorpusError(Exception):
    """A corpus cannot be built here."""


class Builder:
    """Builds what is missing in one folder, which also keeps the downloads."""

    def __init__(self, folder: str, scale: float) -> None:
        self.downloads = os.path.join(folder, "downloads")
        self.folder = os.path.join(folder, f"scale-{scale:g}")
        self.scale = scale

    def get(self, name: str) -> Corpus:
        out = os.path.join(self.folder, name)
        if not os.path.exists(os.path.join(out, "complete")):
            say("building", name)
            if name == "big":
                for part in BIG_PARTS:
                    self.get(part)
            shutil.rmtree(out, ignore_errors=True)
            os.makedirs(os.path.join(out, "v1"))
            os.makedirs(self.downloads, exist_ok=True)
            BUILDERS[name](self, out)
            with open(os.path.join(out, "complete"), "w"):
                pass
        return Corpus(name, os.path.join(out, "v1"), os.path.join(out, "v2"))

    # --- Many versions of a source tree

    def source_versions(self, out: str) -> None:
        releases = SOURCE_RELEASES[: max(2, round(len(SOURCE_RELEASES) * self.scale))]
        for release in releases:
            self._unpack_release(release, os.path.join(out, "v1", release))
        stamp(os.path.join(out, "v1"), keep_files=True)
        copy(os.path.join(out, "v1"), os.path.join(out, "v2"))
        self._unpack_release(SOURCE_NEXT, os.path.join(out, "v2", SOURCE_NEXT))
        stamp(os.path.join(out, "v2"), keep_files=True)

    def _unpack_release(self, release: str, target: str) -> None:
        pattern = os.path.join(self.downloads, f"[{SOURCE_PACKAGE[0]}{SOURCE_PACKAGE[0].lower()}]*-{release}.tar.gz")
        if not glob.glob(pattern):
            options = ["-q", "--no-deps", "--no-binary", ":all:", "-d", self.downloads]
            command([*pip(), "download", *options, f"{SOURCE_PACKAGE}=={release}"])
        temporary = target + ".part"
        with tarfile.open(glob.glob(pattern)[0]) as archive:
            archive.extractall(temporary, filter="data")
        (inner,) = os.listdir(temporary)
        os.rename(os.path.join(temporary, inner), target)
        os.rmdir(temporary)

    # --- Photos

    def photos(self, out: str) -> None:
        for package in PHOTO_PACKAGES[: max(1, round(len(PHOTO_PACKAGES) * self.scale))]:
            pattern = os.path.join(self.downloads, f"{package}_*.deb")
            if not glob.glob(pattern):
                command(["apt-get", "-q", "download", package], cwd=self.downloads)
            unpacked = os.path.join(out, "unpacked")
            command(["dpkg-deb", "-x", glob.glob(pattern)[0], unpacked])
            found = [path for path in files_of(unpacked) if path.lower().endswith(PICTURES)]
            found.sort(key=lambda path: (-os.path.getsize(path), path))
            for path in found[: CLIPART if package == "openclipart-png" else None]:
                inner = os.path.relpath(path, unpacked).replace("usr/share/", "")
                target = os.path.join(out, "v1", package, inner)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                shutil.copyfile(path, target)
            shutil.rmtree(unpacked)
        stamp(os.path.join(out, "v1"))
        edited_copy(os.path.join(out, "v1"), os.path.join(out, "v2"), SEED + 2, 0.03)

    # --- Small documents

    def small_documents(self, out: str) -> None:
        rng = random.Random(SEED + 3)
        for number in range(int(DOCUMENTS * self.scale)):
            folder = os.path.join(out, "v1", f"{number % 251:02x}", f"{number // 251 % 8:x}")
            if number < 251 * 8:
                os.makedirs(folder)
            kind, ending, text = documents.document(rng)
            with open(os.path.join(folder, f"{kind}-{number:06d}.{ending}"), "w") as file:
                file.write(text)
        stamp(os.path.join(out, "v1"))
        edited_copy(os.path.join(out, "v1"), os.path.join(out, "v2"), SEED + 4, 0.01)

    # --- One big file

    def big(self, out: str) -> None:
        total = int(BIG_BYTES * self.scale)
        path = os.path.join(out, "v1", "big.bin")
        with open(path, "wb") as file:
            for number, (part, percent) in enumerate(BIG_PARTS.items(), 1):
                last = number == len(BIG_PARTS)
                self._append_tar(file, part, total - file.tell() if last else total * percent // 100)
            if file.tell() < total:
                raise CorpusError(f"{', '.join(BIG_PARTS)} are too small for it together")
        os.makedirs(os.path.join(out, "v2"))
        edit_big(path, os.path.join(out, "v2", "big.bin"), total)
        stamp(os.path.join(out, "v1"))
        stamp(os.path.join(out, "v2"), shift=6000000)

    def _append_tar(self, target: IO[bytes], part: str, wanted: int) -> None:
        same = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=ustar"]
        tree = os.path.join(self.folder, part, "v1")
        with subprocess.Popen(
            ["tar", *same, "-C", tree, "-c", "."], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as tar:
            assert tar.stdout is not None
            while wanted:
                block = tar.stdout.read(min(wanted, 1 << 20))
                if not block:
                    return  # Debian's wallpapers are not the same in every release
                target.write(block)
                wanted -= len(block)
            tar.kill()


BUILDERS = {
    "src-versions": Builder.source_versions,
    "photos": Builder.photos,
    "json-small": Builder.small_documents,
    "big": Builder.big,
}


def own(folder: str, work: str) -> Corpus:
    """A folder of the user's: v1 and v2 in it, or itself as v1 and an edited copy, made in `work`, as v2."""
    folder = os.path.realpath(folder)
    name = os.path.basename(folder) or "root"
    if {entry for entry in os.listdir(folder) if not entry.startswith(".")} - {"complete"} == {"v1", "v2"}:
        return Corpus(name, os.path.join(folder, "v1"), os.path.join(folder, "v2"), True)
    edited = os.path.join(work, "edited", name)
    edited_copy(folder, edited, SEED + 1, 0.01)
    return Corpus(name, folder, edited, True)


# --- Helpers


def command(words: list[str], cwd: str | None = None) -> None:
    try:
        ran = subprocess.run(words, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except FileNotFoundError:
        raise CorpusError(f"{words[0]} is not installed") from None
    if ran.returncode:
        said = ran.stdout.strip().split("\n")
        raise CorpusError(f"{' '.join(words)}: {' | '.join(said[-3:])}")


def pip() -> list[str]:
    """The pip of this Python, else that of the checkout's virtual environment."""
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    for python in (sys.executable, os.path.join(here, ".venv", "bin", "python")):
        words = [python, "-m", "pip", "--disable-pip-version-check"]
        if os.path.exists(python) and subprocess.run([*words, "--version"], capture_output=True).returncode == 0:
            return words
    raise CorpusError("no Python with pip is here to download with")


def files_of(tree: str) -> list[str]:
    """Every regular file, sorted."""
    return sorted(
        path
        for folder, _, names in os.walk(tree)
        for name in names
        if os.path.isfile(path := os.path.join(folder, name)) and not os.path.islink(path)
    )


def copy(tree: str, target: str) -> None:
    """The same with all its attributes."""
    shutil.rmtree(target, ignore_errors=True)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    command(["cp", "-a", "--", tree, target])


def stamp(tree: str, keep_files: bool = False, shift: int = 0) -> None:
    """The same modes and times in every build; those of files may be kept, where an archive gave them."""
    for folder, folders, names in os.walk(tree, topdown=False):
        for name in folders + names:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                os.utime(path, (BASE_TIME, BASE_TIME), follow_symlinks=False)
                continue
            if name in folders or not keep_files:
                digest = hashlib.blake2b(os.fsencode(os.path.relpath(path, tree)), digest_size=3)
                when = BASE_TIME + int.from_bytes(digest.digest(), "big") + shift
                os.utime(path, (when, when))
            os.chmod(path, 0o755 if os.path.isdir(path) or os.stat(path).st_mode & 0o100 else 0o644)
    os.utime(tree, (BASE_TIME, BASE_TIME))


def edited_copy(tree: str, target: str, seed: int, share: float) -> None:
    """A copy with a share of its files edited: bytes inserted, cut, overwritten, added; files renamed, removed, new."""
    copy(tree, target)
    rng = random.Random(seed)
    files = files_of(target)
    edits = ["insert", "insert", "delete", "overwrite", "overwrite", "append", "rename", "remove", "add"]
    for path in sorted(rng.sample(files, min(len(files), max(1, int(len(files) * share))))):
        edit = rng.choice(edits)
        if edit == "remove":
            os.unlink(path)
            continue
        if edit == "rename":
            os.rename(path, path + ".renamed")
            os.utime(path + ".renamed", (BASE_TIME + 5000000, BASE_TIME + 5000000))
            continue
        with open(path, "rb") as source:
            data = bytearray(source.read())
        count = min(rng.choice([16, 64, 400, 3000]), max(1, len(data)))
        new = bytes(rng.choice(b"abcdefghij klmnop_qrstuvwxyz=\n") for _ in range(count))
        at = rng.randrange(len(data) + 1)
        if edit == "insert":
            data[at:at] = new
        elif edit == "delete":
            del data[at : at + count]
        elif edit == "overwrite":
            data[at : at + count] = new
        elif edit == "append":
            data += new
        else:
            path += ".copy"
        with open(path, "wb") as file:
            file.write(data)
        os.utime(path, (BASE_TIME + 6000000, BASE_TIME + 6000000))


def edit_big(source: str, target: str, total: int) -> None:
    """Insert, delete or overwrite 1 % of the bytes in many places."""
    rng = random.Random(SEED + 6)
    lengths = [2 ** rng.uniform(0, 17) for _ in range(BIG_EDITS)]
    factor = total / 100 / sum(lengths)
    places = sorted(rng.randrange(total) for _ in lengths)
    with open(source, "rb") as old, open(target, "wb") as new:
        for place, length in zip(places, (max(1, int(length * factor)) for length in lengths), strict=True):
            if place < old.tell():
                continue
            while (left := place - old.tell()) > 0:
                new.write(old.read(min(1 << 20, left)))
            edit = rng.choice(["insert", "delete", "overwrite"])
            if edit != "delete":
                new.write(random.Random(rng.random()).randbytes(length))
            if edit != "insert":
                old.seek(length, os.SEEK_CUR)
        shutil.copyfileobj(old, new, 1 << 20)
