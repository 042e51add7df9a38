"""All pictures that a report draws."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.figures import canvas, curves, depth, histograms, pareto, seeds, stages
from experiments.figures.values import metrics
from experiments.summary.seeds import Group
from experiments.summary.shared import of_images


@dataclass(frozen=True)
class Figure:
    """A picture: the name of its files, what stands above and below it, what draws it, and what that needs.

    images: whether it is of metrics over images, or over text; None where it is of both.
    """

    name: str
    title: str
    caption: str
    make: Callable[[Sequence[Group]], canvas.Figure | None]
    needs: str
    images: bool | None = None

    def suits(self, groups: Sequence[Group]) -> bool:
        """Whether it is of what any run measured, or nothing was."""
        over = {of_images(groups, metric) for metric in metrics(groups)} or {False}
        return self.images is None or self.images in over

    def draw(self, groups: Sequence[Group], place: Path) -> bool:
        """Writes place.png, place.pdf and place.svg; False, and nothing, where there is nothing to show."""
        drawn = self.make(groups)
        if drawn is not None:
            canvas.save(drawn, place)
        return drawn is not None


SEEDS = "Runs that differ in their seed alone are taken together."
READING = (
    f"{SEEDS} A bar is the 95 % interval of the difference to the dense model, over pairs of the same evaluated"
    " {} (of a divergence that of its mean); over the seeds too, if each setting has several. Whether two"
    " methods differ is told by the summary,"
    " over pairs of both, and not by whether their bars overlap."
    " Curves of the patterns that a method was run under at three sparsities or more; of the others a line for each"
    " method, the best one first: what lies far beyond the others stands at the edge with its value."
)
FIGURES = (
    Figure(
        "sparsity-perplexity",
        "Perplexity, and divergence from the dense model, against sparsity",
        READING.format("windows"),
        curves.draw,
        "two settings of a model with one perplexity",
        images=False,
    ),
    Figure(
        "sparsity-accuracy",
        "Accuracy, cross-entropy and divergence from the dense model, against sparsity",
        READING.format("images"),
        curves.draw_images,
        "two settings of an image classifier with one accuracy",
        images=True,
    ),
    Figure(
        "quality-time",
        "Quality against pruning time",
        f"{SEEDS} The line joins the methods that no other one beats in time without losing quality. Times are of the"
        " pruning stage alone, means over the seeds; they compare only on one machine at rest.",
        pareto.draw,
        "two methods of one model and budget with a quality and a time",
    ),
    Figure(
        "quality-size",
        "Quality against the bytes that are left of the model",
        f"{SEEDS} All budgets of a model; a method that has several is named by them. Bytes are counted as under"
        " bits per weight: codes, grids and masks, and what is not pruned as it is. The line joins what no other one"
        " beats in bytes without losing quality.",
        pareto.draw_sizes,
        "a model with a quantised run and another one, both with a quality",
    ),
    Figure(
        "allocation",
        "Allocated sparsity by block and matrix",
        "Methods that spread the sparsity unevenly. Written is the sparsity of a matrix, its colour is the distance"
        " from what was asked of the model; numbered matrices (experts) are one row, weighted by their size.",
        depth.draw_allocations,
        "a method that spreads the sparsity unevenly",
    ),
    Figure(
        "block-error",
        "Reconstruction error by depth",
        "Squared distance of a block's output from that of the dense block on the same input, relative to the squared"
        f" norm of the dense output. {SEEDS}",
        depth.draw,
        "a method that runs the blocks",
    ),
    Figure(
        "histograms",
        "Which weights were removed",
        "Over all pruned matrices, each weight in units of the root mean square of its matrix before pruning. The"
        " dashed line is the cut by this number alone that would remove as many weights; the first bin also has all"
        " that is smaller, zeros too, the last one all that is larger.",
        histograms.draw,
        "a run whose blocks kept their counts",
    ),
    Figure(
        "seeds",
        "Spread over calibration seeds",
        "Runs that differ in their seed alone: each mark is a seed, the bar the 95 % interval of their mean (Student's"
        " t), at the right the mean and the half width of that interval. A method that no seed changes is not shown.",
        seeds.draw,
        "one setting that its seeds change",
    ),
    Figure(
        "stages",
        "Time and memory of each stage",
        "Means over all runs of a method, from nothing: what was found in the cache counts as it was made. All bars of"
        " a model are of the same stages. What one run does for all others, such as the evaluation of the dense model,"
        " is in none. Peaks of memory do not add up: the grey bar reaches to the highest, each stage has its mark; of"
        " the host it is what the run added to what was resident when it began, where all runs know that.",
        stages.draw,
        "a run that tells its seconds",
    ),
)
