"""Hidden states that wait for their turn: on the device, in host memory, or in a file."""

import tempfile
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from shutil import disk_usage
from typing import Any, Literal

import torch
from torch import Tensor

from prune.nested import each

Activations = Literal["device", "host", "disk"]


@dataclass(frozen=True)
class Place:
    """Where states wait between two uses, and the device they come to; `folder` holds the files of `disk`."""

    device: torch.device
    activations: Activations = "device"
    folder: str | None = None

    @property
    def away(self) -> "Place":
        """The same, off the device: for states that are needed once, later."""
        return Place(self.device, "host" if self.activations == "device" else self.activations, self.folder)


class States:
    """A list of tensors of one shape (the last may be smaller); each comes to the device when it is asked for.

    The values are the same wherever they wait. In a file they take one slot each, and no memory. What blocks hand on
    beside a state, by key (prune.call), waits with it, in host memory if the states are not on the device.
    """

    def __init__(self, place: Place, tensors: Iterable[Tensor] = ()) -> None:
        self.place = place
        self.file: Any = None
        self.waiting: list[Any] = []  # tensors; what stands in for them in a file; None once taken
        self._beside: dict[int, dict[int, Any]] = {}
        for tensor in tensors:
            self.append(tensor)

    def __len__(self) -> int:
        return len(self.waiting)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[k] for k in range(len(self)))

    def __getitem__(self, k: int) -> Tensor:
        kept = self.waiting[k]
        if self.place.activations != "disk":
            return kept.to(self.place.device, non_blocking=True)
        buffer = bytearray(kept.nbytes)
        self.file.seek(k * self.waiting[0].nbytes)
        self.file.readinto(buffer)
        return torch.frombuffer(buffer, dtype=kept.dtype).reshape(kept.shape).to(self.place.device)

    def __setitem__(self, k: int, state: Tensor) -> None:
        self.waiting[k] = self._put(k, state)

    def put(self, k: int, state: Tensor, beside: dict[int, Any]) -> None:
        """Another state in this place, and what goes beside it."""
        self[k] = state
        away = torch.device("cpu") if self.place.activations != "device" else self.place.device
        self._beside[k] = each(beside, lambda leaf: leaf.to(away) if isinstance(leaf, Tensor) else leaf)

    def beside(self, k: int) -> dict[int, Any]:
        """What goes beside this one, on the device."""
        there = self.place.device
        return each(self._beside.get(k, {}), lambda leaf: leaf.to(there) if isinstance(leaf, Tensor) else leaf)

    def append(self, state: Tensor, beside: dict[int, Any] | None = None) -> None:
        """One more, at the end."""
        self.waiting.append(None)
        self.put(len(self) - 1, state, beside or {})

    def copied(self, place: Place) -> "States":
        """The same ones in another place."""
        other = States(place)
        for k, state in enumerate(self):
            other.append(state, self.beside(k))
        return other

    def take(self, k: int) -> Tensor:
        """This one, for the last time: its memory is free afterwards."""
        state = self[k]
        if self.place.activations != "disk":
            self.waiting[k] = None
        return state

    def reserve(self, count: int, like: Tensor) -> None:
        """ValueError, before anything is computed, if the folder has no room for this many."""
        if self.place.activations != "disk":
            return
        room, needed = disk_usage(self.place.folder or tempfile.gettempdir()).free, count * like.nbytes
        if room < needed:
            raise ValueError(
                f"{self.place.folder}: expected room for one layer of hidden states, {needed / 2**30:.2f} GiB, found "
                f"{room / 2**30:.2f}; free some, set scratch to another folder, use fewer calibration sequences, or "
                "activations=host"
            )

    def _put(self, k: int, state: Tensor) -> Any:
        if self.place.activations != "disk":
            return to_host(state) if self.place.activations == "host" else state
        if self.file is None:
            self.file = tempfile.TemporaryFile(dir=self.place.folder)  # noqa: SIM115 - without a name: gone with us
            weakref.finalize(self, self.file.close)
        bare = torch.empty_like(state, device="meta")
        self.file.seek(k * (self.waiting[0] if self.waiting[0] is not None else bare).nbytes)
        self.file.write(state.cpu().contiguous().view(torch.uint8).numpy().data)
        return bare


def to_host(state: Tensor) -> Tensor:
    """A copy in host memory, as it is there already. From a GPU it is on its way when this returns.

    It goes to pinned memory, which the GPU reads and writes itself, several times as fast. Work that the same stream
    is given later finds it there; whoever reads it on the host has to synchronize first.
    """
    if state.device.type == "cpu":
        return state.cpu()
    return torch.empty(state.shape, dtype=state.dtype, pin_memory=True).copy_(state, non_blocking=True)
