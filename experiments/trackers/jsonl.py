"""Every logged number as a line of JSON in the run's folder: the truth that other trackers mirror."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from experiments.trackers.tracker import Tracker


@dataclass
class Jsonl(Tracker):
    """Appends {"time", "step", metric: value, ...} to metrics.jsonl, one line per call; "step" only where one is given.

    A run that is started again goes on in the same file, after a line {"time", "restarted": its identity}.
    """

    path: Path | None = field(default=None, init=False)

    def start(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Chooses the file. Raises OSError when it cannot be written."""
        self.path = folder / "metrics.jsonl"
        if not self.path.exists() or not self.path.stat().st_size:
            return
        if not self.path.read_bytes().endswith(b"\n"):  # a crash cut the last line short: the next must not join it
            self._append("\n")
        self._write({"restarted": manifest["identity"]})

    def log(self, metrics: dict[str, float], step: int | None = None) -> None:
        """One line, on disk when this returns."""
        self._write(metrics if step is None else {"step": step, **metrics})

    def _write(self, entry: dict[str, Any]) -> None:
        self._append(json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **entry}) + "\n")

    def _append(self, text: str) -> None:
        assert self.path is not None, "start() comes first"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)
