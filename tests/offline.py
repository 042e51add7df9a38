"""Reads back what W&B recorded offline in a folder, by wandb's own reader and from the files it keeps."""

import json
import os
import subprocess
from pathlib import Path

from wandb.util import get_core_path


def recorded(folder: Path, home: Path) -> list[dict]:
    """What wandb's own reader finds in the one offline run of a folder."""
    (path,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    asked = ["leet", "inspect", "--json", "--no-observability", "--run-file", str(path)]  # as `wandb leet` asks it
    environment = {**os.environ, "HOME": str(home), "WANDB_ERROR_REPORTING": "false"}
    lines = subprocess.run(
        [get_core_path(), *asked], env=environment, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    return [json.loads(line) for line in lines.splitlines()]


def of(records: list[dict], kind: str) -> list[dict]:
    """The records of one kind, in order."""
    return [record[kind] for record in records if record["type"] == kind]


def last(records: list[dict]) -> dict:
    """The summary at the end: later updates replace earlier ones."""
    return {name: value for update in of(records, "summary") for name, value in update["update"].items()}


def rows_of(folder: Path, table: str) -> list[dict]:
    """The rows of a table that W&B keeps with the run."""
    (stored,) = (folder / "wandb").glob(f"offline-run-*/files/media/table/{table}_*.json")
    kept = json.loads(stored.read_text())
    return [dict(zip(kept["columns"], row, strict=True)) for row in kept["data"]]


def configured(records: list[dict]) -> dict:
    """The configuration at the end."""
    updates = [update["config"] for update in of(records, "run")] + of(records, "config")
    return {name: value for update in updates for name, value in update["update"].items() if name != "_wandb"}
