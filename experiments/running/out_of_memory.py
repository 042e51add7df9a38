"""Out of memory: the same run once more with less of it on the device, until nothing is left to move."""

import gc
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import get_args

import torch

from experiments.console.errors import one_line
from experiments.runs.folder import Run
from prune import ranks
from prune.network import Network
from prune.states import Activations

log = logging.getLogger("experiments")


@dataclass(frozen=True)
class Tier:
    """How much a run may hold: where a layer of hidden states waits, and how many sequences go through at once."""

    activations: Activations
    batch: int

    def apply(self, network: Network, scratch: str | None, folder: Path) -> None:
        """Set a model up so; states on disk lie in `scratch`, or without a name in the run's folder."""
        network.activations, network.batch = self.activations, self.batch
        network.scratch = scratch or (str(folder) if self.activations == "disk" else None)

    @property
    def lower(self) -> Iterator["Tier"]:
        """The next ones: first those that change no bit, then smaller batches, whose sums are rounded elsewhere."""
        places = get_args(Activations)
        last = self
        for place in places[places.index(self.activations) + 1 :]:
            last = replace(last, activations=place)
            yield last
        while last.batch > 1:
            last = replace(last, batch=last.batch // 2)
            yield last


def with_less(first: Tier, record: Run, work: Callable[[Tier], None]) -> None:
    """Do the work, and after every shortage of memory what is left of it at the next lower tier.

    What was solved is on disk and stays. The manifest tells of each retry; the error of the last tier is raised.
    """
    retries = record.manifest["retries"] = list(record.manifest.get("retries") or [])  # of earlier commands first
    short = ""
    for tier in (first, *first.lower):
        if short:
            retries.append({"error": short} | asdict(tier))
            record.write()
            place = f"activations={tier.activations}, batch={tier.batch}"
            log.warning("out of memory (%s); once more with %s", short, place)
        try:
            with record.attempt():
                return work(tier)
        except (MemoryError, RuntimeError) as error:
            if not is_shortage(error):
                raise
            short = one_line(error)
        if ranks.world() > 1:  # the others are in the middle of something
            raise ValueError(f"out of memory: {short}; set activations=host, activations=disk or a smaller batch")
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    raise ValueError(f"out of memory at the lowest tier: {short}; use a larger device, or less calibration data")


def is_shortage(error: Exception) -> bool:
    """Whether memory was short, on the device or on the host, whose allocator of torch raises a RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
