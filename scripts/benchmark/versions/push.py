"""push of each release of a source tree to a repository that has those before."""

from __future__ import annotations

import os
from collections.abc import Iterator

from benchmark.corpora import Builder
from benchmark.phase import Row, Setting

GOAL = 1.1


def measure(setting: Setting) -> Iterator[Row]:
    """What goes over (frames, index, log) beside what the version's frames take where it was made. Bytes, which do not
    depend on the machine: measured once."""
    releases = Builder(setting.corpora, setting.scale).get("src-versions").v1
    source, target = setting.repository("push-from"), setting.repository("push-to")
    assert target.url is not None
    names = sorted(os.listdir(releases), key=lambda name: [int(part) for part in name.split(".")])
    for name in names:
        setting.spray(source, "ingest", os.path.join(releases, name), "--root", "src")
    versions = [f"v{number}" for number in range(1, len(names) + 1)]
    told = source.probe("push", target.url, *(f"src@{name}" for name in versions), limit=setting.limit).values
    ratios = [told[f"up_{name}"] / told[f"stored_{name}"] for name in versions]
    goal = f"push of one changed version transfers at most {GOAL} times its stored size"
    yield Row(f"the last of {len(names)} releases: bytes sent / stored", [ratios[-1]], "times", goal, GOAL)
    yield Row("each release after the one before", ratios, "times")
    yield Row("  bytes that came back", [told[f"down_{name}"] for name in versions], "B")
    yield Row("  time", [told[f"s_{name}"] for name in versions], "s")
