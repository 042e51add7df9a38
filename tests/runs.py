"""Folders of runs as the runner leaves them, with numbers that a test chooses."""

import json
import math
import random
from pathlib import Path
from statistics import fmean

from experiments.files.disk import seal

PPL, BOOLQ, RTE, MEAN = "ppl/text@128", "acc/boolq", "acc/rte", "acc/mean"
DENSE = {PPL: 17.5, "ppl_stderr/text@128": 0.25, BOOLQ: 0.75, RTE: 0.6, MEAN: 0.675}


def put(
    top: Path, method: str, pattern="unstructured", metrics=None, path="demo", sha256="a1", version=2.0, **manifest
) -> Path:
    """Writes a run's folder as the runner does; metrics None leaves results.json out."""
    names = {"model": "demo", "method": method, "pattern": pattern, "sparsity": 0.5, "identity": "0" * 10} | manifest
    sparsity = names["sparsity"]
    folder = top / names["model"] / f"{method}-{pattern}-{sparsity:g}-{names['identity']}"
    folder.mkdir(parents=True)
    content = {"name": folder.name, "config": {"model": {"path": path}}, "status": "done"} | names
    seal(folder / "manifest.json", content)
    if metrics is None:
        return folder
    tasks = {"boolq": {"version": version}, "rte": {"version": 1.0}}
    results = {
        "metrics": metrics | {"audit/zeros": sparsity + 1e-4},
        "dense": DENSE,
        "protocol": {"perplexity-1": {"sha256": sha256}, "zeroshot-1": {"tasks": tasks, "mean_over": list(tasks)}},
        "step": {key: "perplexity-1" if key.startswith("ppl") else "zeroshot-1" for key in metrics},
        "layers": [
            {"name": "h.0.q", "block": "h.0", "shape": [2, 4], "sparsity": sparsity, "target": 0.5, "notes": {}}
        ],
        "blocks": [{"block": "h.0", "error": 0.25, "seconds": 1.0}],
    }
    results |= {"skipped": {"lm_head": "outside the blocks"}, "notes": {"dead_columns": 3}}
    results |= {"seconds": {"prune": 1.25}, "memory": {"host_peak": 4096, "device_peak": None}}
    seal(folder / "results.json", results)
    return folder


def change(folder: Path, **parts) -> None:
    """Puts other parts into a run's results.json, as a later command does."""
    kept = json.loads((folder / "results.json").read_text())
    seal(folder / "results.json", {name: part for name, part in kept.items() if name != "sha256"} | parts)


def many(top: Path, count: int) -> None:
    """So many runs of twelve methods, six sparsities and up to fifty seeds, of a model with six blocks."""
    matrices = {"attn.q": [192, 192], "attn.o": [192, 192], "mlp.up": [512, 192], "mlp.down": [192, 512]}
    shapes = {(f"h.{block}", name): shape for block in range(6) for name, shape in matrices.items()}
    draw = random.Random(0)
    for place in range(count):
        method, sparsity, seed = f"method{place % 12}", 0.3 + place // 12 % 6 / 10, place // 72
        windows = [3 + sparsity + place % 12 / 50 + draw.gauss(0, 0.1) for _ in range(64)]
        folder = put(
            top, method, metrics=metrics(math.exp(fmean(windows))), sparsity=sparsity, identity=f"{place:010}",
            config={"model": {"path": "demo"}, "seed": seed, "data": {"sequences": 128, "seed": seed}},
        )  # fmt: skip
        losses(folder, windows)
        common = {"sparsity": sparsity, "target": sparsity, "dtype": "float32", "notes": {}}
        layers = [{"name": f"{b}.{name}", "block": b, "shape": shape, **common} for (b, name), shape in shapes.items()]
        blocks = [{"block": f"h.{block}", "error": 0.01 * (block + 1), "seconds": 1.0} for block in range(6)]
        change(folder, layers=layers, blocks=blocks, seconds={"prune": draw.uniform(1, 10) * (1 + place % 12)})


def metrics(perplexity: float, **changed: float) -> dict[str, float]:
    """Metrics of a run whose accuracies are the dense ones less 0.1."""
    accuracies = {BOOLQ: 0.65, RTE: 0.5, MEAN: 0.575}
    return {PPL: perplexity, "ppl_stderr/text@128": 0.5, **accuracies, "acc_stderr/boolq": 0.05, **changed}


def losses(folder: Path, values: list[float]) -> None:
    """Gives a run of `put` the loss of each window, from which differences between runs get their error."""
    content = {"metrics": {}, "protocol": {}, "details": {"losses": values}}
    (folder / "steps").mkdir()
    seal(folder / "steps" / "perplexity-1.json", content)
