"""What is found once on the whole dense model, kept on disk for every run that asks the same of it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm

from experiments.files.disk import forget_unfinished, locked, seal, sealed
from experiments.files.tensors import intact, write_tensors
from experiments.runs.identity import survey
from prune import ranks
from prune.statistic import ModelStatistic

COMPLETE = "complete.json"  # written last: which blocks were found
Find = Callable[[], Iterator[tuple[str, dict[str, Tensor]]]]


@dataclass(frozen=True)
class Shelf(Mapping[str, Tensor]):
    """The tensors of all safetensors files in a folder, by name, each read when it is asked for."""

    folder: Path

    @cached_property
    def _files(self) -> dict[str, Path]:
        found = {}
        for file in sorted(self.folder.glob("*.safetensors")):
            with safe_open(file, "pt") as opened:
                found |= dict.fromkeys(opened.keys(), file)
        return found

    def __getitem__(self, name: str) -> Tensor:
        with safe_open(self._files[name], "pt") as opened:
            return opened.get_tensor(name)

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


@dataclass(frozen=True)
class Surveys:
    """The folder <outputs>/cache/surveys; what is found depends on model, tokens and the statistic's own fields.

    The batch counts too, for sums over other batches differ in their last bits. tokens: sha256, shape and name of the
    calibration windows, as the manifest has them; None for what reads no data.
    """

    config: dict[str, Any]
    tokens: dict[str, Any] | None

    def __call__(self, statistic: ModelStatistic, find: Find) -> Mapping[str, Tensor]:
        """Its values by full name of the matrix: from disk, or found now block by block and put there.

        One process finds them, or its ranks together, and others wait. A file that is not as it was written makes them
        be found again.
        """
        data = self.tokens if statistic.data else None
        who = survey(self.config, (data or {}).get("sha256"), statistic)
        folder = Path(self.config["outputs"]) / "cache" / "surveys" / f"{type(statistic).__name__}-{who}"
        if not ranks.told(lambda: complete(folder)):
            with ranks.entered(locked(folder / ".lock", wait=True, what=f"surveys/{folder.name}")):
                ranks.told(lambda: forget_unfinished(folder))
                if not ranks.told(lambda: complete(folder)):
                    found = tqdm(find(), type(statistic).__name__, unit="block", leave=False, disable=None)
                    blocks = [write(block, values, folder) for block, values in found]
                    if survey(self.config, (data or {}).get("sha256"), statistic) != who:
                        raise ValueError("model: its files changed while they were read; run it again")
                    said = {"statistic": repr(statistic), "model": self.config["model"]["path"], "tokens": data}
                    ranks.told(lambda: seal(folder / COMPLETE, said | {"blocks": blocks}))
        return Shelf(folder)


def write(block: str, values: dict[str, Tensor], folder: Path) -> str:
    """Put what was found of a block into the folder; returns the block."""
    ranks.told(lambda: write_tensors(values, folder / f"{block}.safetensors"))
    return block


def complete(folder: Path) -> bool:
    """Whether a search ended here, and all that it found is as it was written."""
    told = sealed(folder / COMPLETE)
    return told is not None and all(intact(folder / f"{block}.safetensors") for block in told["blocks"])
