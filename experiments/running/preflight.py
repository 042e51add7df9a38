"""All cheap checks of a run before its model is loaded: shapes from config.json, headers, sizes of files, folders.

Each check raises ValueError or OSError in one line, or logs one for what only may go wrong.
"""

import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from experiments.console.text import size
from experiments.data import documents
from experiments.files.disk import room
from experiments.models.load import empty
from experiments.running.footprint import footprint, saved, sizes
from prune.decoder import Decoder

if TYPE_CHECKING:
    from experiments.running.components import Parts

log = logging.getLogger("experiments")


def preflight(config: dict[str, Any], parts: "Parts", folder: Path) -> None:
    """Everything that can be known of a run, whose files lie in `folder`, before a weight is read."""
    folders(config)
    named = config["model"]
    model = empty(*(named[name] for name in ("path", "revision", "dtype", "trust_remote_code", "blocks")))
    decoder = Decoder(model, None, named["blocks"], routers=named["routers"])
    shapes = {name: tuple(matrix.shape) for name, matrix in decoder.weights().items()}
    parts.method.pattern.check(config["allocator"]["sparsity"], shapes)
    data(parts, decoder.limit)
    space(config, parts, decoder, folder)
    device(config["device"], decoder)
    for tracker in parts.trackers:
        tracker.reach()


def folders(config: dict[str, Any]) -> None:
    """The folders that the run writes into take a file."""
    for name in ("outputs", "scratch"):
        if config.get(name):
            writable(name, Path(config[name]))


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
        said = f"{name}={folder}: nothing can be written there ({error.strerror}); choose another folder"
        raise OSError(said) from None


def data(parts: "Parts", limit: int) -> None:
    """ValueError for files that cannot hold what is asked of them: a text has no more tokens than bytes."""
    source = parts.data
    if parts.method.calibrated:
        if stored := source.stored():
            narrow_enough(f"data={source.name}", source.length or stored[1], limit, f"; set data.length={limit}")
        else:
            length = min(source.length, limit)
            long_enough("data.length", source.file("calibration"), length + 1)
            few_enough(source.sequences, length)
    for name, evaluator in parts.evaluators.items():
        if (text := evaluator.source) is None:
            continue
        if stored := text.stored():
            narrow_enough(f"eval={name}: {text.name}", stored[1], limit)
        else:
            long_enough(f"eval.{name}.length", text.file("evaluation"), min(evaluator.length, limit))


def narrow_enough(what: str, width: int, limit: int, remedy: str = "") -> None:
    """ValueError for stored windows of more tokens than the model takes."""
    if width > limit:
        raise ValueError(f"{what}: {width} tokens a row, but this model takes {limit}{remedy}")


def few_enough(sequences: int, length: int) -> None:
    """ValueError for windows that this machine's memory cannot hold."""
    needed, there = 8 * sequences * length, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        found = f"windows of {length} tokens take {size(needed)}, this machine has {size(there)}"
        raise ValueError(f"data.sequences={sequences}: {found}; lower data.sequences or data.length")


def long_enough(setting: str, file: str | None, tokens: int) -> None:
    """ValueError for plain files of fewer bytes than the tokens they are to give."""
    if file is None:
        return
    there, plain = documents.size(file)
    if plain and there + 1 < tokens:  # one more for a token at the beginning
        raise ValueError(f"{file}: {there} bytes of text cannot be a window of {tokens} tokens; lower {setting}")


def space(config: dict[str, Any], parts: "Parts", decoder: Decoder, folder: Path) -> None:
    """ValueError if a disk has less room than the run is going to write beside what it wrote already."""
    needed: dict[str, dict[str, float]] = {}
    for setting, part, written in footprint(config, parts, sizes(decoder)):
        needed.setdefault(setting, {})[part] = written
    for setting, found in needed.items():
        there = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if setting == "outputs" else 0
        free, total = room(config[setting]) + there, sum(found.values())
        if total > free:
            named = ", ".join(f"{part} {size(written)}" for part, written in found.items())
            raise ValueError(
                f"{setting}={config[setting]}: the run writes {size(total)} ({named}), {size(free)} are free;"
                " free some or choose another folder"
            )


def device(name: str, decoder: Decoder) -> None:
    """Say so if a GPU has less free memory than a block and its float32 copies take; `python -m experiments.plan`."""
    if not name.startswith("cuda"):
        return
    free, _ = torch.cuda.mem_get_info(name)
    least = max(saved(block) + 4 * sum(p.numel() for p in block.parameters()) for block in decoder.blocks)
    if least > free:
        remedy = "expect to run out of memory (python -m experiments.plan)"
        log.warning("%s has %s free, a block alone takes %s: %s", name, size(free), size(least), remedy)
