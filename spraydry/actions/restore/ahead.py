"""Loading what a restore writes next: as many frames at a time as the store is good for, each by one thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from spraydry.actions.restore.files import AHEAD_BYTES
from spraydry.actions.restore.steps import Step
from spraydry.format.entry import FILE
from spraydry.repository.ahead import threads_of
from spraydry.repository.repository import Repository

_BATCH_BYTES = 1 << 20  # for each thread: about a frame
_BATCH_STEPS = 4096
_BATCHES_AHEAD = 2  # with one, a distant store has nothing to do while the last frames of a batch come

Group = list[tuple[int, Step]]


def fetched(repository: Repository, steps: Iterable[Step], fetch: Callable[[Step], Step]) -> Iterator[Step]:
    """`fetch(step)` for each step, in the order of the steps, computed in threads: two batches while another is used.

    Files that follow each other lie in few frames, and threads that want the same one wait for each other: of a batch,
    those of one frame are one thread's. At most three batches are held, each of a MiB for each thread or an eighth of
    the repository's cache.
    """
    threads = threads_of(repository)
    most_bytes = min(threads * _BATCH_BYTES, repository.cache_bytes // 8)
    with ThreadPoolExecutor(threads, thread_name_prefix="spraydry-fetch") as pool:
        waiting: deque[list[Future[Group]]] = deque()
        try:
            for batch in _batches(steps, most_bytes):
                waiting.append([pool.submit(_fetch_all, fetch, group) for group in _by_frame(repository, batch)])
                if len(waiting) > _BATCHES_AHEAD:
                    yield from _in_order(waiting.popleft())
            while waiting:
                yield from _in_order(waiting.popleft())
        finally:
            for futures in waiting:
                for future in futures:
                    future.cancel()


def _batches(steps: Iterable[Step], most_bytes: int) -> Iterator[list[Step]]:
    batch: list[Step] = []
    held = 0
    for step in steps:
        batch.append(step)
        held += _bytes_of(step)
        if held >= most_bytes or len(batch) >= _BATCH_STEPS:
            yield batch
            batch, held = [], 0
    yield batch


def _bytes_of(step: Step) -> int:
    """What `fetch` will hold for it: longer files are read when they are written."""
    entry = step.found.entry
    return entry.size if step.kind == "entry" and entry.kind == FILE and entry.size <= AHEAD_BYTES else 0


def _by_frame(repository: Repository, batch: list[Step]) -> Iterable[Group]:
    """The steps that are one thread's each, with their places in the batch."""
    groups: dict[object, Group] = {}
    for place, step in enumerate(batch):
        key: object = None
        if _bytes_of(step):
            content = step.found.entry.content
            places = repository.catalog.chunks.locate(content) if isinstance(content, bytes) else []
            key = places[0].frame if places else place
        groups.setdefault(key, []).append((place, step))
    return groups.values()


def _fetch_all(fetch: Callable[[Step], Step], group: Group) -> Group:
    return [(place, fetch(step)) for place, step in group]


def _in_order(futures: list[Future[Group]]) -> Iterator[Step]:
    done = [found for future in futures for found in future.result()]
    done.sort(key=lambda one: one[0])
    return (step for _, step in done)
