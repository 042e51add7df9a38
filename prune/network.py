"""Any Hugging Face causal LM or image classifier as the pruner sees it: an embedding, a list of blocks, a head.

No family is named here. Blocks are the ModuleList as long as the model is deep; prunable matrices are the weights of
their linears and of fused experts (prune.matrices); linears that receive the same tensor share their statistics.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cached_property
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prune import ranks
from prune.block import Block, Propagate, Reference
from prune.call import Call, Calls
from prune.feeder import Samples, feeder_of
from prune.finding import blocks_of
from prune.home import Home, Host, slots
from prune.matrices import Matrix, matrices
from prune.own import hold
from prune.progress import passing
from prune.recorded import Form, form_of, record, replaced
from prune.states import Activations, Place, States

Answer = TypeVar("Answer")


class Network:
    """A model in eval mode; `batch` samples go through it at once, on `device`.

    `processor`: its tokenizer, or what prepares images for it (experiments.models.vision); nothing here reads it.

    `blocks` is the path of the ModuleList of blocks, found by its length when None. The walk holds one block
    and the statistics asked for on the device; everything else stays at `home`, in host memory when None.
    `activations`: where one layer of hidden states waits. `scratch`: an existing folder for those on disk and for what
    a backward pass keeps of every block (prune.reverse); None keeps it in host memory. `routers`: are pruned, too.
    `narrow`: the dtype that new weights are rounded to and saved in, where it computes in a wider one; else None.
    """

    held = False  # whether a walk was held against the model's own forward
    solved: Any = None  # a store of solved blocks that stand in for those at a home that forgets

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        blocks: str | None = None,
        batch: int = 4,
        device: str = "cpu",
        scratch: str | None = None,
        activations: Activations = "device",
        home: Home | None = None,
        routers: bool = False,
        narrow: torch.dtype | None = None,
    ) -> None:
        if batch < 1:
            raise ValueError(f"batch: expected at least 1 sequence, found {batch}")
        self.model = model.eval().requires_grad_(False)
        if any(hasattr(module, "is_transposed") for module in model.modules()):  # transformers' mark of fused experts
            model.set_experts_implementation("eager")  # one linear per expert, so that its tokens can be told apart
        self.processor, self.batch, self.device, self.scratch = processor, batch, torch.device(device), scratch
        self.activations, self.routers, self.narrow = activations, routers, narrow
        self.unheard: dict[str, str] = {}  # matrices that calibration could not hear, by full name, and why
        self.home = home or Host(next(model.parameters()).device)
        self.feeder = feeder_of(model)
        self.path = blocks or blocks_of(model, self.feeder.config)
        found = dict(model.named_modules()).get(self.path)
        if not isinstance(found, nn.ModuleList):
            raise ValueError(f"model.blocks={self.path}: {type(model).__name__} has no ModuleList of that name")
        if len(set(map(id, found))) < len(found):
            raise ValueError(
                f"{self.path}: one block of {type(model).__name__} is used several times; such models cannot be pruned"
            )
        refuse_fused(type(model).__name__, found)
        self.blocks = found
        self.shared = shared_parameters(found, self.path)

    @property
    def limit(self) -> int:
        """The longest sequence the model takes, in tokens; without position embeddings there is no limit."""
        return self.feeder.limit

    def readable(self, samples: Samples) -> Samples:
        """The same samples; ValueError, which says why, if the model cannot read them."""
        return self.feeder.readable(samples)

    def matrices(self) -> dict[str, Matrix]:
        """Where every prunable matrix lies, by full name; ValueError if there is none."""
        found, left_out = matrices(self.blocks, self.routers, self.path)[0], self.shared.keys()
        own = {n: m for n, m in found.items() if m.parameter not in left_out and n not in self.unheard}
        if own:
            return own
        kind = type(self.model).__name__ + (" that are not shared" if found else "")
        raise ValueError(f"{self.path}: no linears in the blocks of {kind}; nothing to prune")

    def weights(self) -> dict[str, Float[Tensor, "o i"]]:
        """These matrices."""
        return {name: m.of(self.model.get_parameter(m.parameter)) for name, m in self.matrices().items()}

    def skipped(self) -> dict[str, str]:
        """Parameters of two or more axes inside the blocks that are not pruned, each with the reason."""
        return matrices(self.blocks, self.routers, self.path)[1] | self.shared | self.unheard

    def walk(
        self,
        samples: Samples | None = None,
        propagate: Propagate = "pruned",
        reference: Reference = "pruned",
        batch: int | None = None,
        shared: bool = False,
        what: str = "",
        known: int = 0,
    ) -> Iterator[Block]:
        """Yield block after block, on the device; what the caller did to one shapes the inputs of the next.

        Without samples the blocks have no calls, and nothing is run. At the end the last block's calls hold its
        outputs.
        `reference` dense carries the dense model's own states beside them, on the host. `batch`: sequences per call.
        `shared`: every rank takes its part of the sequences, and all of them walk together. `what`, `known`: for
        progress.passing. The first walk over samples is held against the model's own forward (prune.own): ValueError
        where they differ.
        """
        states, calls, size, whole = States(self.place), [], batch or self.batch, 0
        if samples is not None:
            if not self.held:
                hold(self, samples)
            mine = ranks.share(samples, size) if shared else samples
            calls, whole = record(self, mine, size, states), 0 if mine is samples else len(samples)
        twin = states.copied(self.place.away) if reference == "dense" else None
        for index in passing(range(len(self.blocks)), what, len(self.blocks), known=known):
            with self.at(index, Calls([made[index] for made in calls], states, whole), propagate, twin) as block:
                yield block
                block.advance()

    @property
    def place(self) -> Place:
        """Where hidden states wait."""
        return Place(self.device, self.activations, self.scratch)

    @contextmanager
    def at(
        self, index: int, calls: Calls | None = None, propagate: Propagate = "pruned", twin: States | None = None
    ) -> Iterator[Block]:
        """This block with these calls, on the device for as long as it is needed; whoever leaves early keeps it."""
        module, path = self.blocks[index], f"{self.path}.{index}"
        self.home.bring(slots(module, path), self.device)
        calls = Calls([], States(self.place)) if calls is None else calls
        block = Block(path, module, calls, propagate, twin, self.routers, self.narrow)
        shared = [name for name, m in block.matrices.items() if f"{path}.{m.parameter}" in self.shared]
        block.leave_out([*map(block.full_name, shared), *self.unheard])
        if self.solved is not None:
            for name, p in self.solved.load(path).inside.items():
                block.weights[name].copy_(p.weight)
        yield block
        block.weights.clear()  # views that would keep the block's memory on the device
        self.home.leave(slots(module, path))

    def losses(self, samples: Samples) -> Float[Tensor, "n"]:
        """Mean cross-entropy, in nats, over the predictions of each sample; see `read`."""

        def loss(number: int, logits: Tensor) -> Tensor:
            labels = self.feeder.labels(samples[number : number + 1]).to(logits.device)
            return nn.functional.cross_entropy(logits, labels).cpu()

        return torch.stack(self.read(samples, loss))

    @torch.no_grad()
    def read(self, samples: Samples, find: Callable[[int, Float[Tensor, "s v"]], Answer]) -> list[Answer]:
        """What `find` makes of every sample: of its number, and its logits for the s = t - 1 tokens behind the first of
        a sequence, or for the s = 1 class of an image.

        They are on the device, in float32. One block is there at a time; ranks share the work, and each has all of it.
        """
        states, numbers = States(self.place), ranks.share(torch.arange(len(samples)), self.batch)
        for block in self.walk(samples, shared=True):
            states = block.calls.states  # changed in place: two layers of states are never alive
            block.advance()
        answers: list[Answer] = []
        with self.outside():
            pairs = zip(numbers.split(self.batch), states, strict=True)
            for batch, state in passing(pairs, "head", len(states), "batch"):
                for number, hidden in zip(batch.tolist(), state, strict=True):
                    logits = self.head(samples[number : number + 1], hidden[None])
                    answers.append(find(number, self.feeder.predictions(logits).float()))
        alone = len(numbers) == len(samples)
        return answers if alone else [each for part in ranks.everyone(lambda: answers) for each in part]

    @contextmanager
    def resident(self) -> Iterator[None]:
        """The whole model on the device, for evaluations that call it as it is."""
        with ExitStack() as stack:
            stack.enter_context(self.outside())
            for index in range(len(self.blocks)):
                stack.enter_context(self.at(index))
            yield

    def head(self, samples: Samples, hidden: Float[Tensor, "b s *n h"]) -> Float[Tensor, "b *t v"]:
        """The model's own way from the last block's output to logits: its blocks are replaced by this hidden state."""
        with self.replaced(lambda *_: hidden):
            return self.model(**self.feeder.keywords(samples, self.device)).logits

    @cached_property
    def form(self) -> Form:
        """How blocks return their hidden state, without one."""
        return form_of(self)

    def replaced(self, forward: Callable[[int, Call], Tensor]) -> AbstractContextManager[None]:
        """Every block computes this instead: (which block, how it is called) -> the hidden state that leaves it."""
        return replaced(self.blocks, self.form, forward)

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Embedding, norms and head on the device, for as long as they are needed."""
        there = list(slots(self.model, but=self.blocks))
        self.home.bring(there, self.device)
        try:
            yield
        finally:
            self.home.leave(there)


def refuse_fused(kind: str, blocks: nn.Module) -> None:
    """ValueError for torch's own attention, whose projections of q, k and v are a parameter that no linear applies."""
    if name := next((n for n, m in blocks.named_modules() if isinstance(m, nn.MultiheadAttention)), None):
        raise ValueError(
            f"{kind}: {name} of its blocks is torch's MultiheadAttention, whose q, k and v are no linears and would not"
            " be pruned; give a model of transformers that has linears there (ViT, DeiT, DINOv2, CLIP, SigLIP)"
        )


def shared_parameters(blocks: nn.ModuleList, path: str) -> dict[str, str]:
    """Those of two or more axes that several blocks use, by full name: what prunes one for a block does it for all."""
    users: dict[int, list[int]] = {}
    for k, block in enumerate(blocks):
        for parameter in block.parameters():
            users.setdefault(id(parameter), []).append(k)
    return {
        f"{path}.{k}.{name}": f"{list(parameter.shape)} that blocks {', '.join(map(str, users[id(parameter)]))} share"
        for k, block in enumerate(blocks)
        for name, parameter in block.named_parameters(remove_duplicate=False)
        if parameter.dim() > 1 and len(users[id(parameter)]) > 1
    }
