"""A checkpoint beside what was promised of it: by its certificate, and by who asks."""

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from experiments.console.arguments import CONF
from experiments.console.grid import grid
from experiments.console.text import anywhere, duration, fraction, size
from experiments.files.disk import read_json
from experiments.models.certificate import Count, Matrix, Measured, Promise, judge, measure, promised
from experiments.models.location import CERTIFICATE
from experiments.models.stored import some

PATTERNS = CONF / "pattern"
SHOWN = 20  # lines of faults
HEADER = ["matrix", "stored", "weights", "sparsity", "least", "most", "pattern", "at fault"]


@dataclass(frozen=True)
class Answer:
    """A checkpoint beside what was promised of it; `faults` are those of the model as a whole."""

    folder: Path
    measured: Measured
    promise: Promise
    faults: list[str]
    notes: list[str]
    masks: bool = False  # whether those of a run were given

    @property
    def faulty(self) -> list[Matrix]:
        """The matrices at fault, the densest first."""
        return sorted((matrix for matrix in self.measured.matrices if matrix.faults), key=lambda each: each.sparsity)

    @property
    def broken(self) -> bool:
        """Whether something does not hold."""
        return bool(self.faults or self.faulty)

    @property
    def verdict(self) -> str:
        """One line: what holds, or how much does not."""
        matrices = self.measured.matrices
        sparsity = sum(matrix.zeros for matrix in matrices) / max(sum(matrix.weights for matrix in matrices), 1)
        what = f"{self.measured.kind}, {len(matrices)} matrices, sparsity {sparsity:.6f}"
        what += f"{self.form}; {size(self.measured.bytes)} in {duration(self.measured.seconds)}"
        if self.broken:
            return f"broken: {len(self.faulty)} matrices at fault, {len(self.faults)} faults beside them; {what}"
        held = ["complete", "finite"]
        if self.promise.pattern != "unstructured":
            held.append(self.promise.pattern)
        if self.promise.sparsity:
            held.append(f"sparsity {self.promise.sparsity:g}")
        if self.promise.bits is not None:
            held.append(f"{2**self.promise.bits} values a {'group' if self.promise.group else 'row'}")
        if self.promise.matrices:
            held.append(f"at least the zeros of {CERTIFICATE}" if self.promise.loose else f"masks of {CERTIFICATE}")
        if self.masks:
            count = sum(matrix.masked for matrix in matrices)
            held.append("every mask of the run" if count == len(matrices) else f"masks of the run in {count} matrices")
        return f"holds: {', '.join(held)}; {what}"

    @property
    def form(self) -> str:
        """How the codes lie, for a checkpoint of codes."""
        if not self.measured.packed:
            return ""
        bits, group, symmetric = (self.measured.packed[name] for name in ("bits", "group", "symmetric"))
        kinds = " and ".join("symmetric" if each else "asymmetric" for each in symmetric)
        some = ", ".join(map(str, group))
        return f", the share of zero codes (packed: {', '.join(map(str, bits))} bits, grids of {some} columns, {kinds})"

    def text(self) -> str:
        """A row for the matrices of one name in all blocks, the faults, the notes and the verdict."""
        groups: dict[str, list[Matrix]] = {}
        for matrix in self.measured.matrices:
            name = anywhere(matrix.name).removesuffix(".weight")
            groups.setdefault(name, []).append(matrix)
        rows = [[name, *row(members)] for name, members in groups.items()]
        table = grid(HEADER, rows, "lrrrrrlr", "simple") if rows else ""
        faults = [*self.faults, *(f"{matrix.name}: {fault}" for matrix in self.faulty for fault in matrix.faults)]
        lines = faults[:SHOWN]
        if len(faults) > SHOWN:
            lines.append(f"{len(faults) - SHOWN} more; --json FILE has them")
        lines += [f"note: {note}" for note in self.notes]
        return "\n\n".join(part for part in (table, "\n".join(lines), self.verdict) if part)

    def facts(self) -> dict[str, Any]:
        """All of it as JSON."""
        status = {"folder": str(self.folder), "status": "broken" if self.broken else "holds"}
        whole = {"faults": self.faults, "notes": self.notes, "promise": asdict(self.promise)}
        return status | asdict(self.measured) | whole


