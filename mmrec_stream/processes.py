"""What the system is asked to do for our processes: children end with us, freed memory goes back."""

import ctypes
import signal
import sys

_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Runs in the child (`preexec_fn`): have the kernel kill it when we die, however we die (`prctl(2)`; Linux)."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def give_back_memory() -> None:
    """Let the C library return pages that nothing uses to the system.

    What is freed at once was many blocks among others, of which glibc keeps the pages otherwise: a fifth of what
    profiles take after they were read, and the weights of every release that has served.
    """
    trim = getattr(_LIBC, "malloc_trim", None)  # glibc alone has it
    if trim is not None:
        trim(0)
