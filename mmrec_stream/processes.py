"""What system and interpreter are asked to do for our processes: children end with us, freed memory goes back."""

import contextlib
import ctypes
import gc
import os
import signal
import sys
import threading

_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1

YOUNG = 50_000
"""Objects that come together before cycles are looked for among them. With the default, 700, that took a fifth of a
busy worker's time, whose fetches make tens of thousands of objects that die together, and thousands of open streams
stopped a gateway for a quarter of a second every few seconds."""

MODEST = 10
"""Niceness of work that nobody waits for: where processors are short, it has a tenth of the share of other threads."""

SWITCH_S = 0.0005
"""How long a thread may wait for another one that holds the interpreter; 5 ms by default, which the short critical
sections of scoring, and an event loop beside followers, must not wait."""


def die_with_parent() -> None:
    """Runs in the child (`preexec_fn`): have the kernel kill it when we die, however we die (`prctl(2)`; Linux)."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def step_back() -> None:
    """Have the calling thread run, from now on, on what other threads leave of the processors (Linux).

    For work that holds the interpreter little: whoever waits for that has to wait until such a thread is let on.
    Threads that it starts are as modest, pools of libraries included.
    """
    if sys.platform == "linux":  # where each thread has a niceness of its own
        with contextlib.suppress(OSError):  # a sandbox may forbid it, and the work is done all the same
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, max(os.getpriority(os.PRIO_PROCESS, thread), MODEST))


def give_back_memory() -> None:
    """Let the C library return pages that nothing uses to the system.

    What is freed at once was many blocks among others, of which glibc keeps the pages otherwise: a fifth of what
    profiles take after they were read, and the weights of every release that has served.
    """
    trim = getattr(_LIBC, "malloc_trim", None)  # glibc alone has it
    if trim is not None:
        trim(0)


def run_steadily() -> None:
    """Have the interpreter serve many threads and short-lived objects without long stops."""
    gc.set_threshold(YOUNG)
    sys.setswitchinterval(SWITCH_S)


def keep_what_is_loaded() -> None:
    """Look for no cycles among what is there now: modules, catalogue, lists and releases stay.

    A search among them stops every thread for a third of a second, which the objects of the next catalogue that is read
    would bring about.
    """
    gc.collect()
    gc.freeze()
