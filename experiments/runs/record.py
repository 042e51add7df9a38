"""Runs on disk as their folders tell of them, and their matrices; only JSON files are read, never a model."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from experiments.console import families
from experiments.console.text import anywhere, inline
from experiments.runs import bits, schema
from experiments.runs.identity import PARTS
from experiments.runs.protocol import flat
from experiments.runs.published import renamed
from experiments.runs.schema import BINS

NEEDED = ("model", "method", "pattern", "sparsity", "identity", "status", "config")  # of a manifest
LOWEST = -4.0  # decades from the root mean square at which the first bin of a histogram begins; each is a tenth of one
AT_LEAST = " at least"  # behind the name of a stage whose cost from nothing is not known
SURVEYING = (".gblm.", ".gradient.", ".sensitivity.", ".owl.", ".alphapruning.")  # parts that may find something cached
EARLIER = {"audit/sparsity": "audit/zeros"}  # what metrics were called, and are
WHATS = {"weight": "absolute weight", "score": "score"}


@dataclass(frozen=True)
class Record:
    """One run as its folder tells it. status: done, failed, running, or unreadable (`error` says what is broken)."""

    folder: Path
    manifest: dict[str, Any]
    results: dict[str, Any]
    status: str
    error: str = ""

    @property
    def sparsity(self) -> float | None:
        """The share of weights removed, as audited, else over the pruned matrices; None when nothing tells.

        Of a quantised model that of its masks: other weights are 0 because that is their nearest value.
        """
        layers = self.results.get("layers", [])
        audited = self.results.get("metrics", {}).get("audit/zeros")
        if layers and (audited is None or bits.quantised(self.results)):
            return mean_sparsity(layers)
        return audited

    @cached_property
    def bits(self) -> bits.Count | None:
        """Bits per weight; None where the run does not tell them."""
        return bits.count(self.results, self.manifest["config"])

    @property
    def answers(self) -> dict[str, str]:
        """The files of what its model wrote, from its folder on, by task with what a key has behind it."""
        return {file.stem: f"answers/{file.name}" for file in sorted(self.folder.glob("answers/*.jsonl"))}

    @cached_property
    def seeds(self) -> dict[str, Any]:
        """Every seed among its settings, by its name; only `seed` where the others follow it."""
        settings = flat({part: self.manifest["config"].get(part) for part in (*PARTS, "then")})
        seeds = {name: value for name, value in settings.items() if name.rpartition(".")[2] == "seed"}
        return {name: value for name, value in seeds.items() if name == "seed" or value != seeds.get("seed")}

    @property
    def reads_no_text(self) -> bool:
        """Whether its weights are those of any text: no windows were read, here or for masks that were taken over."""
        return not self.manifest.get("data", True) and not self.manifest["config"].get("given")

    @property
    def parts(self) -> dict[str, str]:
        """What metric, allocator and update are called; of masks that were taken over, what made them. Dense: nothing.

        A part is called by its class, as wanda, which every version wrote.
        """
        if self.manifest["method"] == "dense":
            return {}
        update = masks = self.manifest["config"]
        while given := masks.get("given"):
            masks = given["config"]
        called = lambda part: str(part["_target_"]).rpartition(".")[2].lower()
        named = {name: called(masks[name]) for name in ("metric", "allocator") if masks.get(name)}
        updates = [update.get("update"), *(update.get("then") or {}).values()]
        return named | ({"update": "+".join(map(called, updates))} if updates[0] else {})

    @property
    def commit(self) -> str:
        """The commit that pruned it, and whether and which uncommitted changes it had."""
        return _commit(self.manifest.get("pruned") or self.manifest)

    @property
    def code(self) -> str:
        """What pruned it: commit, uncommitted changes, libraries; both where other code went on after a stop."""
        first = self.manifest.get("pruned") or self.manifest
        return "; then ".join(_describe(code) for code in (first, *first.get("also", [])))


def _commit(code: dict[str, Any]) -> str:
    words = (code.get("commit") or "unknown code")[:12]
    return f"{words} with uncommitted changes {code.get('diff') or ''}".rstrip() if code.get("dirty") else words


def _describe(code: dict[str, Any]) -> str:
    versions = code.get("versions") or {}
    libraries = [f"{package} {versions[package]}" for package in ("torch", "transformers") if package in versions]
    return ", ".join([_commit(code), *libraries])


def read(folders: Iterable[Path | str]) -> list[Record]:
    """Every run below the folders, ordered by folder. Raises FileNotFoundError for a folder that does not exist."""
    paths = {path.resolve(): path for folder in folders for path in runs(Path(folder))}
    return [load(path) for path in sorted(paths.values())]


def runs(top: Path) -> Iterator[Path]:
    """The folders of the runs below this one; FileNotFoundError where there is no such folder."""
    if not top.is_dir():
        raise FileNotFoundError(f"no folder {top}: expected one with runs, such as outputs")
    for folder, children, files in walk(top):
        if "manifest.json" in (*files, *children):
            children.clear()  # a run holds no other runs
            yield folder


def walk(top: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Every folder below this one with the names of its folders and files, as os.walk has them.

    One that may not be opened counts as a run, so that whoever reads that says why it cannot.
    """
    closed: list[Path] = []
    for folder, children, files in os.walk(top, onerror=lambda error: closed.append(Path(error.filename))):
        yield Path(folder), children, files
    yield from ((folder, [], ["manifest.json"]) for folder in closed)


