"""Whether a checkpoint keeps what was promised: complete, finite, as sparse as it should be, the zeros where they were.

    python -m experiments.verify outputs/demo/wanda-2of4-0.5-0123456789/model
    python -m experiments.verify owner/name --pattern 2of4 --sparsity 0.5
    python -m experiments.verify outputs/demo/wanda-2of4-0.5-0123456789

Any Hugging Face folder of safetensors, read tensor by tensor. A pruning_manifest.json in it is held against them. Of a
run's folder all is checked that the run vouches for: model, text, settings, code, versions, each number, masks.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.console.errors import ending, one_line
from experiments.console.grid import grid
from experiments.console.text import duration, fraction, size
from experiments.models import location
from experiments.models.certificate import measure
from experiments.models.location import CERTIFICATE

WANTED = ("*.json", "*.safetensors", "*.py", "*.model", "*.txt")  # of a hub model; pickled weights stay there
PATTERNS = Path(__file__).parent.parent / "conf" / "pattern"
SHOWN = 20  # lines of faults, without --all


def located(path: str, revision: str | None = None) -> Path:
    """The folder of `path`; a hub model is downloaded first. ValueError or OSError where there is none."""
    folder = location.located(path)
    if folder is not None:
        return folder
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - a folder does without

    try:
        return Path(snapshot_download(path, revision=revision, allow_patterns=list(WANTED)))
    except Exception as error:  # the hub's client has a dozen kinds of its own
        advice = "check id and revision, `hf auth login` if gated, or give a folder"
        raise ValueError(f"{path}: {one_line(error).rstrip('.')}; {advice}") from error


def known_patterns() -> list[str]:
    """The n of m patterns among the options of `pattern=`."""
    return sorted(path.stem for path in PATTERNS.glob("*of*.yaml"))


def verify(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """The answer as JSON: status holds or broken, faults, notes, matrices.

    ValueError or OSError in one line for what cannot be read.
    """
    from experiments.files.disk import read_json  # noqa: PLC0415
    from experiments.models import contract  # noqa: PLC0415

    promise, notes = contract.Promise(asked.pattern or "unstructured", asked.sparsity), []
    certificate, blocks, routers, skipped = folder / CERTIFICATE, asked.blocks, False, []
    if certificate.is_file():
        manifest = read_json(certificate)
        promise, notes = contract.promised(manifest, asked.pattern, asked.sparsity)
        model = contract.model_of(manifest)
        blocks, routers = blocks or model.get("blocks"), bool(model.get("routers"))
        skipped = list(manifest.get("skipped") or ())
    elif asked.manifest:
        raise ValueError(f"{folder}: no {CERTIFICATE}; leave --manifest out, or give a model that this project saved")
    patterns = sorted({*known_patterns(), promise.pattern})
    found = measure(folder, patterns, blocks, asked.trust_remote_code, routers, skipped)
    if not found.matrices and (promise.zeros or promise.matrices):
        raise ValueError(f"{folder}: {'; '.join(found.notes)}; nothing to hold against a pattern, sparsity or manifest")
    faults = found.faults + contract.judge(found.matrices, promise)
    broken = bool(faults or any(matrix.faults for matrix in found.matrices))
    answer = {"folder": str(folder), "model": found.kind, "status": "broken" if broken else "holds", "faults": faults}
    answer |= {"notes": [*found.notes, *notes], "pattern": promise.pattern, "sparsity_asked": promise.sparsity}
    answer |= {"manifest": bool(promise.matrices), "bytes": found.bytes, "seconds": found.seconds}
    return answer | {"matrices": [contract.facts(matrix) for matrix in found.matrices]}


def render(answer: dict[str, Any], every: bool = False) -> str:
    """The table, the faults, the notes and the verdict."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for matrix in answer["matrices"]:
        name = matrix["name"] if every else re.sub(r"\.\d+(?=\.|$)", ".*", matrix["name"])
        groups.setdefault(name.removesuffix(".weight"), []).append(matrix)
    header = ["matrix", "stored", "weights", "sparsity", "least", "most", "pattern", "at fault"]
    rows = [[name, *_row(members)] for name, members in groups.items()]
    table = grid(header, rows, "lrrrrrlr", "simple") if rows else ""
    lines = [*answer["faults"], *(f"{m['name']}: {fault}" for m in _worst(answer["matrices"]) for fault in m["faults"])]
    shown = lines if every else lines[:SHOWN]
    shown += [f"{len(lines) - len(shown)} more; --all or --json FILE has them"] * (len(shown) < len(lines))
    shown += [f"note: {note}" for note in answer["notes"]]
    return "\n\n".join(part for part in (table, "\n".join(shown), verdict(answer)) if part)


