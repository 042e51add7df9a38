"""Whether a checkpoint keeps what was promised: complete, finite, as sparse as it should be, the zeros where they were.

    python -m experiments.verify outputs/demo/wanda-2of4-0.5-0123456789/model
    python -m experiments.verify owner/name --pattern 2of4 --sparsity 0.5
    python -m experiments.verify outputs/demo/wanda-2of4-0.5-0123456789

Any Hugging Face folder of safetensors, read tensor by tensor. A pruning_manifest.json in it is held against them. Of a
run's folder all is checked that the run vouches for: model, text, settings, code, versions, each number, masks.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.console.errors import ending
from experiments.console.grid import grid
from experiments.console.text import anywhere, duration, fraction, size
from experiments.files.disk import read_json
from experiments.models.certificate import Matrix, Measured, Promise, judge, measure, model_of, promised
from experiments.models.location import CERTIFICATE, fetched
from experiments.runs import provenance

PATTERNS = Path(__file__).parent.parent / "conf" / "pattern"
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
        what += f"; {size(self.measured.bytes)} in {duration(self.measured.seconds)}"
        if self.broken:
            return f"broken: {len(self.faulty)} matrices at fault, {len(self.faults)} faults beside them; {what}"
        held = ["complete", "finite"]
        if self.promise.pattern != "unstructured":
            held.append(self.promise.pattern)
        if self.promise.sparsity:
            held.append(f"sparsity {self.promise.sparsity:g}")
        if self.promise.matrices:
            held.append(f"masks of {CERTIFICATE}")
        return f"holds: {', '.join(held)}; {what}"

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


def verify(folder: Path, options: argparse.Namespace) -> Answer:
    """The answer on a model's folder; ValueError or OSError in one line for what cannot be read."""
    promise, notes, model = Promise(options.pattern or "unstructured", options.sparsity), [], {}
    certificate, skipped = folder / CERTIFICATE, []
    if certificate.is_file():
        manifest = read_json(certificate)
        promise, notes = promised(manifest, options.pattern, options.sparsity)
        model, skipped = model_of(manifest), list(manifest.get("skipped") or ())
    elif options.manifest:
        raise ValueError(f"{folder}: no {CERTIFICATE}; leave --manifest out, or give a model that this project saved")
    patterns = sorted({*(path.stem for path in PATTERNS.glob("*of*.yaml")), promise.pattern})
    blocks, routers = options.blocks or model.get("blocks"), bool(model.get("routers"))
    measured = measure(folder, patterns, blocks, options.trust_remote_code, routers, skipped)
    if not measured.matrices and (promise.zeros or promise.matrices):
        why = "; ".join(measured.notes)
        raise ValueError(f"{folder}: {why}; nothing to hold against a pattern, sparsity or manifest")
    faults = measured.faults + judge(measured.matrices, promise)
    return Answer(folder, measured, promise, faults, [*measured.notes, *notes])


def verify_run(folder: Path, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """What a run vouches for, as JSON and as text, a line each; ValueError for no run."""
    lines = provenance.check(folder)
    if (folder / "model" / "config.json").is_file():
        model = verify(folder / "model", options)
        lines.append(provenance.Line("its weights", model.verdict, model.verdict if model.broken else ""))
    wrong = [line for line in lines if line.wrong]
    rows = [f"{line.name:<16} {f'DIFFERS: {line.wrong}' if line.wrong else line.value}".rstrip() for line in lines]
    end = f"holds: all {len(lines)} are as the run was made"
    if wrong:
        end = f"broken: {len(wrong)} of {len(lines)} differ, first {wrong[0].name}: {wrong[0].wrong}"
    status = "broken" if wrong else "holds"
    facts = {"folder": str(folder), "status": status, "lines": [vars(line) for line in lines]}
    return facts, "\n".join([*rows, "", end])


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(
        prog="python -m experiments.verify",
        description="Check a Hugging Face checkpoint of safetensors against its config.json, its pruning_manifest.json"
        " and a pattern or sparsity, or a run's folder against all that the run was made of. Exit code 0: all holds;"
        " 1: something does not; 2: it cannot be read.",
        epilog="example: python -m experiments.verify outputs/demo/NAME/model --pattern 2of4 --sparsity 0.5",
    )
    line.add_argument("model", metavar="FOLDER_OR_RUN_OR_HUB_ID")
    line.add_argument("--pattern", help="n kept of every m, such as 2of4")
    line.add_argument("--sparsity", type=float, help="the least share of zeros over all matrices")
    line.add_argument("--manifest", action="store_true", help=f"fail where there is no {CERTIFICATE}")
    line.add_argument("--revision", help="of a hub model")
    line.add_argument("--blocks", help="path of the decoder blocks, as model.blocks")
    line.add_argument("--trust-remote-code", action="store_true", help="run the model's own code")
    line.add_argument("--json", type=Path, metavar="FILE", help="write every matrix and every fault")
    return line


@ending(without="model.path=")  # the folder is no setting here
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if the contract holds, 1 if not, 2 for a checkpoint or command line that cannot be read."""
    options = parser().parse_args(arguments)
    Promise(options.pattern or "unstructured", options.sparsity)  # a typing mistake, before a download
    if (Path(options.model) / "manifest.json").is_file():
        facts, text = verify_run(Path(options.model), options)
    else:
        answer = verify(fetched(options.model, options.revision), options)
        facts, text = answer.facts(), answer.text()
    if options.json:
        options.json.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    print(text)
    return 1 if facts["status"] == "broken" else 0


if __name__ == "__main__":
    sys.exit(main())
