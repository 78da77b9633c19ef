"""grep over 14 releases of a source tree."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator

from benchmark.corpora import Builder, files_of
from benchmark.peer import PeerError
from benchmark.phase import Row, Setting
from benchmark.reading import drain

GOAL = 1.3
PATTERNS = {"rare": ("class QuerySet",), "frequent": ("import os",), "expression": (r"def \w+_view\(", "-i")}


def measure(setting: Setting) -> Iterator[Row]:
    """The releases as versions of one root, and one tree that holds each distinct file once in a repository of its own:
    the whole commands take turns. GNU grep on that tree, in the page cache, is told for comparison."""
    corpus = Builder(setting.corpora, max(setting.scale, 0.15)).get("src-versions")
    releases = [os.path.join(corpus.v1, name) for name in sorted(os.listdir(corpus.v1))]
    distinct = os.path.join(setting.folder, "distinct")
    count = _each_once(releases, distinct)
    many, one = setting.repository("grep-many"), setting.repository("grep-one")
    for number, release in enumerate(releases, 1):
        many.ingest([release], f"v{number}", setting.limit)
    one.ingest([distinct], "v1", setting.limit)
    for name, words in PATTERNS.items():
        samples: dict[str, list[float]] = {"many": [], "one": [], "gnu": []}
        for _ in range(setting.repeat):
            found = [setting.spray(repository, "grep", *words) for repository in (many, one)]
            if not found[0].lines >= found[1].lines > 0:
                raise PeerError(f"{name}: {found[0].lines} lines in the versions, {found[1].lines} in one tree")
            command = ["grep", "-rnE", *words, "."]
            gnu = drain(command, distinct, setting.limit, setting.log)
            for key, done in zip(samples, (*found, gnu), strict=True):
                samples[key].append(done.wall)
        ratios = [two / single for two, single in zip(samples["many"], samples["one"], strict=True)]
        what = f"{name} ({' '.join(words)})"
        goal = f"grep, {what}, over {len(releases)} releases at most {GOAL} times that of one tree of each file once"
        yield Row(f"{what}: the releases", samples["many"], "s")
        yield Row(f"  one tree of the {count:,} distinct files", samples["one"], "s")
        yield Row("  times as long", ratios, "times", goal, GOAL)
        yield Row("  GNU grep -r in that tree", samples["gnu"], "s")


def _each_once(releases: list[str], target: str) -> int:
    """Make a tree of the first of all files that are the same; how many there are."""
    seen: set[bytes] = set()
    for release in releases:
        for path in files_of(release):
            with open(path, "rb") as file:
                digest = hashlib.blake2b(file.read()).digest()
            if digest not in seen:
                seen.add(digest)
                to = os.path.join(target, os.path.basename(release), os.path.relpath(path, release))
                os.makedirs(os.path.dirname(to), exist_ok=True)
                shutil.copy2(path, to)
    return len(seen)
