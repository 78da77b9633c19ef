"""gc of a repository of a million chunks of which a third died, beside restic's and borg's prune of the same."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

from benchmark.peer import Peer, PeerError
from benchmark.peers import Borg, Restic, Spraydry
from benchmark.phase import Row, Setting
from benchmark.system import run, say

FILES, IN_FOLDER = 1_000_000, 500
MEMORY_MB = 300


def measure(setting: Setting) -> Iterator[Row]:
    """Small files, one chunk each for all of them, in two versions; of the first, a folder in six and one file in six
    elsewhere are not in the second. Then the first is removed and what it alone needed is freed, in one go. restic
    makes compact what has more than 5 % unused by default, borg what has more than 10 %: so spraydry is told 95 %."""
    peers = [peer for kind in (Spraydry, Restic, Borg) if not (peer := kind(setting.folder, setting.log)).missing()]
    tree = os.path.join(setting.folder, "tree")
    count = max(IN_FOLDER, int(FILES * setting.scale))
    say(f"  {count:,} files are written")
    _fill(tree, count)
    for peer in peers:
        say(f"  {peer.name} ingests two versions")
        peer.reset()
        peer.ingest([tree], "v1", setting.limit)
    _thin(tree, count)
    took: dict[str, float] = {}
    for peer in peers:
        peer.ingest([tree], "v2", setting.limit)
        say(f"  {peer.name} frees what the first alone needed")
        wall = peak = 0.0
        for command in _commands(peer):
            ran = run(command, setting.log, env=peer.environment(), limit=setting.limit)
            if ran.code:
                raise PeerError(f"{' '.join(command)} ended with {ran.code}")
            wall, peak = wall + ran.wall, max(peak, ran.peak_mb)
        took[peer.name] = wall
        mine = peer.name == "spraydry"
        goal = f"gc of a million chunks within {MEMORY_MB} MB"
        yield Row(f"{peer.name}, peak memory", [peak], "MB", goal if mine else "", MEMORY_MB if mine else None)
        yield Row(f"{peer.name}, time", [wall], "s")
    for name in took.keys() - {"spraydry"}:
        goal = f"gc is faster than {name}'s prune"
        yield Row(f"time of gc / of {name}'s", [took["spraydry"] / took[name]], "times", goal, 1.0)


def _commands(peer: Peer) -> list[list[str]]:
    if isinstance(peer, Spraydry):
        return [peer.words("rm", "bench@v1"), peer.words("gc", "--grace", "0", "--below", "95%")]
    if isinstance(peer, Restic):
        return [[peer.tool(), "forget", "--keep-last", "1", "--prune"]]
    return [[peer.tool(), "delete", f"{peer.store}::v1"], [peer.tool(), "compact", peer.store]]


def _places(tree: str, count: int) -> Iterator[tuple[int, int, str]]:
    for number in range(count):
        folder, place = divmod(number, IN_FOLDER)
        yield folder, place, os.path.join(tree, f"{folder:05}", f"{place:03}.txt")


def _fill(tree: str, count: int) -> None:
    rng = random.Random(1)
    for _, place, path in _places(tree, count):
        if not place:
            os.makedirs(os.path.dirname(path))
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{rng.randbytes(150).hex()}\n" + "a line that all of them have\n" * 10)


def _thin(tree: str, count: int) -> None:
    for folder, place, path in _places(tree, count):
        if folder % 6 == 1 or place % 6 == 1:
            os.unlink(path)
