"""The machine that a run uses: what it is, and the peaks of memory over a stretch of the run.

The kernel's own mark of the process is read and never reset, for others go by it too: /usr/bin/time, a cluster's
account, whoever started us. Where a stretch raises that mark, its peak is the mark, exactly; else it is the highest of
samples that a thread takes, which may miss what was held for a shorter time than lies between two of them.
"""

import os
import platform
import resource
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from threading import Event, Thread
from typing import Any

PERIOD = 0.005  # seconds between two samples
PAGE = resource.getpagesize()
# Where Linux tells what is resident now, what was at most, and what the CPU calls itself.
NOW, STATUS, CPU = Path("/proc/self/statm"), Path("/proc/self/status"), Path("/proc/cpuinfo")
DRIVERS = tuple(map(Path, ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")))  # of NVIDIA, of AMD, of Windows below Linux
# Variables that change in which order a machine sums, and so last bits alone.
SUMS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "TORCH_BLAS_PREFER_CUBLASLT",
    "DISABLE_ADDMM_CUDA_LT",
)


def facts(device: str) -> dict[str, Any]:
    """The device a run uses, and what it is."""
    torch = _torch()
    return {
        "device": device,
        "chip": torch.cuda.get_device_name(device) if device.startswith("cuda") else processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "environment": sums(),
    }


def gpu() -> bool:
    """Whether this machine has a GPU that torch can use, as far as that is known without its import of seconds."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or version("torch").endswith("+cpu")
    return not hidden and any(place.exists() for place in DRIVERS)


def _torch() -> Any:
    import torch  # noqa: PLC0415 - seconds, which a typing mistake and a question about a finished run need not wait for

    return torch


def sums() -> dict[str, str]:
    """What the environment says of the order of sums."""
    return {name: os.environ[name] for name in SUMS if name in os.environ}


def processor() -> str:
    """What the CPU calls itself; Python knows its architecture alone on Linux."""
    with suppress(OSError, IndexError):
        return CPU.read_text().split("model name")[1].splitlines()[0].strip("\t :")
    return platform.processor() or platform.machine()


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
    with suppress(OSError):
        return PAGE * int(NOW.read_bytes().split()[1])
    return 0


def high_water() -> int:
    """The most bytes that were ever resident; 0 where the system does not tell. (rusage may tell a parent's.)"""
    with suppress(OSError, IndexError):
        return 1024 * int(STATUS.read_text().split("VmHWM:")[1].split()[0])
    return 0


sampler = Sampler()
before = 0  # bytes that were resident when the run began


def begin_run() -> int:
    """Notes what is resident now, before a run, and returns it in bytes; 0 where the system does not tell."""
    global before  # noqa: PLW0603 - a process has one run at a time
    before = resident()
    return before


def forget_peaks(device: str) -> None:
    """Begin a stretch."""
    global sampler  # noqa: PLW0603 - one for each process: threads do not survive a fork
    if not sampler.is_alive():
        sampler = Sampler()
        sampler.start()
    sampler.forget()
    if device.startswith("cuda"):
        _torch().cuda.init()
        _torch().cuda.reset_peak_memory_stats(device)


def peaks(device: str) -> dict[str, int | None]:
    """Peak resident memory of the process and peak memory of the device, in bytes, since `forget_peaks`.

    host_added: what the first has beyond what was resident when the run began.
    """
    sampler.look()
    mark = high_water()
    host = mark if mark > sampler.mark else sampler.highest
    on_device = _torch().cuda.max_memory_allocated(device) if device.startswith("cuda") else None
    return {"host_peak": host, "host_added": max(0, host - before) if before else None, "device_peak": on_device}


def highest(stretches: list[dict[str, int | None]]) -> dict[str, int | None]:
    """The highest of several peaks, name by name; null where none is known."""
    names = dict.fromkeys(name for peaks in stretches for name in peaks)
    return {name: max((p[name] for p in stretches if p.get(name) is not None), default=None) for name in names}
