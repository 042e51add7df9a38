"""Where this process gets the memory of large tensors, and what becomes of it."""

import ctypes
import gc
import os
from contextlib import suppress

HUGE = "THP_MEM_ALLOC_ENABLE"  # torch reads it at its first tensor; huge pages are of 2 MB
MMAP_THRESHOLD = -3  # of mallopt(3): blocks above it get pages of their own


def large_pages() -> None:
    """Large tensors on huge pages, where a fresh one costs a quarter; to be called before the first tensor is made.

    Also, what is freed goes back to the system: glibc would keep blocks of up to 32 MB for later. With model blocks of
    226 MB the process grew to 2.1 GB in six of them, without end; it stays at 0.7 GB this way.
    """
    os.environ.setdefault(HUGE, "1")  # here, and in processes that this one starts
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, 8 * 2**20)


def give_back() -> None:
    """What is free goes back to the system now, so that the next peak of this process is that of what comes next."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
