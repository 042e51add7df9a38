"""What a tracker is: whoever is told the numbers of a run while it goes on."""

from pathlib import Path
from typing import Any


class Tracker:
    """One entry of `tracker=[...]`. The run's folder holds everything anyway, so a tracker decides no number.

    A tracker is a dataclass in experiments/trackers; its fields are the settings of conf/tracker/NAME.yaml, where
    they stand under NAME. It is called in the order of its methods, by the first rank alone from `start` on. What it
    raises in `start` and `log` ends the run as failed: what the run can do without is better logged as a warning.
    """

    def check(self) -> None:
        """ValueError or OSError for settings that cannot work. Called whenever a run is composed: asks no network."""

    def start(self, folder: Path, manifest: dict[str, Any]) -> None:
        """A run begins, or goes on: its folder, and what manifest.json says (identity, name, method, config, ...)."""

    def log(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Numbers by metric: block/seconds and block/error of block `step`, from 0; of an evaluation without a step.

        A run that goes on tells the blocks that were solved before once more.
        """

    def finish(self, folder: Path, status: str) -> None:
        """The run is over, "done" or "failed"; all its files are in the folder. Called after a failure, too."""
