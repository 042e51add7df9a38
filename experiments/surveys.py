"""What is found once on the whole dense model, kept on disk for every run that asks the same of it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm

from experiments.identity import fingerprint, model
from experiments.record import read_json, write_json
from experiments.store import write_tensors
from prune.statistic import ModelStatistic

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
        """Its values by full name of the matrix: from disk, or found now block by block and put there."""
        data = self.tokens if statistic.data else None
        who = fingerprint([model(self.config), self.config["batch"], (data or {}).get("sha256"), repr(statistic)])
        folder = Path(self.config["outputs"]) / "cache" / "surveys" / f"{type(statistic).__name__}-{who}"
        complete = folder / "complete.json"
        if not complete.exists():
            blocks = 0
            for block, values in tqdm(find(), type(statistic).__name__, unit="block", leave=False, disable=None):
                write_tensors(values, folder / f"{block}.safetensors")
                blocks += 1
            write_json(complete, {"statistic": repr(statistic), "tokens": data, "blocks": blocks})
        if len(list(folder.glob("*.safetensors"))) != read_json(complete)["blocks"]:
            raise ValueError(f"{folder} is not as it was left; remove it to find these values again")
        return Shelf(folder)
