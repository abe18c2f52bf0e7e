"""The pool of threads behind runs: all parts at once, whatever happens in between."""

import gc
import os
import threading
import time

import numpy as np
import pytest

from tbc.runtime import Pool, physical_cores


def parts_of(pool, work=lambda part: 0):
    """The parts that the threads of a pool do, each by the thread that does it."""
    done = {}

    def run_part(call, part, parts):
        assert (call, parts) == ("call", pool.threads)
        assert part not in done
        done[part] = threading.get_ident()
        return work(part)

    return done, pool.run(run_part, "call", None)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_each_part_has_a_thread_of_its_own(threads):
    pool = Pool(threads)
    together = threading.Barrier(threads)

    def work(part):
        together.wait(60)
        return 7

    for _ in range(50):
        done, status = parts_of(pool, work)
        assert sorted(done) == list(range(threads))
        assert len(set(done.values())) == threads
        assert done[0] == threading.get_ident()
        assert status == 7


def test_a_second_run_is_told_that_the_pool_is_busy():
    pool = Pool(2)
    seen = []

    def work(part):
        if part == 0:
            seen.append(pool.run(lambda *_: 0, "call", None))
        return 0

    assert parts_of(pool, work)[1] == 0
    assert seen == [None]
    assert parts_of(pool)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own():
    pool = Pool(2)
    assert parts_of(pool)[1] == 0
    child = os.fork()
    if child == 0:
        os._exit(0 if sorted(parts_of(pool)[0]) == [0, 1] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert parts_of(pool)[1] == 0


def test_the_threads_end_with_the_pool():
    before = set(threading.enumerate())
    pool = Pool(4)
    parts_of(pool)
    own = set(threading.enumerate()) - before
    assert len(own) == 3
    del pool
    gc.collect()
    for thread in own:
        thread.join(60)
        assert not thread.is_alive()


def test_memory_that_threads_wait_on_shares_no_cache_line():
    pool = Pool(2)
    assert np.frombuffer(pool.sync, np.uint8).ctypes.data % 64 == 0
    assert pool.sync.arrived == 0


def test_there_is_a_core():
    assert 1 <= physical_cores() <= (os.cpu_count() or 1)


def test_threads_without_a_run_sleep():
    pool = Pool(4)
    assert pool.run(lambda call, part, parts: 0, None, None) == 0
    start = time.process_time()
    time.sleep(0.1)
    assert time.process_time() - start < 0.05
