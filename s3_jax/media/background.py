"""Reading ahead of a loop and writing behind it, in threads with bounded queues."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def prefetch(items: Iterable[T], depth: int = 4) -> Generator[T, None, None]:
    """Yield the same items, produced by a thread that stays at most `depth` items ahead.

    An exception in the producer is raised here, after the items that precede it. The thread ends
    after the last item, or when this generator is closed.
    """
    ahead: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=depth)
    closed = threading.Event()
    producer = threading.Thread(target=_produce, args=(items, ahead, closed), daemon=True)
    producer.start()
    try:
        while True:
            kind, value = ahead.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        closed.set()
        producer.join()


def _produce(items: Iterable[Any], ahead: queue.Queue, closed: threading.Event) -> None:
    try:
        for item in items:
            if not _put(ahead, ("item", item), closed):
                return
        _put(ahead, ("end", None), closed)
    except BaseException as error:  # passed to the consumer, not swallowed
        _put(ahead, ("error", error), closed)


def _put(ahead: queue.Queue, entry: tuple[str, Any], closed: threading.Event) -> bool:
    """Put an entry into the queue; return False if the consumer has stopped reading."""
    while not closed.is_set():
        try:
            ahead.put(entry, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False


class WriteBehind:
    """Context manager that runs calls in worker threads, with at most `depth` of them waiting.

    The exception of a failed call is raised by a later `submit` or `flush`, in the order of
    submission. Leaving the context without an error waits for all calls.
    """

    def __init__(self, workers: int = 2, depth: int = 4):
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="write")
        self._pending: deque[Future] = deque()
        self._depth = depth

    def submit(self, call: Callable[..., object], *args: object) -> None:
        """Queue `call(*args)`; if the queue is full, wait for the oldest call first."""
        while self._pending and (len(self._pending) >= self._depth or self._pending[0].done()):
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(call, *args))

    def flush(self) -> None:
        """Wait until all submitted calls are done."""
        while self._pending:
            self._pending.popleft().result()

    def __enter__(self) -> "WriteBehind":
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        try:
            if error is None:
                self.flush()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
