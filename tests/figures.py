"""Records of runs that were never made, with numbers that a test chooses, and what a figure writes where."""

import math
import random
import zlib
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from experiments.files.disk import seal
from experiments.runs.record import Record
from experiments.summary.rows import arrange
from experiments.summary.seeds import Group, grouped

PPL = "ppl/text@128"
LONG = "a_method_with_a_name_that_goes_on_and_on"
MATRICES = {"attn.q": [40, 80], "mlp.up": [80, 40]}


def record(method="wanda", value=20.0, seed=0, sparsity=0.5, pattern="unstructured", model="demo", blocks=2, **changed):
    """A finished run; `changed`: settings (a dict of the configuration) and whole sections of its results."""
    settings = {"seed": seed, "data": {"name": "text", "seed": seed}} | changed.pop("settings", {})
    config = {"model": {"path": model}} | settings
    names = {"model": model, "method": method, "pattern": pattern, "sparsity": sparsity, "config": config}
    folder = Path(f"{model}/{method}-{pattern}-{sparsity}-{seed}-{zlib.crc32(str(settings).encode())}")
    layers = [
        {"name": f"h.{k}.{name}", "block": f"h.{k}", "shape": shape, "sparsity": sparsity, "notes": {}}
        for k in range(blocks)
        for name, shape in MATRICES.items()
    ]
    results = {
        "metrics": {PPL: value, "ppl_stderr/text@128": 0.5, "audit/zeros": sparsity},
        "dense": {PPL: 10.0},
        "difference_stderr": {PPL: 0.25},
        "protocol": {"perplexity-1": {"sha256": "a1"}},
        "step": {PPL: "perplexity-1"},
        "layers": layers,
        "blocks": [{"block": f"h.{k}", "error": 0.01 * (k + 1), "seconds": 1.0} for k in range(blocks)],
        "seconds": {"load": 0.5, "prune": 2.0, "perplexity": 1.0},
        "memory": {"host_peak": 2**30, "device_peak": None},
    }
    manifest = names | {"identity": "0", "status": "done", "device": "cpu", "commit": "c"}
    return Record(folder, manifest, results | changed, "done")


def groups(runs) -> list[Group]:
    """The runs as pictures are given them."""
    return grouped(arrange(runs))


def spread_over_bins(values, removed):
    """Counts as results.json has them."""
    rms = math.sqrt(fmean(value**2 for value in values))
    counts = {"removed": [0] * 60, "kept": [0] * 60}
    for value, gone in zip(values, removed, strict=True):
        place = min(59, max(0, math.floor(10 * (math.log10(value / rms) + 4))))
        counts["removed" if gone else "kept"][place] += 1
    return counts


def with_histograms(run, top, score=True):
    """The run, in a folder below `top` whose blocks' rows have counts for each matrix."""
    counts = spread_over_bins([0.01 * k for k in range(1, 301)], [k < 150 for k in range(300)])
    rows = top / run.folder / "steps" / "blocks"
    rows.mkdir(parents=True)
    for block in {layer["block"]: None for layer in run.results["layers"]}:
        own = [layer for layer in run.results["layers"] if layer["block"] == block]
        told = [layer | {"histograms": {"weight": counts} | ({"score": counts} if score else {})} for layer in own]
        seal(rows / f"{block}.json", {"block": block, "layers": told})
    return replace(run, folder=top / run.folder)


def on_grids(run):
    """The run, its weights codes of 4 bit, and how large its model is."""
    run.results["layers"] = [layer | {"bits": 4, "grids": 1, "zeros": 0.6} for layer in run.results["layers"]]
    linears = 2 * sum(math.prod(layer["shape"]) for layer in run.results["layers"])
    run.results["stored"] = {"weights": linears, "bytes": 2 * linears, "linears": linears}
    return run


def few(top):
    """Two methods with two seeds each, one of them uneven, with histograms; all quantised alike."""
    runs = [
        with_histograms(on_grids(record(m, 20.0 + k + 5 * (m == "owl"), k)), top)
        for m in ("owl", "wanda")
        for k in (0, 1)
    ]
    for run in runs[:2]:
        run.results["layers"][0]["sparsity"] = 0.7
    return runs


def many(top):
    """More methods, models and budgets than a picture holds, long names, far values, and many blocks."""
    draw, runs = random.Random(0), []
    for model in ("a-model-with-a-long-name", "another-model", "third", "fourth"):
        for k, method in enumerate([LONG, "random", *(f"method{i}" for i in range(24))]):
            for seed, budget in ((0, 0.5), (1, 0.5), (0, 0.7)):
                value = 20 * draw.lognormvariate(0, 0.3) * (1e4 if method == "random" else 1)
                run = on_grids(record(method, value, seed, budget, model=model, blocks=24))
                run.results["seconds"]["prune"] = 10 ** draw.uniform(-1, 3)
                run.results["stage_memory"] = {"prune": {"host_peak": 2**33, "device_peak": 2**35}}
                for layer in run.results["layers"]:
                    layer["sparsity"] += draw.uniform(-0.1, 0.1)
                runs.append(with_histograms(run, top) if k < 12 and model == "third" else run)
    return runs


@contextmanager
def written(monkeypatch):
    """Collects (figure, text, its box in pixels) of all text that is really drawn meanwhile."""
    from matplotlib.text import Text  # noqa: PLC0415

    found, draw = [], Text.draw

    def seen(self, renderer, *arguments, **options):
        if self.get_visible() and self.get_text().strip():
            found.append((self.get_figure(root=True), self.get_text(), self.get_window_extent(renderer)))
        return draw(self, renderer, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Text, "draw", seen)
        yield found
