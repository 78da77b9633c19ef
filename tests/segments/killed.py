"""A program that is killed, for test_killed.py: `python -m tests.segments.killed FOLDER SEED [CALL]`.

It writes, and prints what it is about to do and, when that has returned, `done`. With CALL it kills itself in the
middle of its CALL-th system call that changes a file; until then the calls are real.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from typing import Any

from spraydry.segments.segments import Segments

CHANGING = ("pwritev", "pwrite", "fdatasync", "fsync", "rename", "unlink", "ftruncate")


def value_of(name: str, version: int) -> bytes:
    return random.Random(f"{name} {version}").randbytes((version * 37 + len(name)) % 300) + b"%d" % version


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def kill_at(call: int) -> None:
    left = call

    def killing(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                if name == "pwritev":  # half of it
                    whole = b"".join(arguments[1])
                    os.pwritev = real
                    real(arguments[0], [whole[: len(whole) // 2]], arguments[2])
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments)
            if name == "fdatasync":
                path = os.readlink(f"/proc/self/fd/{arguments[0]}")
                say("synced", os.path.basename(path), os.fstat(arguments[0]).st_size)
            return result

        return called

    for name in CHANGING:
        setattr(os, name, killing(name, getattr(os, name)))


def main() -> None:
    folder, seed = sys.argv[1], int(sys.argv[2])
    rng = random.Random(seed)
    if len(sys.argv) > 3:
        kill_at(int(sys.argv[3]))
    segments = Segments(folder, create=True, max_file_size=3000)
    for version in range(seed * 1000, seed * 1000 + 400):
        names = [f"{seed}-{rng.randrange(12)}" for _ in range(rng.randrange(1, 4))]
        what = rng.choice(("put", "put", "put_many", "delete", "move", "reclaim"))
        say(what, version, *names)
        keys = [b"frames\0" + name.encode() for name in names]
        pairs = [(key, value_of(name, version)) for key, name in zip(keys, names, strict=True)]
        if what == "put":
            segments.put(*pairs)
        elif what == "put_many":
            segments.put_many(pairs)
        elif what == "delete":
            segments.delete(keys)
        elif what == "move":
            segments.move(keys[0], keys[-1])
        else:
            segments.reclaim()
        say("done")
    say("end")


if __name__ == "__main__":
    main()
