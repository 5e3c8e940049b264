import threading
import time

import pytest

from s3_jax.media.background import WriteBehind, prefetch


def test_prefetch_keeps_order_and_works_ahead_within_its_bound():
    made = []

    def numbers():
        for i in range(20):
            made.append(i)
            yield i

    ahead = prefetch(numbers(), depth=3)
    assert next(ahead) == 0
    time.sleep(0.2)
    assert 2 <= len(made) <= 5  # taken, queued, and in the producer's hand
    assert list(ahead) == list(range(1, 20))


def test_prefetch_raises_after_the_items_before_the_error():
    def numbers():
        yield 1
        yield 2
        raise OSError("broken")

    seen = []
    with pytest.raises(OSError, match="broken"):
        for number in prefetch(numbers()):
            seen.append(number)
    assert seen == [1, 2]


def test_closing_ends_the_thread():
    def endless():
        while True:
            yield 0

    before = threading.active_count()
    ahead = prefetch(endless(), depth=1)
    next(ahead)
    assert threading.active_count() == before + 1
    ahead.close()
    assert threading.active_count() == before


def test_write_behind_bounds_what_waits():
    release = threading.Event()
    with WriteBehind(workers=1, depth=2) as writer:
        for _ in range(2):
            writer.submit(release.wait)
        blocked = threading.Thread(target=writer.submit, args=(int,))
        blocked.start()
        blocked.join(0.2)
        assert blocked.is_alive()
        release.set()
        blocked.join(5)
        assert not blocked.is_alive()


def test_write_behind_finishes_everything_and_reports_errors():
    done = []
    with WriteBehind() as writer:
        for i in range(50):
            writer.submit(done.append, i)
        writer.flush()
        assert sorted(done) == list(range(50))

    def fail():
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), WriteBehind() as writer:
        writer.submit(fail)
    with pytest.raises(OSError, match="disk full"), WriteBehind() as writer:
        writer.submit(fail)
        time.sleep(0.1)
        writer.submit(int)
