"""What is told of runs ahead of them: all of one, a line for each of several."""

from collections import Counter

import torch

from experiments.composing.job import Job
from experiments.composing.overrides import name_of
from experiments.console.errors import apart
from experiments.console.grid import grid
from experiments.console.text import anywhere, count, duration, plural, size
from experiments.files.disk import room
from experiments.models.load import SLOW
from experiments.planning.duration import seconds
from experiments.planning.memory import PLACES, peak, stages, total
from experiments.planning.outlook import Work, operations, total_operations
from experiments.runs import identity

SAID = ("model", "experiment", "pattern", "sparsity")  # in a run's name
UNKNOWN = "tasks of lm-eval are not estimated: operations and time are without them"
HEADER = ("run", "passes", "device", "host", "disk", "operations", "time")


def describe(run: Work | None) -> str:
    """All that is known of one run; None: it is done."""
    if run is None:
        return "this run is done; the same command of experiments.run prints its table"
    return "\n".join([*model(run), *layers(run), *passes(run), *memory(run), *disk(run), *compute(run), *time(run)])


def model(run: Work) -> list[str]:
    """The model and what of it is pruned."""
    body, weights = run.body, run.body.sizes.weights
    numbers = body.size / body.sizes.itemsize
    dtype, computed = identity.dtype(run.config["model"]), []
    if compute := run.config["model"].get("compute"):
        computed = [f"          computed in {compute}; its weights stay what {dtype} can hold, and are saved so"]
    elif dtype == "float16" and run.config["device"] == "cpu":
        computed = [f"          computed in float16, {SLOW}"]
    return [
        f"model     {run.config['model']['path']}: {len(body.blocks)} blocks, {size(body.size)}, about"
        f" {count(numbers)} numbers; embeddings, norms and head {size(body.outside)}",
        *computed,
        f"prune     {len(body.sizes.matrices)} matrices, {count(weights)} weights,"
        f" {100 * weights / numbers:.1f} % of the model; {run.config['allocator']['sparsity']:g} of them go",
    ]


def layers(run: Work) -> list[str]:
    """The matrices, equal ones of all blocks in a line, and what is skipped, with the reason."""
    alike = Counter(
        f"{anywhere(layer.name)} {list(layer.shape)}" for block in run.body.blocks for layer in block.layers
    )
    skipped = Counter(f"{anywhere(name)}: {reason}" for name, reason in run.body.skipped.items())
    lines = [f"          {line} x {times}" for line, times in alike.items()]
    return lines + [f"skipped   {line} x {times}" for line, times in skipped.items()]


def passes(run: Work) -> list[str]:
    """How often the calibration data go through the model."""
    if not run.sequences and not run.surveys:
        return ["passes    none: no calibration data are needed"]
    forward, backward = run.passes
    read, over = ("images", "images of") if run.parts.data.pictures else ("sequences", "x")
    lines = [f"passes    {forward:g} forward + {backward:g} backward over {run.sequences} {over} {run.length} tokens"]
    if run.generated:
        wrote = f"{run.sequences} x {run.length} tokens, one after the other, all of it on {run.config['device']}"
        lines.append(f"          once, kept in the cache: the model writes {wrote}")
    for name, out, back in run.surveys:
        lines.append(f"          once, kept in the cache: {name}, {out} {read} forward, {back} backward")
    return lines


def memory(run: Work) -> list[str]:
    """Peak memory for each place of the activations, and what makes it up for the place that is asked for."""
    chosen, device, lines = run.config["activations"], run.config["device"], []
    for place in PLACES:
        one, host = peak(run, place, device)
        line = f"{size(host)} of host memory" if device == "cpu" else f"{size(one)} of {device}, {size(host)} of host"
        lines.append(f"memory    activations={place}: {line}{', as asked for' if place == chosen else ''}")
    for stage in stages(run, chosen):
        parts = sorted(((value, name) for name, value in (stage.device | stage.host).items() if value), reverse=True)
        lines.append(f"          {stage.name}: {', '.join(f'{name} {size(value)}' for value, name in parts)}")
    return lines


def disk(run: Work) -> list[str]:
    """What is written, and what room there is."""
    lines = []
    for setting in dict.fromkeys(setting for setting, *_ in run.written):
        parts = {what: bytes for place, what, bytes in run.written if place == setting}
        listed = ", ".join(f"{what} {size(bytes)}" for what, bytes in parts.items())
        free = f"{size(room(run.config[setting]))} free in {setting}"
        lines.append(f"{'' if lines else 'disk':9} {size(total(parts))} of {free}: {listed}")
    return lines


def compute(run: Work) -> list[str]:
    """Floating-point operations of each part, and what of them is guessed."""
    parts = ", ".join(f"{name} {total(rates):.2e}" for name, rates in operations(run).items())
    lines = [f"compute   {total_operations(run):.2e} floating-point operations: {parts}"]
    if guessed := [f"eval={windows.name} {windows.count} {windows.what}" for windows in run.windows if windows.assumed]:
        lines.append(f"          assumed: {', '.join(guessed)}")
    return lines


def time(run: Work) -> list[str]:
    """Estimated time of the whole run and of each part, and what neither it nor the operations know."""
    parts = seconds(run)
    listed = ", ".join(f"{name} {duration(part)}" for name, part in parts.items())
    lines = [f"time      about {duration(total(parts))} on {_machine(run)}: {listed}"]
    return [*lines, f"          {UNKNOWN}"] if run.untimed else lines


def _machine(run: Work) -> str:
    """What the time is an estimate for."""
    device, threads = run.config["device"], plural(torch.get_num_threads(), "thread")
    return f"this machine's {device}{f' with {threads}' if device == 'cpu' else ''}, nothing else running on it"


def tabulate(jobs: list[Job], runs: list[Work | None], names: list[str] | None = None) -> str:
    """A line for each run of a multirun, by its own name, and the totals: what runs share is counted once."""
    each = zip(names or named(jobs), runs, strict=True)
    took = {id(run): total(seconds(run)) for run in runs if run is not None}
    cells = lambda run: ["done", *[""] * 5] if run is None else [*_cells(run), duration(took[id(run)])]
    lines = [[name, *cells(run)] for name, run in each]
    left = [run for run in runs if run is not None]
    free = f"{size(sum(map(_disk, left)))} of {size(room(jobs[0].config['outputs']))} free"
    totals = f"{len(left)} of {len(jobs)} runs to do: {sum(map(total_operations, left)):.2e} operations, {free}"
    if left:
        totals += f"; about {duration(total(took))}, one after the other, on {_machine(left[0])}"
    if any(run.untimed for run in left):
        totals += f"; {UNKNOWN}"
    return f"{grid(HEADER, lines, 'lr', 'simple')}\n{totals}"


def named(jobs: list[Job]) -> list[str]:
    """Model, method, pattern and sparsity of each run, and what else was typed for it, where that is not all."""
    names = [f"{j.names.model} {j.names.method} {j.names.pattern} {j.config['allocator']['sparsity']:g}" for j in jobs]
    if len(set(names)) == len(names):
        return names
    own = [[word for word in words if name_of(word) not in SAID] for words in apart(job.words for job in jobs)]
    return [" ".join([name, *words]) for name, words in zip(names, own, strict=True)]


def _cells(run: Work) -> list[str]:
    device, host = peak(run, run.config["activations"], run.config["device"])
    forward, backward = run.passes
    sizes = [size(device) if device else "-", size(host), size(_disk(run))]
    return [f"{forward:g} + {backward:g}", *sizes, f"{total_operations(run):.2e}"]


def _disk(run: Work) -> float:
    return sum(bytes for *_, bytes in run.written)
