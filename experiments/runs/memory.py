"""Peaks of memory over a stretch of a run: of the process and of the device.

The kernel's own mark of the process is read and never reset, for others go by it too: /usr/bin/time, a cluster's
account, whoever started us. Where a stretch raises that mark, its peak is the mark, exactly; else it is the highest of
samples that a thread takes, which may miss what was held for a shorter time than lies between two of them.
"""

import resource
import sys
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

PERIOD = 0.005  # seconds between two samples
PAGE = resource.getpagesize()
# Where Linux tells what is resident now, and what was at most.
NOW, STATUS = Path("/proc/self/statm"), Path("/proc/self/status")


class Sampler(Thread):
    """The highest resident memory, in bytes, since it was told to `forget`."""

    def __init__(self) -> None:
        super().__init__(name="memory", daemon=True)
        self.highest = self.mark = 0
        self.clock = Event()  # never set: its own way to wait, whatever else sleeps

    def run(self) -> None:
        """Looks as long as the process lives."""
        while True:
            self.look()
            self.clock.wait(PERIOD)

    def look(self) -> None:
        """Takes one sample."""
        self.highest = max(self.highest, resident())

    def forget(self) -> None:
        """Begins anew with what is resident now."""
        self.mark, self.highest = high_water(), resident()


def resident() -> int:
    """Bytes that are resident now; 0 where the system does not tell."""
    with suppress(OSError, IndexError, ValueError):
        return PAGE * int(NOW.read_bytes().split()[1])
    return 0


def high_water() -> int:
    """The most bytes that were ever resident; rusage may have those of the process that started this one, too."""
    with suppress(OSError, IndexError, ValueError):
        return 1024 * int(STATUS.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


sampler = Sampler()


def forget_peaks(device: str) -> None:
    """Begin a stretch."""
    global sampler  # noqa: PLW0603 - one for each process: threads do not survive a fork
    if not sampler.is_alive() and NOW.exists():
        sampler = Sampler()
        sampler.start()
    sampler.forget()
    if device.startswith("cuda"):
        import torch  # noqa: PLC0415 - seconds

        torch.cuda.init()
        torch.cuda.reset_peak_memory_stats(device)


def peaks(device: str) -> dict[str, int | None]:
    """Peak resident memory of the process and peak memory of the device, in bytes, since `forget_peaks`.

    Where the system does not tell what is resident now, that of the process since it began.
    """
    sampler.look()
    mark = high_water()
    host = mark if mark > sampler.mark or not sampler.highest else sampler.highest
    if not device.startswith("cuda"):
        return {"host_peak": host, "device_peak": None}
    import torch  # noqa: PLC0415

    return {"host_peak": host, "device_peak": torch.cuda.max_memory_allocated(device)}


def highest(found: list[dict[str, int | None]]) -> dict[str, int | None]:
    """The highest of several peaks, name by name; null where none is known."""
    return {name: max((p[name] for p in found if p[name] is not None), default=None) for name in found[0]}
