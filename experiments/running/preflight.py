"""All cheap checks of a run before its model is loaded: shapes from config.json, headers, sizes of files, folders.

Each check raises ValueError or OSError in one line.
"""

import tempfile
from pathlib import Path
from typing import Any

from experiments.console.text import size
from experiments.data import files
from experiments.files.disk import room
from experiments.models import packing
from experiments.models.load import unread
from experiments.models.location import located
from experiments.models.stored import filled
from experiments.running.components import Parts
from experiments.running.footprint import footprint, sizes
from prune.network import Network


def preflight(config: dict[str, Any], parts: Parts, folder: Path) -> None:
    """Everything that can be known of a run, whose files lie in `folder`, before a weight is read."""
    for name in ("outputs", "scratch"):
        if config[name]:
            writable(name, Path(config[name]))
    network = unread(config["model"])
    shapes = {name: tuple(matrix.shape) for name, matrix in network.weights().items()}
    parts.method.fits(config["allocator"]["sparsity"], shapes)
    if config["save_model"] == "packed":
        folder_read = located(config["model"]["path"])
        packing.suits(network, folder_read if folder_read and filled(folder_read) else None)
    refuse_other(parts, network)
    data(parts, network.limit)
    if network.processor is not None:  # a hub model's is not there yet
        for evaluator in parts.evaluators.values():
            evaluator.suits(network)
    space(config, parts, network, folder)


def refuse_other(parts: Parts, network: Network) -> None:
    """ValueError for text that an image classifier is to read, and for images that a causal LM is to."""
    kind, causal = type(network.model).__name__, network.feeder.causal
    for name, evaluator in parts.evaluators.items():
        if evaluator.pictures == causal:
            asked, remedy = ("images", "perplexity") if causal else ("text", "top1")
            raise ValueError(f"eval={name} asks of {asked}, which {kind} does not read; take eval=[{remedy},audit]")
    if parts.method.calibrated and parts.data.pictures == causal:
        reads = "text: set data=stdlib" if causal else "images: set data=images data.path=FOLDER"
        raise ValueError(f"data={parts.data.name}: {kind} reads {reads}, or give another model")


def writable(name: str, folder: Path) -> None:
    """OSError if no file can be written there; what does not exist yet is tried where it would be made."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(b"0")
            probe.flush()
    except OSError as error:
        reason = f"nothing can be written there ({error.strerror}); choose another folder"
        raise OSError(f"{name}={folder}: {reason}") from None


def data(parts: Parts, limit: int) -> None:
    """ValueError for files that cannot hold the windows that are read of them."""
    source = parts.data
    if parts.method.calibrated:
        if stored := source.stored():
            refuse_wide(f"data={source.name}", source.length or stored[1], limit, f"; set data.length={limit}")
        else:  # windows are drawn from a text that is longer than one
            source.fits(min(source.length, limit))
            refuse_short("data.length", source.file("calibration"), min(source.length, limit) + 1)
    for name, evaluator in parts.evaluators.items():
        if text := evaluator.source:
            if stored := text.stored():
                refuse_wide(f"eval={name}: {text.name}", stored[1], limit)
            else:
                refuse_short(f"eval.{name}.length", text.file("evaluation"), min(evaluator.length, limit))


def refuse_wide(what: str, width: int, limit: int, remedy: str = "") -> None:
    """ValueError for stored windows of more tokens than the model takes."""
    if width > limit:
        raise ValueError(f"{what}: {width} tokens a row, but this model takes {limit}{remedy}")


def refuse_short(setting: str, file: str | None, tokens: int) -> None:
    """ValueError for plain files of fewer bytes than the tokens they are to give: a token has at least one."""
    there, plain = files.size(file) if file else (0, False)
    if plain and there + 1 < tokens:  # one more for a token at the beginning
        raise ValueError(f"{file}: {there} bytes of text cannot be a window of {tokens} tokens; lower {setting}")


def space(config: dict[str, Any], parts: Parts, network: Network, folder: Path) -> None:
    """ValueError if a disk has less room than the run is going to write beside what it wrote already."""
    needed: dict[str, dict[str, float]] = {}
    for setting, part, written in footprint(config, parts, sizes(network)):
        needed.setdefault(setting, {})[part] = written
    for setting, parts_of in needed.items():
        there = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if setting == "outputs" else 0
        free, total = room(config[setting]) + there, sum(parts_of.values())
        if total > free:
            named = ", ".join(f"{part} {size(written)}" for part, written in parts_of.items())
            raise ValueError(
                f"{setting}={config[setting]}: the run writes {size(total)} ({named}), {size(free)} are free;"
                " free some or choose another folder"
            )
