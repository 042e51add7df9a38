"""What is told of runs ahead of them: all of one, a line for each of several."""

from collections import Counter

from experiments.composing.job import Job
from experiments.console.text import count, size
from experiments.files.disk import room
from experiments.planning.anatomy import anywhere
from experiments.planning.estimate import Work, operations, total_operations
from experiments.planning.memory import PLACES, peak, stages


def describe(job: Job, run: Work | None) -> str:
    """All that is known of one run."""
    if run is None:
        return "this run is done; the same command of experiments.run prints its table"
    return "\n".join([*model(job, run), *layers(run), *passes(run), *memory(job, run), *disk(job, run), *compute(run)])


def model(job: Job, run: Work) -> list[str]:
    """The model and what of it is pruned."""
    body, weights = run.body, sum(block.weights for block in run.body.blocks)
    numbers = body.size / body.itemsize
    return [
        f"model     {job.config['model']['path']}: {len(body.blocks)} blocks, {size(body.size)}, about"
        f" {count(numbers)} numbers; embeddings, norms and head {size(body.outside)}",
        f"prune     {sum(times for *_, times in body.alike())} matrices, {count(weights)} weights,"
        f" {100 * weights / numbers:.1f} % of the model; {job.config['allocator']['sparsity']:g} of them go",
    ]


def layers(run: Work) -> list[str]:
    """The matrices, equal ones of all blocks in a line, and what is skipped, with the reason."""
    lines = [f"          {name} {shape} x {times}" for name, shape, times in run.body.alike()]
    skipped = Counter(f"{anywhere(name)}: {reason}" for name, reason in run.body.skipped.items())
    return lines + [f"skipped   {key} x {times}" for key, times in skipped.items()]


def passes(run: Work) -> list[str]:
    """How often the calibration data go through the model."""
    forward, backward = run.passes
    lines = [f"passes    {forward} forward + {backward} backward over {run.sequences} x {run.length} tokens"]
    for name, out, back in run.surveys:
        lines.append(f"          once, kept in the cache: {name}, {out} sequences forward, {back} backward")
    return lines if run.sequences or run.surveys else ["passes    none: no calibration data are needed"]


def memory(job: Job, run: Work) -> list[str]:
    """Peak memory for each place of the activations, and what makes it up for the place that is asked for."""
    chosen, device, lines = job.config["activations"], job.config["device"], []
    for place in PLACES:
        one, other = peak(run, place, device)
        said = f"{size(other)} of host memory" if device == "cpu" else f"{size(one)} of {device}, {size(other)} of host"
        asked = ", as asked for" if place == chosen else ""
        lines.append(f"memory    activations={place}: {said}{asked}")
    for stage in stages(run, chosen):
        ordered = sorted(((value, name) for name, value in (stage.device | stage.host).items() if value), reverse=True)
        lines.append(f"          {stage.name}: {', '.join(f'{name} {size(value)}' for value, name in ordered)}")
    return lines


def disk(job: Job, run: Work) -> list[str]:
    """What is written, and what room there is."""
    lines = []
    for setting in dict.fromkeys(setting for setting, *_ in run.written):
        found = {what: bytes for place, what, bytes in run.written if place == setting}
        said = ", ".join(f"{what} {size(bytes)}" for what, bytes in found.items())
        free = f"{size(room(job.config[setting]))} free in {setting}"
        lines.append(f"{'' if lines else 'disk':9} {size(sum(found.values()))} of {free}: {said}")
    return lines


def compute(run: Work) -> list[str]:
    """Floating-point operations of each part, and what of them is guessed or left out."""
    said = ", ".join(f"{name} {sum(rates.values()):.2e}" for name, rates in operations(run).items())
    lines = [f"compute   {total_operations(run):.2e} floating-point operations: {said}"]
    if guessed := [f"eval={windows.name} {windows.count} windows" for windows in run.windows if windows.assumed]:
        lines.append(f"          assumed: {', '.join(guessed)}")
    return [*lines, "          zero-shot tasks are not estimated"] if run.whole else lines


def tabulate(jobs: list[Job], runs: list[Work | None]) -> str:
    """A line for each run of a multirun, and the totals: what runs share is counted once."""
    lines = [f"{'run':44} {'passes':>7} {'device':>10} {'host':>10} {'disk':>10} {'operations':>10}"]
    for job, run in zip(jobs, runs, strict=True):
        name = f"{job.names.model} {job.names.method} {job.names.pattern} {job.config['allocator']['sparsity']:g}"
        lines.append(f"{name:44} {'done' if run is None else _cells(job, run)}")
    left = [run for run in runs if run is not None]
    space = sum(_disk(run) for run in left)
    free = f"{size(space)} of {size(room(jobs[0].config['outputs']))} free"
    total = f"{sum(map(total_operations, left)):.2e} operations, {free}"
    return "\n".join([*lines, f"{len(left)} of {len(jobs)} runs to do: {total}"])


def _cells(job: Job, run: Work) -> str:
    device, host = peak(run, job.config["activations"], job.config["device"])
    cells = [size(device) if device else "-", size(host), size(_disk(run)), f"{total_operations(run):.2e}"]
    return " ".join([f"{'{} + {}'.format(*run.passes):>7}", *(f"{cell:>10}" for cell in cells)])


def _disk(run: Work) -> float:
    return sum(bytes for *_, bytes in run.written)
