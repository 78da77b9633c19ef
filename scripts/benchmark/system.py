"""Processes, mounts, caches and sizes: what the benchmark asks of the machine. Linux."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from typing import IO, NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")
DROP_CACHES = "/proc/sys/vm/drop_caches"


def say(*words: object) -> None:
    """One line about what goes on, apart from the result."""
    print(time.strftime("%H:%M:%S"), *words, file=sys.stderr, flush=True)


def is_root() -> bool:
    return os.geteuid() == 0


# --- Processes


def descendants(pid: int) -> list[int]:
    """`pid` and every process below it."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _stat(int(name))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(name))
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        todo += children.get(one, [])
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, the state first."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            text = file.read()
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()


def cpu_seconds(pid: int) -> float:
    """User and system time so far, of a process and all below it, the ended ones too."""
    return sum(sum(map(int, fields[11:15])) for one in descendants(pid) if (fields := _stat(one))) / TICKS


def memory(pids: list[int], field: str) -> float:
    """The sum of a field of /proc/PID/status in MB: VmRSS is now, VmHWM the peak."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/status") as file:
                found = re.search(rf"^{field}:\s*(\d+) kB", file.read(), re.MULTILINE)
        except OSError:
            continue
        total += int(found[1]) * 1024 if found else 0
    return total / 1e6


class Ran(NamedTuple):
    wall: float
    cpu: float  # with all children
    peak_mb: float  # of all processes together where several ran
    code: int  # of the exit; negative: the signal
    cut: bool  # ended because of the limit


def run(
    command: list[str],
    log: IO[bytes],
    *,
    cwd: str | None = None,
    env: dict[str, str] | None = None,
    limit: float = 3600,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
) -> Ran:
    """Run to the end, output into the log."""
    process = start(command, log, cwd=cwd, env=env, stdin=stdin)
    began = time.monotonic()
    peak, look, cut = 0.0, 0.02, False
    try:
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            wall = time.monotonic() - began
            if pid:
                break
            if wall > look:
                look = wall + (0.1 if wall < 2 else 0.4)
                pids = descendants(process.pid)
                peak = max(peak, memory(pids, "VmRSS"), *(memory([one], "VmHWM") for one in pids))
            if wall > limit and not cut:
                cut = True
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.002 if wall < 1 else 0.01)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    # The peak that the kernel kept is exact, but starts at the size of the process that forked: this one.
    kernel = usage.ru_maxrss
    if kernel > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
        peak = max(peak, kernel * 1024 / 1e6)
    return Ran(wall, usage.ru_utime + usage.ru_stime, peak, process.returncode, cut)


def start(
    command: list[str],
    log: IO[bytes],
    *,
    cwd: str | None = None,
    env: dict[str, str] | None = None,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start in a session of its own, so that it can be killed with all it starts."""
    log.write(f"\n$ {' '.join(command)}\n".encode(errors="surrogateescape"))
    log.flush()
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=os.environ | (env or {}),
        stdin=stdin,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def last_words(log: IO[bytes], since: int) -> str:
    """The last line with a word in it that a log got after its first `since` bytes."""
    with open(log.name, "rb") as file:
        file.seek(since)
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if re.search(r"\w", line)), "")


def end(process: subprocess.Popen[bytes], patience: float) -> None:
    """Wait for a process that should end; then tell it; then kill it."""
    for number, seconds in ((None, patience), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        if number:
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                pass
        try:
            process.wait(seconds)
            return
        except subprocess.TimeoutExpired:
            continue


# --- Mounts


def mounts_below(folder: str) -> list[str]:
    """The mount points in a folder, or it, the last mounted first."""
    found = []
    with open("/proc/self/mountinfo", errors="surrogateescape") as file:
        for line in file:
            point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), line.split()[4])
            if point == folder or point.startswith(folder + "/"):
                found.append(point)
    return found[::-1]


def unmount(point: str) -> None:
    """Unmount what is at a point; when it stays busy, take it away from the names at least."""
    for attempt in range(40):
        if point not in mounts_below(point):
            return
        lazy = attempt > 30
        if is_root():
            command = ["umount", *(["-l"] if lazy else []), point]
        else:
            command = [fusermount(), "-u", *(["-z"] if lazy else []), point]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30)
        if point in mounts_below(point):
            time.sleep(0.1)


def fusermount() -> str:
    return shutil.which("fusermount3") or shutil.which("fusermount") or "fusermount3"


def fuse_opens() -> bool:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError:
        return False
    return True


# --- Caches and sizes


def drops_caches() -> bool:
    """Whether this process may empty the page cache, without doing it."""
    return is_root() and os.access(DROP_CACHES, os.W_OK)


def drop_caches() -> None:
    os.sync()
    with open(DROP_CACHES, "w") as file:
        file.write("3")


def warm(tree: str) -> None:
    """Read a whole tree once, so that every ingest finds it in the page cache."""
    for folder, _, names in os.walk(tree):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb", buffering=0) as file:
                    while file.read(1 << 20):
                        pass


class Size(NamedTuple):
    allocated: int
    apparent: int


def size(folder: str) -> Size:
    """What a folder takes on disk, and the sum of the sizes of its files."""
    allocated = apparent = 0
    for inner, _, names in os.walk(folder):
        allocated += os.lstat(inner).st_blocks * 512
        for name in names:
            status = os.lstat(os.path.join(inner, name))
            allocated += status.st_blocks * 512
            apparent += status.st_size
    return Size(allocated, apparent)


# --- The machine


def calibrate() -> float:
    """Milliseconds that a fixed piece of work takes just now: how even the machine is."""
    began = time.monotonic()
    block, hashed = bytes(1 << 20), hashlib.sha256()
    for _ in range(64):
        hashed.update(block)
    return (time.monotonic() - began) * 1e3


def today() -> str:
    return time.strftime("%Y-%m-%d")


def machine(work: str) -> dict[str, str]:
    """What the numbers were measured on."""
    model, total, file_system = "?", "?", "?"
    with open("/proc/cpuinfo") as file:
        found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", file.read(), re.MULTILINE)
        model = found[1] if found else platform.machine()
    with open("/proc/meminfo") as file:
        found = re.search(r"^MemTotal:\s*(\d+) kB", file.read(), re.MULTILINE)
        total = f"{int(found[1]) * 1024 / 1e9:.1f} GB" if found else "?"
    best = ""
    with open("/proc/self/mountinfo", errors="surrogateescape") as file:
        for line in file:
            fields, point = line.split(), line.split()[4]
            if (work + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best):
                best, file_system = point, fields[fields.index("-") + 1]
    return {
        "CPU": model,
        "CPUs": str(len(os.sched_getaffinity(0))),
        "memory": total,
        "kernel": f"{platform.system()} {platform.release()}",
        "file system": file_system,
        "load": f"{os.getloadavg()[0]:.1f}",
        "Python": platform.python_version(),
    }


def version_of(command: list[str]) -> str:
    """The first version-like number that a tool prints about itself."""
    try:
        ran = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return "?"
    found = re.search(r"\d+(?:\.\w+)*(?:\.post\d+|-\w+)?", ran.stdout.decode(errors="replace"))
    return found[0] if found else "?"
