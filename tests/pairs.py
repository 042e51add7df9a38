"""Finished runs as the runner leaves them, with random masks and losses, for those who compare two of them."""

import json
import math
from pathlib import Path

import torch

from experiments.files.disk import seal
from experiments.runs.stores import BlockStore
from prune.method import Pruned
from prune.prune import Solved

KEY, BOOLQ = "ppl/text@8", "acc/boolq"
SHAPES = {"attn.q": (6, 7), "mlp.experts.0.up": (5, 9), "mlp.experts.1.up": (5, 9)}


def config(**changed) -> dict:
    """A resolved configuration, as far as weights depend on it."""
    told = {"model": {"path": "/a/demo", "device": "cpu"}, "data": {"path": "/a/text", "seed": 0}, "seed": 0}
    told |= {"metric": {"_target_": "prune.metrics.wanda.Wanda"}, "granularity": "block", "given": None}
    told |= {"allocator": {"_target_": "prune.allocators.uniform.Uniform", "sparsity": 0.5}, "outputs": "/a"}
    return told | changed


def put(top: Path, method: str, seed: int = 0, share=0.5, blocks: int = 2, shapes=SHAPES, sha256="a1", **manifest):
    """Writes a finished run: random masks through the store, its rows, and losses of eight windows."""
    generator = torch.Generator().manual_seed(seed)
    folder, rows, errors = top / "demo" / f"{method}-unstructured-{share:g}-{seed:010d}", [], []
    for name in (f"h.{k}" for k in range(blocks)):
        masks = {matrix: torch.rand(shape, generator=generator) >= share for matrix, shape in shapes.items()}
        linears = {f"{name}.{matrix}": Pruned(mask.float(), mask) for matrix, mask in masks.items()}
        BlockStore(folder).save(Solved(name, linears, 0.25, 1.0))
        errors.append({"block": name, "error": 0.01 * (seed + 1 + len(errors)), "seconds": 1.0})
        rows += [
            {"name": full, "block": name, "shape": list(p.mask.shape), "sparsity": 1 - p.mask.double().mean().item()}
            for full, p in linears.items()
        ]
    losses = (3 + 0.1 * seed + 0.5 * torch.rand(8, generator=generator, dtype=torch.float64)).tolist()
    seal(folder / "steps" / "perplexity-1.json", {"details": {"losses": losses}})
    metrics = {KEY: math.exp(sum(losses) / 8), "ppl_stderr/text@8": 0.5, BOOLQ: 0.6, "acc_stderr/boolq": 0.03}
    results = {"metrics": metrics, "layers": rows, "blocks": errors, "seconds": {"prune": 2.0 + seed}}
    results |= {"protocol": {"perplexity-1": {"sha256": sha256}, "zeroshot-1": {"tasks": {"boolq": {"version": 2}}}}}
    results |= {"step": {KEY: "perplexity-1", BOOLQ: "zeroshot-1"}, "memory": {"host_peak": 3 * 2**30}}
    (folder / "results.json").write_text(json.dumps(results))
    names = {
        "model": "demo",
        "method": method,
        "pattern": "unstructured",
        "sparsity": share,
        "identity": f"{seed:010d}",
    }
    names |= {"config": config(seed=seed, data={"path": "/a/text", "seed": seed}), "status": "done"}
    names |= {"data": {"sha256": f"{seed}" * 20}, "model_content": "c" * 20, "commit": "d" * 40}
    (folder / "manifest.json").write_text(json.dumps(names | manifest))
    return folder


def edit(folder: Path, name: str, change) -> None:
    """Changes a run's JSON file."""
    value = json.loads((folder / name).read_text())
    change(value)
    (folder / name).write_text(json.dumps(value))
