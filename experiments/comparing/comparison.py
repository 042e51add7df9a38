"""Two runs and all that was found about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from experiments.comparing import sections
from experiments.comparing.layers import Layer, layers
from experiments.comparing.metrics import Metric, metrics
from experiments.console.text import inline
from experiments.runs.record import Record
from experiments.summary.grouping import distinguished


@dataclass(frozen=True)
class Comparison:
    """Two runs, A and B. errors: of each run, block -> relative error of its output; remarks: on the layers."""

    runs: tuple[Record, Record]
    metrics: list[Metric]
    layers: list[Layer]
    remarks: list[str]
    errors: tuple[dict[str, float], dict[str, float]]

    @property
    def names(self) -> tuple[str, str]:
        """What a picture calls them: method, pattern and sparsity, with the model or setting that sets them apart."""
        told = [_told(run.manifest) for run in self.runs]
        if len({run.manifest["model"] for run in self.runs}) > 1:
            told = [f"{run.manifest['model']} {name}" for run, name in zip(self.runs, told, strict=True)]
        elif told[0] == told[1]:
            told = [f"{told[0]} {distinguished(self.runs)[run.folder]}".rstrip() for run in self.runs]
        return inline(f"A: {told[0]}"), inline(f"B: {told[1]}")


def _told(manifest: dict[str, Any]) -> str:
    pruned = manifest["method"] != "dense"
    return " ".join([manifest["method"], *[manifest["pattern"], f"{manifest['sparsity']:g}"] * pruned])


def compare(first: Record, second: Record) -> Comparison:
    """Reads losses and masks; ValueError for a run whose manifest or results cannot be read."""
    for record in (first, second):
        if record.status == "unreadable":
            raise ValueError(f"{record.folder} cannot be read: {record.error}")
    found, remarks = layers(first, second)
    sides = [record.results.get("blocks", []) for record in (first, second)]
    errors = [{block["block"]: block["error"] for block in side if block["error"] is not None} for side in sides]
    return Comparison((first, second), metrics(first, second), found, remarks, (errors[0], errors[1]))


def render(found: Comparison, markdown: bool = False) -> str:
    """All sections as text; Markdown has a row for every matrix."""
    streams = {run.manifest["config"].get("propagate", "pruned") for run in found.runs}
    parts = [
        *sections.differing(*found.runs),
        sections.measured(found.metrics),
        *sections.alike(found.layers, found.remarks),
        sections.deep(found.errors, found.layers, streams),
        sections.cost(*found.runs),
    ]
    parts += [sections.listed("Every matrix", found.layers)] * (markdown and bool(found.layers))
    return "\n\n".join([_head(found.runs, markdown), *(part.render(markdown) for part in parts)])


def _head(runs: Sequence[Record], markdown: bool) -> str:
    """Where the runs are, and how they ended where they are not done."""
    ends = ["" if run.status == "done" else f" {run.status}: {run.error}".removesuffix(": ") for run in runs]
    lines = [f"{name}: {run.folder}{end}" for name, run, end in zip("AB", runs, ends, strict=True)]
    return "\n".join(["# Two runs side by side\n", *(f"- {line}" for line in lines)] if markdown else lines)
