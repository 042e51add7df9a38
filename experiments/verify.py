"""Whether a checkpoint keeps what was promised: complete, finite, as sparse as it should be, the zeros where they were.

    python -m experiments.verify outputs/demo/wanda-2of4-0.5-0123456789/model
    python -m experiments.verify owner/name --pattern 2of4 --sparsity 0.5
    python -m experiments.verify outputs/demo/wanda-2of4-0.5-0123456789

Any Hugging Face folder of safetensors, plain or packed, read tensor by tensor. A pruning_manifest.json in it is held
against them. Of a run's folder all is checked that the run vouches for: model, text, settings, code, versions, each
number, masks.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.console.arguments import Arguments
from experiments.console.errors import ending
from experiments.files.disk import intact
from experiments.models.location import CERTIFICATE, fetched
from experiments.runs import provenance


def verify_run(folder: Path, model: Any) -> tuple[dict[str, Any], str]:
    """What a run vouches for, as JSON and as text, a line each; ValueError for no run.

    model: the answer (`models.verdict`) on the model that it saved, None if it saved none.
    """
    lines = provenance.check(folder)
    if model:
        lines.append(provenance.Line("its weights", model.verdict, model.verdict if model.broken else ""))
    wrong, absent = ([line for line in lines if line.wrong and line.absent == kind] for kind in (False, True))
    said = lambda line: f"{'NOT CHECKED' if line.absent else 'DIFFERS'}: {line.wrong}" if line.wrong else line.value
    rows = [f"{line.name:<16} {said(line)}".rstrip() for line in lines]
    status = "broken" if wrong else "not checked" if absent else "holds"
    end = f"holds: all {len(lines)} are as the run was made"
    if first := next(iter(wrong or absent), None):
        count = f"{len(wrong)} of {len(lines)} differ" if wrong else f"{len(absent)} of {len(lines)} cannot be"
        end = f"{status}: {count}, first {first.name}: {first.wrong}"
    facts = {"folder": str(folder), "status": status, "lines": [vars(line) for line in lines]}
    return facts, "\n".join([*rows, "", end])


def parser() -> Arguments:
    """The command line."""
    line = Arguments(
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
    line.add_argument("--masks", type=Path, metavar="RUN", help="the run whose masks the zeros are held against, each")
    line.add_argument("--revision", help="of a hub model")
    line.add_argument("--blocks", help="path of the list of blocks, as model.blocks")
    line.add_argument("--trust-remote-code", action="store_true", help="run the model's own code")
    line.add_argument("--json", type=Path, metavar="FILE", help="write every matrix and every fault")
    return line


@ending(without="model.path=")  # the folder is no setting here
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if the contract holds, 1 if not, 2 for a checkpoint or command line that cannot be read."""
    options = parser().parse_args(arguments)
    from experiments.models import verdict  # noqa: PLC0415 - torch, which --help need not wait for
    from experiments.runs.stores import masks_of  # noqa: PLC0415 - it too

    verdict.Promise(options.pattern or "unstructured", options.sparsity)  # a typing mistake, before a download
    run = Path(options.model)
    if (run / "manifest.json").is_file():
        saved = (run / "model" / "config.json").is_file()
        if not saved and (options.manifest or options.pattern or options.sparsity is not None):
            raise ValueError(
                f"{run} saved no model to hold to a promise: run it with save_model=true, or check RUN alone"
            )
        masks = [*(run / "masks").glob("*.safetensors")]
        mask = masks_of(run) if saved and masks and all(map(intact, masks)) else None  # what is not is told of
        facts, text = verify_run(run, verdict.verify(run / "model", options, mask) if saved else None)
    else:
        mask = masks_of(options.masks) if options.masks else None
        answer = verdict.verify(fetched(options.model, options.revision), options, mask)
        facts, text = answer.facts(), answer.text()
    if options.json:
        options.json.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    print(text)
    return {"broken": 1, "not checked": 2}.get(facts["status"], 0)


if __name__ == "__main__":
    sys.exit(main())