def load(folder: Path) -> Record:
    """One run; what cannot be read is reported in the record, because one broken run must not hide the others."""
    manifest: dict[str, Any] = {}
    try:
        manifest = read_manifest(folder)
        if missing := [key for key in NEEDED if key not in manifest]:
            raise ValueError(f"manifest.json has no {', '.join(missing)}")
        there = manifest["status"] == "done" or (folder / "results.json").exists()
        results = called_now(schema.read(folder / "results.json", schema.RESULTS, seals(manifest))) if there else {}
        families.learn(results.get("families", {}))
    except (OSError, ValueError) as error:
        return Record(folder, manifest, {}, "unreadable", str(error))
    costs, called = with_costs(results, manifest), {"method": renamed(manifest["method"], manifest["config"])}
    return Record(folder, manifest | called, costs, manifest["status"], manifest.get("error", ""))


def called_now(results: dict[str, Any]) -> dict[str, Any]:
    """Results whose metrics have the names of this version."""
    parts = {part: results[part] for part in ("metrics", "step") if part in results}
    return results | {part: {EARLIER.get(k, k): told for k, told in keys.items()} for part, keys in parts.items()}


def with_costs(results: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    """Results in which the seconds of pruning are its cost from nothing, or called the least that it is.

    Earlier versions did not say whether what a method needs of the dense model was found in the cache, nor count the
    run whose masks are given.
    """
    parts = str([manifest["config"].get(part) for part in ("metric", "allocator")])
    surveys = any(name in parts for name in SURVEYING) and "prune" not in results.get("saved", {})
    masks = bool(manifest["config"].get("given")) and "prune" not in results.get("given", {})
    if not surveys and not masks:
        return results
    renamed = {
        part: {f"prune{AT_LEAST}" if stage == "prune" else stage: told for stage, told in results[part].items()}
        for part in ("seconds", "stage_memory")
        if part in results
    }
    return results | renamed


def spent_elsewhere(results: dict[str, Any]) -> list[tuple[str, float, str]]:
    """What of the seconds of a stage the run did not spend itself: the stage, seconds, and on what they were spent."""
    parts = {"saved": "spent earlier", "given": "spent on the masks that are given"}
    return [
        (stage, spent, what) for part, what in parts.items() for stage, spent in results.get(part, {}).items() if spent
    ]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run, each field of its type; ValueError or OSError saying what is wrong with it."""
    return schema.read(folder / "manifest.json", schema.MANIFEST)


def seals(manifest: dict[str, Any]) -> bool:
    """Whether a run is of a version that seals all its files, as each has done that tells what a run is made of."""
    return bool(manifest.get("content"))


def with_histograms(folder: Path) -> list[dict[str, Any]]:
    """The matrices of a run whose weights were counted, as the rows of its blocks tell them: results.json does not.

    Those of a block that is gone or damaged are left out.
    """
    layers = []
    for path in sorted((folder / "steps" / "blocks").glob("*.json")):
        try:
            layers += schema.read(path, schema.ROWS, sealed=True)["layers"]
        except (OSError, ValueError):
            continue
    return [layer for layer in layers if layer.get("histograms")]


def mean_sparsity(layers: Sequence[dict[str, Any]]) -> float:
    """The share of weights removed of one or several matrices together."""
    sizes = [layer["shape"][0] * layer["shape"][1] for layer in layers]
    return sum(layer["sparsity"] * size for layer, size in zip(layers, sizes, strict=True)) / sum(sizes)


def sparsities(layers: Iterable[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Matrix -> block -> sparsity. Numbered siblings (experts) share a line, on which their mean by size stands."""
    groups: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(dict)
    for layer in layers:
        groups[kind(layer)].setdefault(layer["block"], []).append(layer)
    return {
        matrix: {block: mean_sparsity(siblings) for block, siblings in blocks.items()}
        for matrix, blocks in groups.items()
    }


def curves(block: dict[str, Any]) -> dict[str, float]:
    """What trackers are told of a solved block, by the row that the results have of it."""
    error = {} if block["error"] is None else {"block/error": block["error"]}
    return error | {"block/seconds": block["seconds"]}


def kind(layer: dict[str, Any]) -> str:
    """What a matrix is in its block, such as mlp.up_proj, or mlp.experts.*.up_proj for a numbered one."""
    return inline(anywhere(layer["name"].removeprefix(layer["block"])).removeprefix("."))


@dataclass(frozen=True)
class Histogram:
    """Shares of all weights in each bin, those removed and those kept: together they sum to 1."""

    removed: list[float]
    kept: list[float]

    @property
    def edges(self) -> list[float]:
        """The bins' edges in units of each matrix's root mean square; one more than there are bins."""
        return [10 ** (LOWEST + place / 10) for place in range(BINS + 1)]

    @property
    def span(self) -> tuple[float, float]:
        """The edges between which all bins lie that hold a thousandth of the weights."""
        full = [place for place in range(BINS) if self.removed[place] + self.kept[place] >= 1e-3]
        return self.edges[full[0]], self.edges[full[-1] + 1]

    @property
    def cut(self) -> float:
        """Where a cut by this number alone would remove as many weights."""
        goal, passed = sum(self.removed), 0.0
        for place, share in enumerate(map(sum, zip(self.removed, self.kept, strict=True))):
            if share and passed + share >= goal:
                return float(10 ** (LOWEST + (place + (goal - passed) / share) / 10))
            passed += share
        return self.edges[-1]

    @property
    def misplaced(self) -> float:
        """Share of the removed weights that lie above the cut: zero for a method that cuts by this number alone."""
        goal = sum(self.removed)
        passed = within = 0.0
        for removed, kept in zip(self.removed, self.kept, strict=True):
            if passed + removed + kept > goal:
                break
            passed, within = passed + removed + kept, within + removed
        inside = min(goal - passed, removed)
        return max(0.0, 1 - (within + inside) / goal) if goal else 0.0


def joined_histograms(layers: Sequence[dict[str, Any]]) -> dict[str, Histogram]:
    """What was counted of these matrices, "weight" and "score": one histogram each over all of them.

    A matrix counts by its size, whatever share of its weights was counted.
    """
    joined = {}
    for what in WHATS:
        removed, kept, total = [0.0] * BINS, [0.0] * BINS, 0.0
        for layer in layers:
            counts = layer["histograms"].get(what, {"removed": [], "kept": []})
            if counted := sum(counts["removed"]) + sum(counts["kept"]):
                size = layer["shape"][0] * layer["shape"][1]
                total += size
                for place in range(BINS):
                    removed[place] += counts["removed"][place] * size / counted
                    kept[place] += counts["kept"][place] * size / counted
        if total:
            joined[what] = Histogram([share / total for share in removed], [share / total for share in kept])
    return joined
