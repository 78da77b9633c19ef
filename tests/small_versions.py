"""A repository of many small versions: what makes small frames, and what dictionaries and merging are for."""

from __future__ import annotations

import json
import random
from pathlib import Path

from spraydry.actions.ingest import ingest
from spraydry.repository.repository import Repository

_words = random.Random(5)
_PHRASES = [" ".join("".join(_words.choices("abcdefghiklmnoprstu", k=6)) for _ in range(7)) for _ in range(300)]


def document(rng: random.Random) -> bytes:
    """A JSON document of about 1 KB, of phrases that others have, too."""
    told = {f"field_{number}": rng.choice(_PHRASES) for number in range(14)}
    return json.dumps({"number": rng.getrandbits(60), "told": told}, indent=2).encode()


def small_versions(
    repository: Repository, folder: Path, rng: random.Random, count: int, files: int = 4
) -> dict[str, bytes]:
    """Ingest `count` versions of the root `small`, each with `files` more documents and some noise; the last state."""
    state: dict[str, bytes] = {}
    for version in range(count):
        new = {f"{version:03}-{place}.json": document(rng) for place in range(files)}
        new[f"{version:03}.noise"] = rng.randbytes(2000)
        for name, content in new.items():
            path = folder / f"part{version % 3}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            state[f"part{version % 3}/{name}"] = content
        ingest(repository, [str(folder)], root="small")
    return state


def read_all(repository: Repository, address: str = "small") -> dict[str, bytes]:
    """Every file of a version, through verified chunks."""
    found = {}
    for one in repository.walk(address):
        if one.entry.file_digest is not None:
            with repository.open_file(one) as stream:
                found[one.path.decode()] = stream.read()
    return found