def verify_run(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """What a run vouches for as JSON: status holds or broken, a line each, and all as text; ValueError for no run."""
    from experiments.runs import vouched  # noqa: PLC0415

    lines = vouched.checked(folder)
    if (folder / "model" / "config.json").is_file():
        model = verify(folder / "model", asked)
        lines.append(vouched.Line("its weights", verdict(model), verdict(model) if model["status"] == "broken" else ""))
    wrong = [line for line in lines if line.wrong]
    rows = [f"{line.name:<16} {f'DIFFERS: {line.wrong}' if line.wrong else line.said}".rstrip() for line in lines]
    end = f"broken: {len(wrong)} of {len(lines)} differ, first {wrong[0].name}: {wrong[0].wrong}" if wrong else ""
    text = "\n".join([*rows, "", end or f"holds: all {len(lines)} are as the run was made"])
    status = "broken" if wrong else "holds"
    return {"folder": str(folder), "status": status, "lines": [vars(line) for line in lines], "text": text}


def _worst(matrices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those at fault, the densest first."""
    return sorted((matrix for matrix in matrices if matrix["faults"]), key=lambda matrix: matrix["sparsity"])


def _row(members: list[dict[str, Any]]) -> list[str]:
    weights, zeros = (sum(member[key] for member in members) for key in ("weights", "zeros"))
    shares = [member["sparsity"] for member in members]
    obeyed = [name for name in members[0]["violations"] if all(m["violations"].get(name) == 0 for m in members)]
    faulty = sum(bool(member["faults"]) for member in members)
    numbers = map(fraction, (zeros / max(weights, 1), min(shares), max(shares)))
    return [str(len(members)), f"{weights:,}", *numbers, " ".join(obeyed), str(faulty or "")]


def verdict(answer: dict[str, Any]) -> str:
    """One line: what holds, or how much does not."""
    matrices = answer["matrices"]
    weights, zeros = (sum(matrix[key] for matrix in matrices) for key in ("weights", "zeros"))
    speed = f"{size(answer['bytes'])} in {duration(answer['seconds'])}"
    found = f"{answer['model']}, {len(matrices)} matrices, sparsity {zeros / max(weights, 1):.6f}"
    if answer["status"] == "broken":
        faulty = sum(bool(matrix["faults"]) for matrix in matrices)
        return f"broken: {faulty} matrices at fault, {len(answer['faults'])} faults beside them; {found}; {speed}"
    promises = [answer["pattern"]] * (answer["pattern"] != "unstructured")
    promises += [f"sparsity {share:g}" for share in [answer["sparsity_asked"]] if share]
    promises += [f"masks of {CERTIFICATE}"] * answer["manifest"]
    return f"holds: {', '.join(['complete', 'finite', *promises])}; {found}; {speed}"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="python -m experiments.verify",
        description="Check a Hugging Face checkpoint of safetensors against its config.json, its pruning_manifest.json"
        " and a pattern or sparsity, or a run's folder against all that the run was made of. Exit code 0: all holds;"
        " 1: something does not; 2: it cannot be read.",
        epilog="example: python -m experiments.verify outputs/demo/NAME/model --pattern 2of4 --sparsity 0.5",
    )
    found.add_argument("model", metavar="FOLDER_OR_RUN_OR_HUB_ID")
    found.add_argument("--pattern", help="n kept of every m, such as 2of4")
    found.add_argument("--sparsity", type=float, help="the least share of zeros over all matrices")
    found.add_argument("--manifest", action="store_true", help=f"fail where there is no {CERTIFICATE}")
    found.add_argument("--revision", help="of a hub model")
    found.add_argument("--blocks", help="path of the decoder blocks, as model.blocks")
    found.add_argument("--trust-remote-code", action="store_true", help="run the model's own code")
    found.add_argument("--all", action="store_true", help="a row for every matrix, and every fault")
    found.add_argument("--json", type=Path, metavar="FILE", help="write everything that was found")
    return found


@ending(without="model.path=")  # the folder is no setting here
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if the contract holds, 1 if not, 2 for a checkpoint or command line that cannot be read."""
    asked = parser().parse_args(arguments)
    from experiments.models import contract  # noqa: PLC0415

    contract.Promise(asked.pattern or "unstructured", asked.sparsity)  # a typing mistake, before a download
    if (Path(asked.model) / "manifest.json").is_file():
        answer = verify_run(Path(asked.model), asked)
        text = answer["text"]
    else:
        answer = verify(located(asked.model, asked.revision), asked)
        text = render(answer, asked.all)
    if asked.json:
        asked.json.write_text(json.dumps(answer, indent=1), encoding="utf-8")
    print(text)
    return 1 if answer["status"] == "broken" else 0


if __name__ == "__main__":
    sys.exit(main())
