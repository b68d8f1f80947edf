"""The C library's heap, which keeps the holes that large temporary arrays leave in it."""

from __future__ import annotations

import ctypes

__all__ = ["keep_large_arrays_out"]

_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE = 1 << 20  # bytes; glibc would raise its own bound to 32 MiB as soon as a large array is freed


def keep_large_arrays_out() -> None:
    """Gives large arrays pages of their own, which go back to the kernel with them (mallopt(3)).

    With 100,000 paths the holes would be a quarter of the agent's memory. C libraries without mallopt are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
