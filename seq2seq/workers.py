"""Parts of the work done at once, each in a thread of its own: parts of a training batch, shares of the parameters,
batches of a translation.

At translation's sizes most operations are too small to be worth dividing among cores: two threads inside of each
operation gain a third, two parts side by side nearly double the speed. torch gives up Python's lock inside its
operations, so threads are enough, and all parts see the same weights.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from threading import Event, Lock
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

# Target tokens that are worth a worker: no slower then than threads inside of each operation, which wait for each
# other where other work takes the cores.
MIN_TOKENS = 512


def choose_workers(configured: int, threads: int, micro_batch_tokens: int, device: torch.device) -> int:
    """How many parts a micro-batch is split into: as configured, or (0) one a thread where each has enough tokens."""
    if device.type != "cpu":
        return 1
    return configured or max(1, min(threads, micro_batch_tokens // MIN_TOKENS))


class Workers:
    """Runs functions side by side. The threads that torch has are shared out among them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count - 1, thread_name_prefix="train") if count > 1 else None

    def run(self, tasks: Sequence[Callable[[], Result]]) -> list[Result]:
        """The results of the tasks, at most `count` of them, in order. The first runs in the calling thread.

        An error of any task is raised when all have ended.
        """
        if self._pool is None or len(tasks) == 1:
            return [task() for task in tasks]
        threads = torch.get_num_threads()
        share = max(1, threads // self.count)

        def shared(task: Callable[[], Result]) -> Result:
            torch.set_num_threads(share)
            return task()

        futures: list[Future[Result]] = []
        for task in tasks[1:]:
            try:
                futures.append(self._pool.submit(contextvars.copy_context().run, shared, task))
            except RuntimeError as error:
                if futures or "shutdown" not in str(error):
                    raise
                return [task() for task in tasks]  # the main thread has returned, and Python begins no more threads
        try:
            first = shared(tasks[0])
        finally:
            errors = [future.exception() for future in futures]  # waits
            torch.set_num_threads(threads)  # last of all: threads that begin later have what was set last
        for failed in errors:
            if failed is not None:
                raise failed
        return [first, *(future.result() for future in futures)]

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """The function's results for all items, in order. Each worker takes the next item when it is done with one.

        When one fails, no more are taken, and its error is raised.
        """
        queue, lock, failed = enumerate(items), Lock(), Event()
        results: dict[int, Result] = {}

        def drain() -> None:
            while not failed.is_set():
                with lock:
                    taken = list(islice(queue, 1))
                if not taken:
                    return
                try:
                    results[taken[0][0]] = function(taken[0][1])
                except BaseException:
                    failed.set()
                    raise

        self.run([drain] * self.count)
        return [results[number] for number in range(len(results))]

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the threads."""
        if self._pool is not None:
            self._pool.shutdown()
