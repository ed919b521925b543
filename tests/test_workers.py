"""Parts of a batch side by side: the same gradient, in order, and nothing left behind."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from seq2seq.workers import MIN_TOKENS, Workers, choose_workers

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2, 3, 5])
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    pool = Workers(request.param)
    yield pool
    pool.close()


@pytest.fixture
def four_threads() -> Iterator[None]:
    """torch has four threads to share out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(threads)


def number(value: int, *, after: float = 0.0) -> Callable[[], int]:
    def task() -> int:
        time.sleep(after)
        return value

    return task


def test_results_come_in_the_order_of_the_tasks(workers: Workers) -> None:
    for count in range(1, workers.count + 1):
        # The first is the last to end.
        tasks = [number(value, after=0.003 * (count - value)) for value in range(count)]
        assert workers.run(tasks) == list(range(count))


def test_tasks_run_side_by_side() -> None:
    """Each waits for the others."""
    workers, meeting = Workers(3), threading.Barrier(3, timeout=60)
    assert sorted(workers.run([meeting.wait] * 3)) == [0, 1, 2]
    workers.close()


def test_the_first_task_runs_in_the_calling_thread_and_each_other_in_another() -> None:
    workers, meeting = Workers(3), threading.Barrier(3, timeout=60)

    def thread() -> int:
        meeting.wait()
        return threading.get_ident()

    idents = workers.run([thread] * 3)
    assert idents[0] == threading.get_ident()
    assert len(set(idents)) == 3
    workers.close()


@pytest.mark.parametrize("failing", [{0}, {1}, {2}, {1, 2}, {0, 1, 2}])
def test_an_error_is_raised_when_all_have_ended(failing: set[int]) -> None:
    workers, ended = Workers(3), set[int]()

    def task(number: int) -> Callable[[], int]:
        def run() -> int:
            time.sleep(0.0 if number in failing else 0.05)
            ended.add(number)
            if number in failing:
                raise KeyError(number)
            return number

        return run

    with pytest.raises(KeyError) as caught:
        workers.run([task(number) for number in range(3)])
    assert caught.value.args[0] == min(failing)
    assert ended == {0, 1, 2}
    # And they can go on.
    assert workers.run([number(value) for value in range(3)]) == [0, 1, 2]
    workers.close()


def test_one_worker_raises_its_error_too() -> None:
    def task() -> int:
        raise KeyError(7)

    with pytest.raises(KeyError, match="7"):
        Workers(1).run([task])


@pytest.mark.parametrize(("count", "share"), [(1, 4), (2, 2), (3, 1), (4, 1), (8, 1)])
def test_the_threads_of_torch_are_shared_out(four_threads: None, count: int, share: int) -> None:
    workers = Workers(count)
    assert workers.run([torch.get_num_threads] * count) == [share] * count
    assert torch.get_num_threads() == 4
    # A single task has them all.
    assert workers.run([torch.get_num_threads]) == [4]
    workers.close()


@pytest.mark.parametrize("failing", [0, 1])
def test_after_an_error_the_caller_has_its_threads_again(four_threads: None, failing: int) -> None:
    def task() -> None:
        raise KeyError

    tasks: list[Callable[[], None]] = [lambda: None, lambda: None]
    tasks[failing] = task
    workers = Workers(2)
    with pytest.raises(KeyError):
        workers.run(tasks)
    assert torch.get_num_threads() == 4
    workers.close()


def test_a_thread_that_begins_later_has_all_threads_of_torch(four_threads: None) -> None:
    """However late a worker began: its share is for its work, not for what the program does next."""
    workers = Workers(2)
    found: list[int] = []
    for _ in range(20):
        workers.run([lambda: None, lambda: None])
        later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        later.start()
        later.join()
    workers.close()
    assert found == [4] * 20


def test_tasks_see_the_callers_context_and_leave_it_alone(workers: Workers) -> None:
    variable = contextvars.ContextVar("variable", default=0)
    variable.set(3)

    def task() -> int:
        seen = variable.get()
        if threading.current_thread() is not threading.main_thread():
            variable.set(9)
        return seen

    for _ in range(2):
        assert workers.run([task] * workers.count) == [3] * workers.count
    assert variable.get() == 3


def test_closing_ends_the_threads() -> None:
    before = threading.active_count()
    workers, meeting = Workers(4), threading.Barrier(4, timeout=60)
    workers.run([meeting.wait] * 4)
    assert threading.active_count() == before + 3
    workers.close()
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("configured", "threads", "tokens", "workers"),
    [
        # As configured,
        (1, 8, 100_000, 1),
        (3, 1, 10, 3),
        (7, 2, 100_000, 7),
        # or one a thread where each has enough tokens.
        (0, 1, 100_000, 1),
        (0, 2, 100_000, 2),
        (0, 16, 100_000, 16),
        (0, 16, 4 * MIN_TOKENS, 4),
        (0, 16, 4 * MIN_TOKENS - 1, 3),
        (0, 2, 2 * MIN_TOKENS, 2),
        (0, 2, 2 * MIN_TOKENS - 1, 1),
        (0, 2, 1, 1),
    ],
)
def test_the_number_of_workers(configured: int, threads: int, tokens: int, workers: int) -> None:
    assert choose_workers(configured, threads, tokens, CPU) == workers
    # A GPU takes a batch as a whole.
    assert choose_workers(configured, threads, tokens, torch.device("cuda")) == 1


def test_a_map_has_all_results_in_order(workers: Workers) -> None:
    def slow(value: int) -> int:
        time.sleep(0.001 * (value % 3))
        return value * value

    assert workers.map(slow, range(20)) == [value * value for value in range(20)]
    assert workers.map(slow, []) == []


def test_a_map_takes_nothing_more_after_an_error(workers: Workers) -> None:
    begun: list[int] = []

    def fail(value: int) -> None:
        begun.append(value)
        time.sleep(0.005)
        raise KeyError(value)

    with pytest.raises(KeyError):
        workers.map(fail, range(100))
    assert len(begun) <= workers.count
