"""What a run will do and take, before it is queued:  python -m experiments.plan experiment=sparsegpt model=llama2_7b

Reads config.json and no weight. Everything is an estimate: shapes are exact, what methods compute is counted on small
layers, and the time follows from a few seconds of measuring this machine, once for the same question.
"""

import argparse
import sys
from collections.abc import Sequence

from experiments import command
from experiments.command import Job
from experiments.disk import room
from experiments.ending import ending
from experiments.planning.prospect import Prospect, foresee

TRIES = 1  # measurements of the machine's speed after a first one: more of them move an estimate less than it is off


def parser() -> argparse.ArgumentParser:
    """The command line: this command's own help, and everything else as experiments.run takes it."""
    return argparse.ArgumentParser(
        prog="python -m experiments.plan",
        description="Print what a run of experiments.run will prune, compute and need, without running it; with -m one"
        " line for each run and the totals. Wrong settings fail as they would there. Nothing is written but"
        " OUTPUTS/cache: the plan, what a model is made of and a method computes; the next one answers at once.",
        epilog="example: python -m experiments.plan -m experiment=wanda,sparsegpt model=llama2_7b data=c4",
        usage="%(prog)s [-m] [NAME=VALUE ...]",
    )


@ending()
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0, or 2 for a mistake in the command line or a run that could not work."""
    lines = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(lines):
        parser().print_help()
        return 0
    print(planned(lines))
    return 0


def planned(arguments: list[str]) -> str:
    """The plan of all runs that a command line asks for."""
    jobs = command.jobs(arguments)
    if jobs is None:
        raise ValueError("expected settings of experiments.run; its own flags, as --cfg, belong there")
    prospects = foresee(jobs, TRIES)
    if len(jobs) == 1:
        return describe(jobs[0], prospects[0])
    return tabulate(jobs, prospects)


def describe(job: Job, run: Prospect | None) -> str:
    """All that is known of one run."""
    if run is None:
        return "this run is done; the same command of experiments.run prints its table"
    return "\n".join([*model(job, run), *layers(run), *passes(run), *memory(job, run), *disk(job, run), *time(run)])


def model(job: Job, run: Prospect) -> list[str]:
    """The model and what of it is pruned."""
    share = 100 * run.weights / run.numbers
    return [
        f"model     {job.config['model']['path']}: {run.blocks} blocks, {size(run.size)}, about"
        f" {count(run.numbers)} numbers; embeddings, norms and head {size(run.outside)}",
        f"prune     {sum(times for *_, times in run.matrices)} matrices, {count(run.weights)} weights,"
        f" {share:.1f} % of the model; {job.config['allocator']['sparsity']:g} of them go",
    ]


def layers(run: Prospect) -> list[str]:
    """The matrices, equal ones of all blocks in a line, and what is skipped, with the reason."""
    lines = [f"          {name} {shape} x {times}" for name, shape, times in run.matrices]
    return lines + [f"skipped   {key} x {times}" for key, times in run.skipped.items()]


def passes(run: Prospect) -> list[str]:
    """How often the calibration data go through the model."""
    forward, backward = run.passes
    lines = [f"passes    {forward} forward + {backward} backward over {run.sequences} x {run.length} tokens"]
    for name, out, back in run.surveys:
        lines.append(f"          once, kept in the cache: {name}, {out} sequences forward, {back} backward")
    return lines if run.sequences or run.surveys else ["passes    none: no calibration data are needed"]


def memory(job: Job, run: Prospect) -> list[str]:
    """Peak memory for each place of the activations, and what makes it up for the place that is asked for."""
    chosen, lines = job.config.get("activations", "device"), []
    for place, (one, other) in run.peaks.items():
        on_host = f"{size(other)} of host memory"
        said = on_host if run.device == "cpu" else f"{size(one)} of {run.device}, {size(other)} of host"
        lines.append(f"memory    activations={place}: {said}{', as asked for' * (place == chosen)}")
    for stage, parts in run.stages:
        ordered = sorted(((value, name) for name, value in parts.items() if value), reverse=True)
        lines.append(f"          {stage}: {', '.join(f'{name} {size(value)}' for value, name in ordered)}")
    return lines


def disk(job: Job, run: Prospect) -> list[str]:
    """What is written, and what room there is."""
    lines = []
    for setting in dict.fromkeys(setting for setting, *_ in run.disk):
        found = {what: bytes for place, what, bytes in run.disk if place == setting}
        said = ", ".join(f"{what} {size(bytes)}" for what, bytes in found.items())
        free = f"{size(room(job.config[setting]))} free in {setting}"
        lines.append(f"{'' if lines else 'disk':9} {size(sum(found.values()))} of {free}: {said}")
    return lines


def time(run: Prospect) -> list[str]:
    """Operations and seconds of each part, with what they were estimated from."""
    operations = sum(operations for _, operations, _ in run.spent)
    parts = ", ".join(f"{name} {span(seconds)}" for name, _, seconds in run.spent)
    rate, wide, bandwidth = (number / 1e9 for number in run.rates)
    lines = [
        f"time      about {span(run.seconds)} for {operations:.2e} floating-point operations: {parts}",
        f"          measured here: {rate:.0f} GFLOP/s in the model's dtype, {wide:.0f} in float32,"
        f" {bandwidth:.0f} GB/s; loading, tokenizing and writing come on top",
    ]
    guessed = [f"eval={name} {windows} windows" for name, windows in run.assumed]
    lines += [f"          assumed: {', '.join(guessed)}"] * bool(guessed)
    return lines + ["          zero-shot tasks are not estimated"] * run.zeroshot


def tabulate(jobs: list[Job], runs: list[Prospect | None]) -> str:
    """A line for each run of a multirun, and the totals: what runs share is counted once."""
    lines = [f"{'run':44} {'passes':>7} {'device':>10} {'host':>10} {'disk':>10} {'time':>10}"]
    for job, run in zip(jobs, runs, strict=True):
        name = f"{job.names.model} {job.names.method} {job.names.pattern} {job.config['allocator']['sparsity']:g}"
        if run is None:
            lines.append(f"{name:44} done")
            continue
        device, host = run.peaks[job.config.get("activations", "device")]
        used = sum(bytes for *_, bytes in run.disk)
        cells = [size(device) if device else "-", size(host), size(used), span(run.seconds)]
        passes = "{} + {}".format(*run.passes)
        lines.append(f"{name:44} {passes:>7} " + " ".join(f"{cell:>10}" for cell in cells))
    left = [run for run in runs if run is not None]
    seconds, space = sum(run.seconds for run in left), sum(bytes for run in left for *_, bytes in run.disk)
    total = f"about {span(seconds)}, {size(space)} of {size(room(jobs[0].config['outputs']))} free"
    return "\n".join([*lines, f"{len(left)} of {len(jobs)} runs to do: {total}"])


def size(number: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1000 or unit == "GiB":
            break
        number /= 1024
    return f"{number:.3g} {unit}" if number < 1000 else f"{number:.0f} {unit}"


def count(number: float) -> str:
    """A number of weights for people."""
    power = next((k for k in range(4) if number < 1000 ** (k + 1)), 3)
    return f"{number / 1000**power:.3g} {('', 'thousand', 'million', 'billion')[power]}".rstrip()


def span(seconds: float) -> str:
    """Seconds for people."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
