"""Runs found on disk, as their folders tell them. Only manifest.json and results.json are read, never a model."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from experiments.runs import schema
from experiments.runs.identity import PARTS
from experiments.runs.protocol import flat

NEEDED = ("model", "method", "pattern", "sparsity", "identity", "status", "config")  # of a manifest


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
        """The share of weights removed, as audited, else over the pruned matrices; None when nothing tells."""
        sizes = [layer["shape"][0] * layer["shape"][1] for layer in self.results.get("layers", [])]
        audited = self.results.get("metrics", {}).get("audit/sparsity")
        if audited is not None or not sizes:
            return audited
        removed = sum(layer["sparsity"] * size for layer, size in zip(self.results["layers"], sizes, strict=True))
        return removed / sum(sizes)

    @cached_property
    def seeds(self) -> dict[str, Any]:
        """Every seed among its settings, by its name; only `seed` where the others follow it."""
        settings = flat({part: self.manifest["config"].get(part) for part in PARTS})
        found = {name: value for name, value in settings.items() if name.rpartition(".")[2] == "seed"}
        return {name: value for name, value in found.items() if name == "seed" or value != found.get("seed")}

    @property
    def code(self) -> str:
        """What pruned it: commit, uncommitted changes, libraries; both where other code went on after a stop."""
        first = self.manifest.get("pruned") or self.manifest
        return "; then ".join(_describe(code) for code in (first, *first.get("also", [])))


def _describe(code: dict[str, Any]) -> str:
    changed = f" with uncommitted changes {code.get('diff') or ''}".rstrip() * bool(code.get("dirty"))
    versions = code.get("versions") or {}
    used = "".join(f", {package} {versions[package]}" for package in ("torch", "transformers") if package in versions)
    return (code.get("commit") or "unknown code")[:12] + changed + used


def read(folders: Iterable[Path | str]) -> list[Record]:
    """Every run below the folders, ordered by folder. Raises FileNotFoundError for a folder that does not exist."""
    found = {path.resolve(): path for folder in folders for path in runs(Path(folder))}
    return [load(path) for path in sorted(found.values())]


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
        manifest = schema.read(folder / "manifest.json", schema.MANIFEST)
        if missing := [key for key in NEEDED if key not in manifest]:
            raise ValueError(f"manifest.json has no {', '.join(missing)}")
        there = manifest["status"] == "done" or (folder / "results.json").exists()
        results = schema.read(folder / "results.json", schema.RESULTS, seals(manifest)) if there else {}
    except (OSError, ValueError) as error:
        return Record(folder, manifest, {}, "unreadable", str(error))
    return Record(folder, manifest, results, manifest["status"], manifest.get("error", ""))


def seals(manifest: dict[str, Any]) -> bool:
    """Whether a run is of a version that seals all its files, as each has done that tells what a run is made of."""
    return bool(manifest.get("content"))


def with_histograms(folder: Path) -> list[dict[str, Any]]:
    """The matrices of a run whose weights were counted, as the rows of its blocks tell them: results.json does not.

    Those of a block that is gone or damaged are left out.
    """
    found = []
    for path in sorted((folder / "steps" / "blocks").glob("*.json")):
        try:
            found += schema.read(path, schema.ROWS, sealed=True)["layers"]
        except (OSError, ValueError):
            continue
    return [layer for layer in found if layer.get("histograms")]


def manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run, each field of its type; ValueError or OSError saying what is wrong with it."""
    return schema.read(folder / "manifest.json", schema.MANIFEST)
