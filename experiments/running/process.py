"""The process of a command: its memory from the system, and under torchrun its rank.

The ranks meet, the first one speaks, and one that fails stops the others with its reason.
"""

import ctypes
import gc
import io
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress

from prune import ranks

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


def together(command: Callable[[], int]) -> int:
    """The exit code of a command that every rank runs; of the command itself where there is one process."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "LOCAL_RANK" not in os.environ:
        return command()
    import torch  # noqa: PLC0415 - seconds, which --help of one process need not wait for

    with ranks.meet(apart=torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])):
        return command() if ranks.first() else quietly(command)


def quietly(command: Callable[[], int]) -> int:
    """The exit code. The last line of output is the reason of a failure, for the first rank to say."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as output:
        code = command()
    if code:
        reason = next((line for line in reversed(output.getvalue().splitlines()) if line.strip()), f"exit code {code}")
        mine = ranks.rank()
        if not ranks.fail(reason.removeprefix("failed: ").removeprefix("error: ")):
            print(f"rank {mine}: {reason}", file=sys.stderr)
    return code
