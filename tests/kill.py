"""Kills runs at random moments (kill -9), lets the same command go on, and compares what comes out, bit for bit.

    python -m tests.kill --points 100

Every attempt is a process of its own, forked from this one, which has imported everything. It dies at a random moment
of the time that an undisturbed run takes, or at a random rename of a file, before it or after it. After some deaths a
stored file is cut or one of its bytes turned, as a failing disk does.
"""

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from experiments.composing import command
from experiments.console.grid import grid
from experiments.files.tensors import write_tensors
from experiments.running import pipeline
from experiments.runs.folder import Names, Run
from tests.crashes.attempts import LIMIT, Command, attempt, damage
from tests.crashes.likeness import differences

DATA = ["data=tokens", "model.dtype=float32", "device=cpu", "batch=2", "eval=[perplexity,audit]"]
CASES = {  # what is killed, by what it is called in the table
    "magnitude": ["experiment=magnitude"],
    "wanda": ["experiment=wanda", "save_model=true"],
    "sparsegpt": ["experiment=sparsegpt", "pattern=2of4", "save_model=true"],
    "admm": ["experiment=admm"],
    "gblm": ["experiment=gblm", "save_model=true"],
    "besa": ["experiment=besa"],
    "barber": ["experiment=barber", "save_model=true"],
    "mixed": ["experiment=mixed", "allocator.sequences=2"],
    "owl": ["experiment=owl"],
    "dsnot": ["experiment=dsnot", "pattern=2of4"],
}
KILLS = 4  # of one run at most; then it is left in peace


@dataclass
class Tally:
    """One method: deaths, those of them at a rename, files damaged, runs that came to an end, what differed."""

    method: str
    share: int  # how many deaths are wanted
    log: Path
    seconds: float = 0.0  # of an undisturbed run
    writes: int = 0  # files that it renames
    kills: int = 0
    renames: int = 0
    damaged: int = 0
    runs: int = 0
    identical: int = 0
    differences: list[str] = field(default_factory=list)


def hunt(work: Path, methods: Sequence[str], points: int, seed: int) -> list[Tally]:
    """Kill runs of these methods `points` times altogether, and compare each, when it ended, with an undisturbed one.

    RuntimeError if an undisturbed run fails.
    """
    shared, generator, tallies = prepare(work), random.Random(seed), []
    with tqdm(total=points, desc="kills", unit="kill", leave=False, disable=None) as bar:
        for place, method in enumerate(methods):
            share = points // len(methods) + (place < points % len(methods))
            tally, asked = Tally(method, share, work / f"{method}.log"), compose([*shared, *CASES[method]])
            reference, start = work / method, time.perf_counter()
            if attempt(asked(reference), tally.log) != 0:
                raise RuntimeError(f"{method} fails without being killed, see {tally.log}")
            tally.seconds = time.perf_counter() - start
            tally.writes = int(tally.log.with_suffix(".renames").read_text())
            while tally.kills < share:
                outputs = work / f"{method}-{tally.runs}"
                torment(asked(outputs), outputs, tally, generator, bar.update)
                found = differences(reference, outputs)
                tally.differences += found
                tally.identical += not found
                if not found:
                    shutil.rmtree(outputs)
            tallies.append(tally)
    return tallies


def prepare(work: Path) -> list[str]:
    """The overrides that all runs share, with their token windows put into the folder.

    Imports what a run needs, by doing one.
    """
    torch.set_num_threads(1)  # a child of a process with a pool of threads would wait for them forever
    generator, lines = torch.Generator().manual_seed(0), list(DATA)
    for setting, count in (("data.path", 6), ("eval.perplexity.path", 4)):
        file = work / f"{setting}.safetensors"
        write_tensors({"tokens": torch.randint(1000, (count, 64), generator=generator)}, file)
        lines.append(f"{setting}={file}")
    pipeline.run(Run.open(*compose([*lines, *CASES["magnitude"]])(work / "first")))
    return lines


def compose(overrides: list[str]) -> Callable[[Path], Command]:
    """What a command line asks for, as a function of the folder of outputs."""
    [asked] = command.jobs([*overrides, "outputs=OUTPUTS"])
    text = json.dumps([asked.config, asdict(asked.names)])

    def place(outputs: Path) -> Command:
        config, names = json.loads(text.replace("OUTPUTS", str(outputs)))
        return config, Names(**names)

    return place


def torment(asked: Command, outputs: Path, tally: Tally, generator: random.Random, tell: Callable[[], Any]) -> None:
    """Kill one run some times, start it again each time, then leave it in peace until it ends."""
    for _ in range(generator.randint(1, KILLS)):
        at_rename = generator.randint(1, tally.writes) if generator.random() < 0.4 else None
        delay = LIMIT if at_rename else generator.uniform(0, tally.seconds)
        if attempt(asked, tally.log, delay, at_rename, before=generator.random() < 0.5) != -signal.SIGKILL:
            break  # it ended first
        tally.kills += 1
        tally.renames += at_rename is not None
        tally.damaged += generator.random() < 0.25 and damage(outputs, generator)
        tell()
        if tally.kills == tally.share:
            break
    code = attempt(asked, tally.log)
    tally.runs += 1
    if code != 0:
        tally.differences.append(f"{outputs}: ended with exit code {code}, see {tally.log}")


def show(tallies: Sequence[Tally]) -> str:
    """One line for each method, and the count."""
    header = ["method", "seconds", "kills", "at a rename", "files damaged", "runs", "identical"]
    rows = [[t.method, f"{t.seconds:.1f}", t.kills, t.renames, t.damaged, t.runs, t.identical] for t in tallies]
    kills, runs, identical = (sum(row[place] for row in rows) for place in (2, 5, 6))
    said = f"{kills} kills in {runs} runs; {identical} ended with what an undisturbed run ends with, bit for bit"
    different = [line for tally in tallies for line in tally.differences]
    return "\n".join([grid(header, [[str(cell) for cell in row] for row in rows], "lr"), "", said, *different])


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="python -m tests.kill",
        description="Kill runs of the embedded model at random moments (kill -9), run the same command again until it"
        " ends, and compare weights, masks, numbers and tables with those of an undisturbed run, bit for bit.",
        epilog="example: python -m tests.kill --points 20 --methods wanda,barber",
    )
    found.add_argument("--points", type=int, default=100, help="how many kills altogether")
    found.add_argument("--methods", type=lambda text: text.split(","), default=list(CASES), metavar="X,Y")
    found.add_argument("--seed", type=int, default=0, help="of the moments")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if every killed run ended as the undisturbed one, 1 if one did not, 2 for a mistake in it."""
    asked = parser().parse_args(arguments)
    if unknown := [method for method in asked.methods if method not in CASES]:
        parser().error(f"no method {unknown[0]}; there are {', '.join(CASES)}")
    if asked.points < 1:
        parser().error(f"--points: expected 1 or more, found {asked.points}")
    work = Path(tempfile.mkdtemp(prefix="kill-"))
    try:
        tallies = hunt(work, asked.methods, asked.points, asked.seed)
    except KeyboardInterrupt:
        shutil.rmtree(work)
        return 130
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(show(tallies))
    if any(tally.identical < tally.runs for tally in tallies):
        print(f"all that was written is in {work}", file=sys.stderr)
        return 1
    shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
