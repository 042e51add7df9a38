"""What an evaluation is: a question to a model, dense or pruned, that is answered in numbers."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from experiments.console.families import Family
from experiments.data.windows import Source
from prune.network import Network


class Evaluator:
    """One entry of `eval=[...]`: measured on the dense model once for all runs, and on every pruned one.

    An evaluator is a frozen dataclass in experiments/evals; its fields are the settings of conf/eval/NAME.yaml, where
    they stand under NAME. Building it reads nothing. Its answers are stored and looked up by model, settings, code
    and the content of files (settings `path`, `evaluation_path`, `files`); if they depend on the version of a package,
    `identity.VERSIONS` says which. One with a setting `text` (a data source) is given `outputs` too, the folder whose
    cache keeps windows; where it has a `path` as well, that takes the place of `text`. One with a field `name` that its
    YAML leaves out is given what it is called in `eval=`, for messages. Those in `tasks.BY_TASK` are asked for one of
    their `tasks` at a time, and each answer is kept by itself.
    """

    dense: ClassVar[bool] = True  # whether the dense model is measured, too, to compare with
    whole: ClassVar[bool] = False  # whether the whole model is on the device then; else one block is (Network.walk)
    writes: ClassVar[bool] = False  # whether it keeps keys and values there, of `batch` texts of `length` tokens
    together: ClassVar[bool] = False  # whether ranks share the work; else the first does it alone and tells the others
    referred: ClassVar[bool] = False  # whether a model is held against the dense one, whose `reference` the cache keeps
    pictures: ClassVar[bool | None] = None  # whether it asks of images, or of text; None asks of neither
    copies: ClassVar[int] = 1  # of a window's logits that it makes at once, by which memory is planned
    families: ClassVar[Mapping[str, Family]] = {}  # what numbers of its own are, beside ppl, acc and acc_norm
    length: int  # tokens of a window of `source`, at most; needed only where there is one
    windows: int | None = None  # only the first so many of `source` are read; None is all

    @property
    def source(self) -> Source | None:
        """The windows that the model runs over, by which time, memory and disk are planned; None for anything else."""
        return None

    def check(self) -> None:
        """ValueError or OSError for settings that cannot work. Called whenever a run is composed: reads no weights."""

    def suits(self, network: Network) -> None:
        """ValueError for a model that cannot be asked this. Called before anything runs, with a model in a folder whose
        weights are not read yet.
        """

    def reference(self, network: Network) -> dict[str, Tensor]:
        """What of the dense model is kept, once for all runs, and given to `__call__` behind a model (`referred`)."""
        raise NotImplementedError

    def reference_size(self, windows: int, length: int, vocabulary: int) -> float:
        """Bytes of that, by which disk and memory are planned, for so many windows of so many tokens."""
        return 0.0

    def __call__(self, network: Network) -> dict[str, Any]:
        """{"metrics", "protocol", "details"}, all JSON; ValueError, one line, for a model that does not pass.

        metrics: {"family/what": number}. Tables compare families ppl (lower is better), acc and acc_norm (shares of 1,
            higher is) and those in `families`; others are stored with the run. "ppl_stderr/what" is the standard error
            of "ppl/what".
        protocol: {fact: value}, all that must be equal for two numbers to be compared: windows, versions, hashes.
        details: whatever else is worth keeping. A difference to another model is paired by {"losses": [nats of each
            window]} for ppl, or {"scores": {metric: [score of each example or window]}}, whose mean is the metric.
        """
        raise NotImplementedError
