"""What evaluations share that run a model over the windows of a text."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Int64
from torch import Tensor

from experiments.console.errors import note
from experiments.data.files import at
from experiments.data.token_cache import cached_windows
from experiments.data.windows import Source
from experiments.evals.evaluator import Evaluator
from prune.network import Network


@dataclass(frozen=True)
class Windowed(Evaluator):
    """text: a data source, whose held-out part is evaluated. path: a file instead, its documents under `field`.

    length: tokens of a window, capped by the model's limit; a token file brings its own. windows: only the first so
    many are read, and the keys then say so (ppl/wikitext2@2048@first40); None reads all. A text that has fewer gives
    what it has. outputs: the folder of the runs, whose cache keeps windows made from text; None keeps none. name: the
    option of eval that this is, for messages.
    """

    text: Source
    path: str | None
    length: int
    field: str = "text"
    windows: int | None = None
    outputs: str | None = None
    name: str = "perplexity"
    together: ClassVar[bool] = True  # ranks share the windows
    pictures: ClassVar[bool] = False

    @property
    def source(self) -> Source:
        """What is read: the file if one is given."""
        return at(self.path, self.field) if self.path else self.text

    def check(self) -> None:
        """ValueError or FileNotFoundError if there is nothing to evaluate on; reads no data."""
        if self.windows is not None and (type(self.windows) is not int or self.windows < 1):
            expected = "expected a whole number of at least 1, or null for all"
            raise ValueError(f"windows of an evaluation: {expected}, found {self.windows}")
        source = self.source
        if not self.path and not source.heldout:
            raise ValueError(
                f"eval={self.name}: {source.name} is calibration text and has no held-out part; give "
                f"eval.{self.name}.path=FILE, or another text as eval=[wikitext2]"
            )
        source.check()

    def read(self, network: Network) -> tuple[Int64[Tensor, "n t"], str]:
        """The windows, and what the metrics call them: <name>@<length>, or <name>@<length>@first<windows>.

        Says where they are shorter than was asked.
        """
        length = min(self.length, network.limit)
        cached = cached_windows(self.source, "evaluation", network.processor, length, self.outputs)
        tokens = network.readable(cached[: self.windows])
        what = f"{self.source.name}@{tokens.shape[1]}" + (f"@first{self.windows}" if self.windows else "")
        if tokens.shape[1] == network.limit < self.length and not self.source.stored():
            known = f"windows of {network.limit} tokens, the most this model takes, not {self.length}"
            note(f"eval={self.name}, {what}: {known}")
        return tokens, what
