"""What W&B gets of a finished run's folder: numbers, tables, pictures, and the JSON files as an artifact."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.files.disk import sealed
from experiments.runs.matrices import both, kind
from experiments.runs.record import with_histograms

COLUMNS = {
    "layers": ("layer", "block", "out", "in", "target", "sparsity", "block error", "block seconds", "notes"),
    "blocks": ("block", "error", "seconds", "sparsity"),
    "stages": ("stage", "seconds", "host peak", "device peak"),  # bytes
    "histograms": ("matrix", "of", "from", "to", "removed", "kept"),  # shares of the matrices' weights
}


def mirror(run: Any, folder: Path) -> None:
    """Logs all of it; wandb makes the last numbers the summary. Raises what wandb raises."""
    import wandb  # noqa: PLC0415

    files = [path for path in (folder / "manifest.json", folder / "results.json") if path.is_file()]
    results = sealed(folder / "results.json") or {}
    if results:
        run.log(scalars(results))
    artifact = wandb.Artifact(f"manifest-{run.id}", type="manifest")
    for path in files:
        artifact.add_file(str(path))
    run.log_artifact(artifact)
    for name, rows in (tables(results) | {"histograms": bins(with_histograms(folder))}).items():
        if rows:
            run.log({name: wandb.Table(columns=list(COLUMNS[name]), data=rows)})
    for path in sorted(folder.glob("*.png")):
        run.log({f"plots/{path.stem}": wandb.Image(str(path))})


def scalars(results: dict[str, Any]) -> dict[str, float]:
    """Every number of a results.json under a flat key: metrics as they are, the rest behind the name of its section."""
    metrics, dense = results.get("metrics", {}), results.get("dense", {})
    change = {key: value - dense[key] for key, value in metrics.items() if key in dense and "_stderr/" not in key}
    sections = {"dense": dense, "difference": change}
    sections |= {name: results.get(name, {}) for name in ("seconds", "memory", "notes")}
    sections |= {f"memory/{stage}": peaks for stage, peaks in results.get("stage_memory", {}).items()}
    flat = {f"{name}/{key}": value for name, section in sections.items() for key, value in section.items()}
    return {key: value for key, value in (metrics | flat).items() if isinstance(value, int | float)}


def tables(results: dict[str, Any]) -> dict[str, list[list[Any]]]:
    """Rows in the order of `COLUMNS`, by table; none where the results do not tell."""
    return {"layers": layers(results), "blocks": blocks(results), "stages": stages(results)}


def layers(results: dict[str, Any]) -> list[list[Any]]:
    """One row per pruned matrix."""
    blocks = {block["block"]: block for block in results.get("blocks", [])}
    rows = []
    for layer in results.get("layers", []):
        block = blocks.get(layer["block"], {})
        numbers = [*layer["shape"], layer["target"], layer["sparsity"], block.get("error"), block.get("seconds")]
        rows.append([layer["name"], layer["block"], *numbers, json.dumps(layer.get("notes", {}))])
    return rows


def blocks(results: dict[str, Any]) -> list[list[Any]]:
    """One row per block: the relative squared error of its output, and the share of its weights removed."""
    rows = []
    for block in results.get("blocks", []):
        own = [layer for layer in results.get("layers", []) if layer["block"] == block["block"]]
        sizes = [layer["shape"][0] * layer["shape"][1] for layer in own]
        removed = sum(layer["sparsity"] * size for layer, size in zip(own, sizes, strict=True))
        share = removed / sum(sizes) if sizes else None
        rows.append([block["block"], block["error"], block["seconds"], share])
    return rows


def stages(results: dict[str, Any]) -> list[list[Any]]:
    """One row per stage of the run; peaks in bytes, None where they were not measured."""
    memory = results.get("stage_memory", {})
    rows = []
    for stage, seconds in results.get("seconds", {}).items():
        peaks = memory.get(stage, {})
        rows.append([stage, seconds, peaks.get("host_peak"), peaks.get("device_peak")])
    return rows


def bins(found: Sequence[dict[str, Any]]) -> list[list[Any]]:
    """One row per bin of each kind of matrix, of the weights and, where there are, of the scores.

    Edges are in root mean squares of each dense matrix; the first bin begins at 0, the last has no end.
    """
    rows = []
    for name in dict.fromkeys(map(kind, found)):
        own = [layer for layer in found if kind(layer) == name]
        for what, shares in both(own).items():
            edges = [0.0, *shares.edges[1:-1], None]
            for place, counts in enumerate(zip(shares.removed, shares.kept, strict=True)):
                rows.append([name, what, edges[place], edges[place + 1], *counts])
    return rows
