"""What is asked of system and interpreter is done to whom it is asked for."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import get_native_id

import pytest

from mmrec_stream.processes import MODEST, step_back


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a niceness of their own on Linux alone")
def test_a_thread_that_steps_back_does_so_alone() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, get_native_id())

    before = niceness()
    with ThreadPoolExecutor(1, initializer=step_back) as modest, ThreadPoolExecutor(1) as other:
        assert modest.submit(niceness).result() == max(before, MODEST)
        assert other.submit(niceness).result() == before
    assert niceness() == before
