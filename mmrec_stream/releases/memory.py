"""Memory that a release has held, given back to the system."""

import ctypes
import ctypes.util
import sys


def give_back() -> None:
    """Let the C library return pages that nothing uses.

    A session's weights are many blocks among others, of which glibc keeps the pages otherwise: the process would grow
    with every release that has served.
    """
    if sys.platform == "linux" and _trim is not None:
        _trim(0)


def _find() -> "ctypes._NamedFuncPointer | None":
    try:
        return ctypes.CDLL(ctypes.util.find_library("c")).malloc_trim
    except (OSError, AttributeError):  # another C library than glibc
        return None


_trim = _find()
