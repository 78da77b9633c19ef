"""A long life of a repository, step by step, against the plain model."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from spraydry import Hoard
from spraydry.actions.hoard import checkpoint
from spraydry.errors import SprayDryError, VersionExists
from spraydry.format.entry import FILE
from spraydry.mount.mounts import mounted_at
from spraydry.repository.repository import Repository
from tests.life.child import Failed, killed, run, told
from tests.life.model import Side, Tree, cut, moved, of_folder, of_version, parents, same, taken, union

SPRAYDRY = [sys.executable, "-c", "from spraydry.cli import main; main()"]
ROOTS = ("a", "b")
HOARD = "h"
seeds = st.integers(0, 1 << 32)
roots = st.sampled_from(ROOTS)
sides = st.sampled_from(("here", "there"))
writes = st.integers(1, 12)  # at which write a process is killed


def keys_of(url: str) -> dict[str, bytes]:
    """What the keys of a repository's hoard name."""
    with Repository.open(url, read_only=True) as repository:
        hoard = Hoard(HOARD, repository=repository)
        return {key: hoard[key].read() for key in hoard}


class Life(RuleBasedStateMachine):
    """Sources change, a repository `here` keeps their versions, another `there` gets some; all verbs come as they
    like. After each step all versions that should be there read as they were, and no others are there."""

    folder: Path  # set by the test, with the URLs
    url: str
    other_url: str
    mounts = True
    lives = 0
    # A rule that can do nothing now does nothing, rather than having a precondition: what can be read after damage is
    # not the same in each run (it may be no version at all), and hypothesis wants to be able to choose the same rules
    # again.

    def __init__(self) -> None:
        super().__init__()
        type(self).lives += 1
        self.home = self.folder / str(self.lives)
        self.home.mkdir()
        self.here = Side(self.url.format(self.home / "here"))
        self.there = Side(self.other_url.format(self.home / "there"))
        self.point = self.home / "mnt"
        self.point.mkdir()
        self.parted = False  # there are versions that were made there
        self.mounted: Tree | None = None
        self.sources = {root: self.home / "sources" / root for root in ROOTS}
        for source in self.sources.values():
            source.mkdir(parents=True)

    def teardown(self) -> None:
        if mounted_at(str(self.point)) is not None:
            run("umount", "--lazy", str(self.point))
        shutil.rmtree(self.home)

    # -- what the sources and their owner do

    @initialize(seed=seeds)
    def begins(self, seed: int) -> None:
        for root in ROOTS:
            self.edit(root, seed)
            self.ingest(root)

    @rule(root=roots, seed=seeds)
    def edit(self, root: str, seed: int) -> None:
        source, rng = self.sources[root], random.Random(seed)
        for _ in range(4):
            place = source / rng.choice("xyz") / f"f{rng.randrange(5)}"
            if rng.random() < 0.3:
                place = place.parent / "deep" / place.name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            kind = rng.randrange(8)
            if kind == 0:
                place.symlink_to(f"f{rng.randrange(5)}")
            elif kind == 1 and (others := [path for path in source.rglob("f*") if path.is_file()]):
                os.link(rng.choice(others), place, follow_symlinks=False)
            else:
                words = [b"the same", b"as before", rng.randbytes(30)]
                place.write_bytes(rng.randbytes(rng.randrange(3000)) + b"".join(rng.choices(words, k=300)))
        if rng.random() < 0.2 and (folder := source / rng.choice("xyz")).is_dir():
            folder.rename(source / f"was{rng.randbytes(4).hex()}")

    def ingest(self, root: str) -> None:
        made = told("--repo", self.here.url, "ingest", str(self.sources[root]), "--root", root)
        self.took(self.here, root, made["version"], made["new"], of_folder(self.sources[root]))

    def took(self, side: Side, root: str, name: str, new: bool, tree: Tree) -> None:
        """A verb that makes a version unless nothing changed said what it did."""
        version = f"{root}@{name}"
        versions = side.of(root)
        assert new == (version not in versions), version
        if new:
            side.add(version, tree)
        else:
            assert same(side.versions[version], tree)

    @rule(root=roots)
    def ingested(self, root: str) -> None:
        self.ingest(root)

    @rule(root=roots, seed=seeds, at=writes)
    def ingest_killed(self, root: str, seed: int, at: int) -> None:
        self.edit(root, seed)
        if killed(["--repo", self.here.url, "ingest", str(self.sources[root]), "--root", root], at):
            self.committed_or_not(root)
        else:
            self.committed_or_not(root)
            self.ingest(root)

    def committed_or_not(self, root: str) -> None:
        """Where a killed ingest had committed, its version is the source's."""
        fresh = self.there_now(self.here) - self.here.versions.keys()
        assert len(fresh) <= 1
        for version in fresh:
            self.here.add(version, of_folder(self.sources[root]))

    def there_now(self, side: Side) -> set[str]:
        """The versions that a repository has."""
        with Repository.open(side.url, read_only=True) as repository:
            return {str(version) for root in repository.roots() for version in repository.versions(root)}

    # -- versions

    def any_version(self, seed: int, side: Side | None = None) -> str:
        return random.Random(seed).choice(list((side or self.here).versions))

    @rule(seed=seeds)
    def tag(self, seed: int) -> None:
        if not self.here.versions:
            return
        version = self.any_version(seed)
        root, name = version.split("@")[0], f"tag{len(self.here.used)}"
        told("--repo", self.here.url, "tag", version, name)
        self.here.add(f"{root}@{name}", self.here.versions[version])

    @rule(seed=seeds)
    def rollback(self, seed: int) -> None:
        if not self.here.versions:
            return
        version = self.any_version(seed)
        done = told("--repo", self.here.url, "rollback", version)
        self.took(self.here, done["root"], done["version"], done["new"], self.here.versions[version])

    @rule(seed=seeds, side=sides)
    def remove(self, seed: int, side: str) -> None:
        of: Side = getattr(self, side)
        if len(of.versions) > 2:
            version = self.any_version(seed, of)
            told("--repo", of.url, "rm", version)
            of.remove(version)

    @rule(root=roots, last=st.integers(1, 4))
    def thin(self, root: str, last: int) -> None:
        if not self.here.of(root):
            return
        for one in told("--repo", self.here.url, "rm", root, "--keep-last", str(last), "--keep-tag", "tag*"):
            if one["removed"]:
                for name in one["names"]:
                    self.here.remove(f"{root}@{name}")

    @rule(seed=seeds)
    def undelete(self, seed: int) -> None:
        if not self.here.removed:
            return
        version = random.Random(seed).choice(list(self.here.removed))
        told("--repo", self.here.url, "undelete", version)
        self.here.versions[version] = self.here.removed.pop(version)

    @rule(seed=seeds)
    def compose(self, seed: int) -> None:
        if not self.here.versions:
            return
        rng = random.Random(seed)
        terms, result = [], Tree()
        for number in range(rng.randrange(1, 4)):
            version = rng.choice(list(self.here.versions))
            tree, term = self.here.versions[version], version
            if tree and rng.random() < 0.6:
                path = rng.choice(list(tree))
                term += ":" + path.decode()
                name = path.rpartition(b"/")[2]
                tree = taken(tree, path) if tree[path] is None else {name: tree[path]}
            if rng.random() < 0.5:
                to = rng.choice([b"x", b"new", b"x/deep/new", b"y/f1"])
                term += " -> " + to.decode()
                leaf = tree.get(name) if len(tree) == 1 and ":" in term else None
                tree = moved(tree, to) if leaf is None else dict.fromkeys(parents(to)) | {to: leaf}
            terms.append(term)
            result = union(result, tree) if number else tree
            if result and rng.random() < 0.3:
                path = rng.choice(list(result))
                terms[-1] += " - " + path.decode()
                result = cut(result, path)
        made = told("--repo", self.here.url, "compose", "c", " + ".join(terms))
        self.took(self.here, "c", made["version"], made["new"], result)

    @rule(seed=seeds)
    def split(self, seed: int) -> None:
        if not self.here.versions:
            return
        version = self.any_version(seed)
        tree = self.here.versions[version]
        folders = [path for path, leaf in tree.items() if leaf is None]
        if folders:
            path = random.Random(seed).choice(folders)
            made = told("--repo", self.here.url, "split", f"{version}:{path.decode()}", "d")
            self.took(self.here, "d", made["version"], made["new"], taken(tree, path))

    @rule(seed=seeds, prune=st.booleans())
    def forget(self, seed: int, prune: bool) -> None:
        if not self.here.versions:
            return
        version = self.any_version(seed)
        root = version.split("@")[0]
        if not (tree := self.here.versions[version]):
            return
        path = random.Random(seed).choice(list(tree))
        newest = self.here.newest(root)
        done = told("--repo", self.here.url, "forget", f"{root}:{path.decode()}", *["--prune"] * prune)
        for one in done["versions"]:
            old, new = ([f"{root}@{name}" for name in one[key]] for key in ("old", "new"))
            for name in new:
                if name not in self.here.versions:
                    self.here.add(name, cut(self.here.versions[old[0]], path))
            if prune:
                for name in old:
                    self.here.remove(name)
        if done["newest"] is not None and f"{root}@{done['newest']}" not in self.here.versions:
            self.here.add(f"{root}@{done['newest']}", newest)
        for name, tree in self.here.versions.items():
            assert not prune or not name.startswith(root + "@") or path not in tree
        with Repository.open(self.here.url, read_only=True) as repository:
            assert same(of_version(repository, root), cut(newest, path))

    # -- keys

    @rule(seed=seeds, at=st.none() | writes)
    def put(self, seed: int, at: int | None) -> None:
        """One key, or several at once."""
        rng = random.Random(seed)
        held = {
            f"f{rng.randrange(5)}": rng.randbytes(rng.choice((0, 2000, 300_000))) for _ in range(rng.choice((1, 3)))
        }
        folder = self.home / "files"
        folder.mkdir(exist_ok=True)
        for name, plain in held.items():
            (folder / name).write_bytes(plain)
        arguments = ["--repo", self.here.url, "put", *(str(folder / name) for name in held), f"{HOARD}/p/"]
        changed = {f"p/{name}": plain for name, plain in held.items()}
        if at is not None and killed(arguments, at):
            assert keys_of(self.here.url) in (self.here.keys, self.here.keys | changed)
        run(*arguments)
        self.here.keys |= changed

    @rule(seed=seeds)
    def delete(self, seed: int) -> None:
        if self.here.keys:
            key = random.Random(seed).choice(sorted(self.here.keys))
            run("--repo", self.here.url, "delete", f"{HOARD}/{key}")
            del self.here.keys[key]

    @rule(side=sides)
    def fold(self, side: str) -> None:
        of: Side = getattr(self, side)
        if of.keys:
            with Repository.open(of.url) as repository:
                checkpoint(repository, HOARD)

    # -- collecting

    @rule(side=sides, below=st.sampled_from(("0%", "60%", "100%")), at=st.none() | writes)
    def gc(self, side: str, below: str, at: int | None) -> None:
        of: Side = getattr(self, side)
        if not (of.used or of.keys):
            return
        arguments = ["--repo", of.url, "gc", "--grace", "0", "--below", below]
        if at is not None:
            killed(arguments, at)
        run(*arguments)
        of.removed.clear()

    # -- damage

    @rule(side=sides, seed=seeds, frames=st.integers(1, 3), help_from=st.sets(st.sampled_from(("other", "sources"))))
    def damaged_and_repaired(self, side: str, seed: int, frames: int, help_from: set[str]) -> None:
        of: Side = getattr(self, side)
        other = self.here if of is self.there else self.there
        if not of.versions:
            return
        rng = random.Random(seed)
        with Repository.open(of.url) as repository:
            names = [info.name.hex() for _, info in repository.catalog.frames()]  # in the order they came
            for name in rng.sample(names, min(frames, len(names))):
                value = bytearray(repository.store.get("frames", name))
                value[rng.randrange(len(value))] ^= 1 << rng.randrange(8)
                repository.store.delete("frames", [name])
                repository.store.put("frames", name, bytes(value))
        self.detected_or_identical(of)
        self.keys_lost(of)
        arguments = ["--repo", of.url, "repair"]
        if "other" in help_from and other.versions:
            arguments += ["--from", other.url]
        if "sources" in help_from:
            arguments += [part for source in self.sources.values() for part in ("--source", str(source))]
        planned = {one["of"].split("@")[0]: one for one in told(*arguments, codes=(0, 6))["without"]}
        if rng.random() < 0.3:
            killed([*arguments, "--write"], rng.randrange(1, 8), codes=(0, 6))
        run(*arguments, "--write", codes=(0, 6))
        made = self.there_now(of) - of.versions.keys()
        for version in made:
            one = planned.pop(version.split("@")[0])
            tree = of.versions[one["of"]]
            for lack in one["lacks"]:
                path = lack["path"].encode()
                emptied = path.endswith(b"/") and path.rstrip(b"/")  # a folder that lost what is in it
                tree = cut(tree, path.rstrip(b"/")) | ({emptied: None} if emptied else {})
            of.add(version, tree)
            self.parted = self.parted or of is self.there
        lost = self.detected_or_identical(of)
        if unreadable := [f"{HOARD}/{key}" for key in self.keys_lost(of)]:
            run("--repo", of.url, "delete", *unreadable)
            of.keys = {key: plain for key, plain in of.keys.items() if f"{HOARD}/{key}" not in unreadable}
        assert not lost.keys() & made, "what repair made cannot be read"
        if help_from >= {"other"} and of is self.there and set(of.versions) <= set(other.versions):
            assert not lost, "everything was to be had from the other repository"
        if lost:
            if of is self.here and self.mounted is not None:
                self.umount()
            told("--repo", of.url, "rm", *lost)
            for version in lost:
                of.remove(version)
        run("--repo", of.url, "gc", "--grace", "0")
        of.removed.clear()

    def detected_or_identical(self, of: Side) -> dict[str, str]:
        """Read all versions, file by file: an error, or what it should be. The versions that cannot be read whole."""
        lost: dict[str, str] = {}
        with Repository.open(of.url, read_only=True) as repository:
            for version, tree in of.versions.items():
                try:
                    for found in repository.walk(version):
                        if found.entry.kind == FILE:
                            leaf = tree[found.path]
                            assert leaf is not None
                            try:
                                with repository.open_file(found) as stream:
                                    assert stream.read() == leaf.held, f"{version}:{found.path!r} has wrong bytes"
                            except SprayDryError as error:
                                lost[version] = f"{found.path!r}: {error}"
                except SprayDryError as error:
                    lost[version] = str(error)
        return lost

    def keys_lost(self, of: Side) -> list[str]:
        """Read all keys: an error, or what it should be. Those that cannot be read."""
        lost = []
        with Repository.open(of.url, read_only=True) as repository:
            hoard = Hoard(HOARD, repository=repository)
            for key, plain in of.keys.items():
                try:
                    assert hoard[key].read() == plain, f"{key} has wrong bytes"
                except KeyError:
                    raise AssertionError(f"{key} is gone") from None
                except SprayDryError:
                    lost.append(key)
        return lost

    # -- to and from another repository

    @rule(at=st.none() | writes)
    def push(self, at: int | None) -> None:
        arguments = ["--repo", self.here.url, "push", self.there.url]
        if not self.transferred(arguments, at):
            return
        for version, tree in self.here.versions.items():
            if version not in self.there.used:
                self.there.add(version, tree)
        self.there.keys |= self.here.keys

    @rule(at=st.none() | writes)
    def pull(self, at: int | None) -> None:
        if not (self.there.versions or self.there.keys):
            return
        arguments = ["--repo", self.here.url, "pull", self.there.url]
        if not self.transferred(arguments, at):
            return
        for version, tree in self.there.versions.items():
            if version not in self.here.used:
                self.here.add(version, tree)
        self.here.keys = self.there.keys | self.here.keys  # what was changed is newer here

    @rule()
    def recompress(self) -> None:
        run("--repo", self.here.url, "recompress", "--level", "5")

    @rule()
    def verify(self) -> None:
        for side in (self.here, self.there):
            if side.versions:
                told("--repo", side.url, "verify")

    @rule(seed=seeds)
    def mount(self, seed: int) -> None:
        if self.mounted is not None or not self.here.versions:
            return
        version = self.any_version(seed)
        subprocess.run([*SPRAYDRY, "--repo", self.here.url, "mount", version, str(self.point)], check=True)
        self.mounted = self.here.versions[version]

    @rule()
    def umount(self) -> None:
        if self.mounted is None:
            return
        run("umount", str(self.point))
        self.mounted = None

    def transferred(self, arguments: list[str], at: int | None) -> bool:
        """Run a push or pull, perhaps killed and run again; False where both sides made a version of one name."""
        if at is not None:
            killed(arguments, at, codes=(0, VersionExists.exit_code))
        try:
            run(*arguments)
        except Failed as failed:
            assert self.parted and failed.code == VersionExists.exit_code
            return False
        return True

    # -- what always holds

    @invariant()
    def everything_reads_back(self) -> None:
        for side in (self.here, self.there):
            if side is self.there and not (side.versions or side.keys):
                continue
            assert keys_of(side.url) == side.keys
            assert self.there_now(side) == side.versions.keys()
            with Repository.open(side.url, read_only=True) as repository:
                for version, tree in side.versions.items():
                    assert same(of_version(repository, version), tree), version
        if self.mounted is not None:
            assert same(of_folder(self.point), self.mounted)
