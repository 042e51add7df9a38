"""What a run will do and take, before it is queued:  python -m experiments.plan experiment=sparsegpt model=llama2_7b

Reads config.json and no weight. Everything is an estimate: shapes are exact, what methods compute is counted on small
layers, and the time follows from a few seconds of measuring this machine.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from experiments import command
from experiments.ending import ending
from experiments.record import Run

TRIES = 1  # measurements of the machine's speed after a first one: more of them move an estimate less than it is off


def parser() -> argparse.ArgumentParser:
    """The command line: this command's own help, and everything else as experiments.run takes it."""
    return argparse.ArgumentParser(
        prog="python -m experiments.plan",
        description="Print what a run of experiments.run will prune, compute and need, without running it; with -m one"
        " line for each run and the totals. Wrong settings fail as they would there. Nothing is written but"
        " OUTPUTS/cache: what a model is made of and a method computes, so that the next plan answers at once.",
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
    from experiments.planning.outlook import Outlook  # noqa: PLC0415 - torch takes seconds

    outlook = Outlook(TRIES)
    done = [Run.open(job.config, job.names).done for job in jobs]
    works = [None if past else outlook.work(job.config) for job, past in zip(jobs, done, strict=True)]
    if len(jobs) == 1:
        return describe(jobs[0], works[0], outlook)
    return tabulate(jobs, works, outlook)


def describe(job: command.Job, work: Any, outlook: Any) -> str:
    """All that is known of one run."""
    if work is None:
        return "this run is done; the same command of experiments.run prints its table"
    lines = [*model(job, work), *layers(work), *passes(work), *memory(job, work), *disk(job, work)]
    return "\n".join([*lines, *time(job, work, outlook)])


def model(job: command.Job, work: Any) -> list[str]:
    """The model and what of it is pruned."""
    body = work.body
    weights = sum(block.weights for block in body.blocks)
    numbers = body.size / body.itemsize
    return [
        f"model     {job.config['model']['path']}: {len(body.blocks)} blocks, {size(body.size)}, about"
        f" {count(numbers)} numbers; embeddings, norms and head {size(body.outside)}",
        f"prune     {sum(len(block.layers) for block in body.blocks)} matrices, {count(weights)} weights,"
        f" {100 * weights / numbers:.1f} % of the model; {job.config['allocator']['sparsity']:g} of them go",
    ]


def layers(work: Any) -> list[str]:
    """The matrices, equal ones of all blocks in a line, and what is skipped, with the reason."""
    alike: dict[tuple[str, tuple[int, int]], int] = {}
    for block in work.body.blocks:
        for layer in block.layers:
            inner = ".".join("*" if part.isdigit() else part for part in layer.name.split("."))
            alike[inner, layer.shape] = alike.get((inner, layer.shape), 0) + 1
    lines = [f"          {name} {list(shape)} x {times}" for (name, shape), times in alike.items()]
    reasons: dict[str, int] = {}
    for name, reason in work.body.skipped.items():
        key = f"{'.'.join('*' if part.isdigit() else part for part in name.split('.'))}: {reason}"
        reasons[key] = reasons.get(key, 0) + 1
    return lines + [f"skipped   {key} x {times}" for key, times in reasons.items()]


def passes(work: Any) -> list[str]:
    """How often the calibration data go through the model."""
    forward, backward = work.passes
    lines = [f"passes    {forward} forward + {backward} backward over {work.sequences} x {work.length} tokens"]
    for name, out, back in work.surveys:
        lines.append(f"          once, kept in the cache: {name}, {out} sequences forward, {back} backward")
    return lines if work.sequences or work.surveys else ["passes    none: no calibration data are needed"]


def memory(job: command.Job, work: Any) -> list[str]:
    """Peak memory for each place of the activations, and what makes it up for the place that is asked for."""
    from experiments.planning.memory import PLACES, peak, stages  # noqa: PLC0415

    device = job.config["device"]
    chosen = job.config.get("activations", "device")
    lines = []
    for place in PLACES:
        one, other = peak(work, place, device)
        said = f"{size(other)} of host memory" if device == "cpu" else f"{size(one)} of {device}, {size(other)} of host"
        lines.append(f"memory    activations={place}: {said}{', as asked for' * (place == chosen)}")
    for stage in stages(work, chosen):
        parts = [(value, name) for found in (stage.device, stage.host) for name, value in found.items()]
        named = ", ".join(f"{name} {size(value)}" for value, name in sorted(parts, reverse=True) if value)
        lines.append(f"          {stage.name}: {named}")
    return lines


def disk(job: command.Job, work: Any) -> list[str]:
    """What is written, and what room there is."""
    from experiments.planning.memory import disk as written  # noqa: PLC0415
    from experiments.preflight import room  # noqa: PLC0415

    found = written(work, job.config, job.config.get("activations", "device"))
    parts = ", ".join(f"{name} {size(value)}" for name, value in found.items())
    return [f"disk      {size(sum(found.values()))} of {size(room(job.config['outputs']))} free: {parts}"]


def time(job: command.Job, work: Any, outlook: Any) -> list[str]:
    """Operations and seconds of each part, with what they were estimated from."""
    speed, spent = outlook.speed(job.config, work), outlook.spent(job.config, work)
    total, operations = sum(part.seconds for part in spent), sum(part.operations for part in spent)
    parts = ", ".join(f"{part.name} {span(part.seconds)}" for part in spent)
    lines = [
        f"time      about {span(total)} for {operations:.2e} floating-point operations: {parts}",
        f"          measured here: {speed.rate / 1e9:.0f} GFLOP/s in the model's dtype, {speed.wide / 1e9:.0f} in"
        f" float32, {speed.bandwidth / 1e9:.0f} GB/s; loading, tokenizing and writing come on top",
    ]
    guessed = [f"eval={windows.name} {windows.count} windows" for windows in work.windows if windows.assumed]
    lines += [f"          assumed: {', '.join(guessed)}"] * bool(guessed)
    return lines + ["          zero-shot tasks are not estimated"] * work.whole


def tabulate(jobs: list[command.Job], works: list[Any], outlook: Any) -> str:
    """A line for each run of a multirun, and the totals: what runs share is counted once."""
    from experiments.planning.memory import disk as written  # noqa: PLC0415
    from experiments.planning.memory import peak  # noqa: PLC0415
    from experiments.preflight import room  # noqa: PLC0415

    lines = [f"{'run':44} {'passes':>7} {'device':>10} {'host':>10} {'disk':>10} {'time':>10}"]
    seconds = space = 0.0
    for job, work in zip(jobs, works, strict=True):
        name = f"{job.names.model} {job.names.method} {job.names.pattern} {job.config['allocator']['sparsity']:g}"
        if work is None:
            lines.append(f"{name:44} done")
            continue
        place = job.config.get("activations", "device")
        used = sum(written(work, job.config, place).values())
        device, host = peak(work, place, job.config["device"])
        taken = sum(part.seconds for part in outlook.spent(job.config, work))
        forward, backward = work.passes
        cells = [f"{forward} + {backward}", size(device) if device else "-", size(host), size(used), span(taken)]
        lines.append(f"{name:44} {cells[0]:>7} {cells[1]:>10} {cells[2]:>10} {cells[3]:>10} {cells[4]:>10}")
        seconds, space = seconds + taken, space + used
    left = sum(work is not None for work in works)
    free = size(room(jobs[0].config["outputs"]))
    return "\n".join([*lines, f"{left} of {len(jobs)} runs to do: about {span(seconds)}, {size(space)} of {free} free"])


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