def row(matrices: list[Matrix]) -> list[str]:
    """A row of the table for equal matrices: how many, their weights and sparsities, patterns, how many fail."""
    weights, zeros = sum(matrix.weights for matrix in matrices), sum(matrix.zeros for matrix in matrices)
    sparsities = [matrix.sparsity for matrix in matrices]
    obeyed = [name for name in matrices[0].violations if all(m.violations.get(name) == 0 for m in matrices)]
    faulty = sum(bool(matrix.faults) for matrix in matrices)
    numbers = map(fraction, (zeros / max(weights, 1), min(sparsities), max(sparsities)))
    return [str(len(matrices)), f"{weights:,}", *numbers, " ".join(obeyed), str(faulty or "")]


def verify(folder: Path, options: argparse.Namespace, mask: Callable[[str], Tensor | None] | None = None) -> Answer:
    """The answer on a model's folder, by the options of the command; `mask`: of each matrix by full name, as a run has
    them. ValueError or OSError in one line for what cannot be read.
    """
    promise, notes, model = Promise(options.pattern or "unstructured", options.sparsity), [], {}
    certificate, skipped = folder / CERTIFICATE, []
    if certificate.is_file():
        manifest = read_json(certificate)
        promise, notes = promised(manifest, options.pattern, options.sparsity)
        model, skipped = model_of(manifest), list(manifest.get("skipped") or ())
    elif options.manifest:
        raise ValueError(f"{folder}: no {CERTIFICATE}; leave --manifest out, or give a model that this project saved")
    patterns = sorted({*(path.stem for path in PATTERNS.glob("*of*.yaml")), promise.pattern})
    counts = Count(tuple(patterns), promise.bits, promise.group, mask)
    blocks, routers = options.blocks or model.get("blocks"), bool(model.get("routers"))
    measured = measure(folder, counts, blocks, options.trust_remote_code, routers, skipped)
    if not measured.matrices and (promise.zeros or promise.matrices):
        why = "; ".join(measured.notes)
        raise ValueError(f"{folder}: {why}; nothing to hold against a pattern, sparsity or manifest")
    promise = replace(promise, loose=promise.bits is None and (bool(measured.packed) or options.masks is not None))
    faults = measured.faults + judge(measured.matrices, promise)
    notes += [*_rounded(measured, promise, mask), *_unmasked(measured, mask)]
    return Answer(folder, measured, promise, faults, [*measured.notes, *notes], mask is not None)


def model_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """The run's settings of the model, as far as the manifest has them."""
    config = manifest.get("config")
    model = config.get("model") if isinstance(config, dict) else None
    return model if isinstance(model, dict) else {}


def _unmasked(measured: Measured, mask: Any) -> list[str]:
    """Which matrices no mask was held against, though masks were given."""
    names = [matrix.name for matrix in measured.matrices if not matrix.masked]
    why = "the run has none of them, or loading fuses or splits them"
    return [f"masks are not held against {len(names)} matrices ({why}): {some(names)}"] if names and mask else []


def _rounded(measured: Measured, promise: Promise, mask: Any) -> list[str]:
    """What a later quantiser leaves open: beside zeros of its own those of the run cannot be told by their number."""
    before = {matrix.name: promise.matrices.get(matrix.name, (1.0, ""))[0] for matrix in measured.matrices}
    more = [m for m in measured.matrices if promise.loose and m.zeros > round(before[m.name] * m.weights)]
    if not more or mask is not None:
        return []
    return [
        f"{len(more)} matrices have more zeros than their run left, as rounding makes them: --masks RUN finds others"
    ]
