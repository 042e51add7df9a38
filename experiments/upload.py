"""Finished runs to Weights & Biases, each as the run that tracker=[wandb] makes while it goes on.

    python -m experiments.upload OUTPUTS... [--project NAME] [--entity NAME] [--again]

What W&B has already is left alone; a run that has gained numbers since takes its own place again.
"""

import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.console.arguments import Arguments
from experiments.console.errors import ending
from experiments.runs.record import read


@ending()
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if W&B has every finished run or a recording of it waits, 1 if not, 2 for what cannot be read."""
    options = _parser().parse_args(arguments)
    records = read(options.outputs)
    done = [record for record in records if record.status == "done"]
    folders = " ".join(shlex.quote(str(folder)) for folder in options.outputs)
    if not done:
        raise ValueError(f"no finished run in {folders}: expected one, found {_counted(r.status for r in records)}")
    from experiments.trackers.upload import upload_runs  # noqa: PLC0415 - wandb takes seconds

    places = {name: value for name in ("project", "entity") if (value := getattr(options, name))}
    ends = []
    for record, end, place in upload_runs(done, places, options.again):
        print(f"{end}: {record.manifest.get('name') or record.folder.name} {place}".rstrip(), flush=True)
        ends.append(end)
    left = [f"left out, {record.status}" for record in records if record.status != "done"]
    print(_counted([*ends, *left]))
    if "recorded offline" in ends:
        print(f"to upload: find {folders} -name 'offline-run-*' -exec wandb sync --yes {{}} +")
    return 1 if "failed" in ends else 0


def _counted(words: Iterable[str]) -> str:
    """How many there are of each: "3 uploaded, 1 there already"."""
    return ", ".join(f"{count} {word}" for word, count in Counter(words).items()) or "no run"


def _parser() -> Arguments:
    parser = Arguments(
        prog="python -m experiments.upload",
        description="Upload finished runs to Weights & Biases: each becomes the run that tracker=[wandb] makes, with"
        " the same id, name, group, configuration, curves and tables. What is there already is left alone; a run that"
        " has gained numbers since replaces itself. Without an API key runs are recorded offline, in their folders.",
        epilog="example: python -m experiments.upload outputs --project pruning",
    )
    parser.add_argument("outputs", nargs="+", type=Path, metavar="OUTPUTS", help="folders with runs, at any depth")
    parser.add_argument("--project", help="where they appear; by default tracker.wandb.project of each run, or pruning")
    parser.add_argument("--entity", help="team or user; by default tracker.wandb.entity, or the account's own")
    parser.add_argument("--again", action="store_true", help="also what is there already; each run replaces itself")
    return parser


if __name__ == "__main__":
    sys.exit(main())
