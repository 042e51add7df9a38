"""One block with its calibration inputs: find its matrices, listen to what enters them, write them back."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prune import ranks
from prune.call import Call, Calls
from prune.glance import finite, nonzeros
from prune.listen import Heard, Listener, Origin, Same, Sums
from prune.matrices import matrices, numberless
from prune.states import States
from prune.statistic import Gathered, InputStatistic, Values

Granularity = Literal["block", "submodule", "sequential"]
Propagate = Literal["pruned", "dense"]
Reference = Literal["pruned", "dense"]


class Block:
    """A block and the calls that the calibration data make to it; `calls` is empty when there are no data."""

    def __init__(
        self,
        path: str,
        module: nn.Module,
        calls: Calls,
        propagate: Propagate = "pruned",
        twin: States | None = None,
        routers: bool = False,
        narrow: torch.dtype | None = None,
    ) -> None:
        """`twin`: what enters this block in the dense model, per call; becomes what leaves it. `routers`, `narrow`: the
        Network's.
        """
        self.narrow = narrow
        self.path, self.module, self.calls, self.propagate, self.twin = path, module, calls, propagate, twin
        self.matrices, _ = matrices(module, routers)
        self.weights = {name: m.of(module.get_parameter(m.parameter)) for name, m in self.matrices.items()}
        self.sequences = calls.sequences
        self._dense = States(calls.states.place.away)  # outputs before the first write
        self._written = self._advanced = self._seen = False
        self._reached: dict[str, Gathered] | None = None  # after a pass without statistics
        self._heard, self._ran, self._apart = set[str](), set[str](), set[str]()  # matrices; modules; matrices in parts

    def full_name(self, name: str) -> str:
        return f"{self.path}.{name}"

    def stored(self, name: str) -> torch.dtype:
        """The dtype in which this weight will be stored, whatever the model computes in."""
        return self.narrow or self.weights[name].dtype

    def units(self, granularity: Granularity) -> list[list[str]]:
        """Which linears are solved together: the whole block, each submodule, or each set that shares an input."""
        if granularity == "block":
            return [list(self.weights)]
        if granularity == "sequential":
            return self.siblings
        order = [name for group in self.siblings for name in group]
        owner = {name: name.partition(".")[0] if "." in name else "" for name in order}
        return [[name for name in order if owner[name] == o] for o in dict.fromkeys(owner.values())]

    @cached_property
    def siblings(self) -> list[list[str]]:
        """Linears in execution order, those that are fed the same tensor together (q k v | o | gate up | down)."""
        same, groups = Same(), dict[str, list[str]]()
        heard: set[str] = set()

        def note(name: str, _: Tensor, origin: Origin) -> None:
            if name not in heard:
                groups.setdefault(same.leader(name, origin), []).append(name)
                heard.add(name)

        with self._listening(note):
            for call in self.calls[:1]:
                self._run(call)
        found = [*groups.values(), *([name] for name in self.weights if name not in heard)]
        return ranks.told(lambda: found) if self.calls.whole else found  # an expert may be heard on one rank only

    @torch.no_grad()
    def collect(self, statistics: Iterable[InputStatistic], names: Iterable[str]) -> dict[str, Gathered]:
        """These linears, others maybe, after one pass over the calibration data; without statistics one is enough.

        Statistics of pairs take a second one, of the dense model's stream, through the block as long as it is dense.
        The pass tells which linears tokens reach, for all of them and for good. ValueError naming the linear that was
        fed NaN or infinite values.
        """
        statistics = list(statistics)
        if not statistics and self._reached is not None:
            return self._reached
        sums = Sums(statistics, set(names if statistics else self.weights))
        for call in self.calls:
            with self._listening(sums.of_one_forward()):
                self._keep_dense(self._run(call))
            if sums.paired and self.twin is not None:
                with self._listening(sums.of_its_twin()):
                    self._run(call.at(self.twin[call.number], self.twin.beside(call.number)))
        if self.calls.whole:
            sums.over_ranks(next(iter(self.weights.values())).device)
        values = {name: self._means(name, total) for name, total in sums.values.items()}
        found: dict[str, Gathered] = {}
        for name in sums.wanted:
            leader = sums.leaders.get(name, name)
            tokens = int(sums.tokens.get(leader, 0)) if self.calls else None
            found[name] = Gathered(values.get(leader, {}), tokens)
        if not statistics:
            self._reached = found
        return found

    def _means(self, name: str, total: Values) -> Values:
        for value in total.values():
            if not finite(value):
                raise ValueError(
                    f"{self.full_name(name)}: NaN or infinite values in its calibration input; "
                    "check the checkpoint and its dtype (float16 overflows where bfloat16 does not)"
                )
        return {s: value.div_(self.sequences) for s, value in total.items()}

    def refuse_damaged(self, names: Iterable[str]) -> None:
        """ValueError naming the first of these linears with NaN or infinite weights."""
        for name in names:
            if not finite(self.weights[name]):
                where = self.full_name(name)
                raise ValueError(f"{where}: NaN or infinite values in its weights; the checkpoint is damaged")

    def write(self, name: str, weight: Float[Tensor, "o i"]) -> int:
        """Put a weight into the model in its own dtype, every zero as +0.0; returns how many others became
        zero there.

        Raises ValueError naming the linear if the cast overflows.
        """
        if self.propagate == "dense" or self.twin is not None:
            self.see_dense()
        view = self.weights[name]
        rounded = weight.to(self.stored(name))
        view.copy_(rounded).add_(0.0)  # -0.0 + 0.0 = +0.0
        self._written = True
        if not finite(view):
            raise ValueError(
                f"{self.full_name(name)}: its new weights overflow {rounded.dtype}; use a wider model.dtype"
            )
        return 0 if rounded.dtype == weight.dtype else nonzeros(weight) - nonzeros(view)

    @torch.no_grad()
    def advance(self) -> float | None:
        """Turn the calls into those of the next block, in place, batch by batch.

        Returns the relative squared error of this block's output, if its dense output was seen; None without one.
        Raises ValueError naming the block if its output is NaN or infinite.
        """
        if self._advanced:
            return None
        self._advanced, compare, error, size = True, len(self._dense) > 0, 0.0, 0.0
        sound: Tensor | bool = True
        for k, call in enumerate(self.calls):
            # A block that was heard and not written has been run already.
            dense = call.at(self._dense.take(k), self._dense.beside(k)) if compare else None
            left = self._run(call) if dense is None or self._written else dense
            sound = sound & finite(left.hidden)
            if dense is not None:
                error += (left.hidden.float() - dense.hidden.float()).square().sum().item()
                size += dense.hidden.float().square().sum().item()
                left = dense if self.propagate == "dense" else left
            self.calls[k] = left
        damaged = float(not sound)
        if self.calls.whole:
            damaged, error, size = ranks.total(torch.tensor([damaged, error, size], dtype=torch.float64)).tolist()
        if damaged:
            self.refuse_damaged(self.weights)
            raise ValueError(f"{self.path}: NaN or infinite values in its output; check the checkpoint and its dtype")
        return error / size if size else None

    @torch.no_grad()
    def see_dense(self) -> None:
        """Keep the dense output of every call, and move the dense model's own states behind this block."""
        if self._written or self._seen:
            return
        self._seen = True
        if len(self._dense) < len(self.calls):
            self.collect([], [])
        if self.twin is not None:
            for k, call in enumerate(self.calls.made):
                left = self._run(call.at(self.twin[k], self.twin.beside(k)))
                self.twin.put(k, left.hidden, left.beside)

    def reference(self, call: Call) -> Float[Tensor, "b t *s h"]:
        """The dense block's output for one of the `calls`: on its own input, or, with a twin, in the dense model."""
        self.see_dense()
        return (self._dense if self.twin is None else self.twin)[call.number].float()

    def _keep_dense(self, left: Call) -> None:
        if not self._written and len(self._dense) < len(self.calls):
            self._dense.append(left.hidden, left.beside)

    @contextmanager
    def _listening(self, heard: Heard) -> Iterator[None]:
        def note(name: str, x: Tensor, origin: Origin) -> None:
            self._heard.add(name)
            heard(name, x, origin)

        with ExitStack() as stack:
            for path, module in self.module.named_modules():
                stack.callback(module.register_forward_pre_hook(lambda *_, path=path: self._ran.add(path)).remove)
            listener = stack.enter_context(Listener(self.weights, note))
            yield
            self._apart |= listener.apart

    def unheard(self) -> dict[str, str]:
        """The linears that were not heard although what applies them ran, and why; after a pass of all ranks.

        An expert that no token reached is not among them: others like it were heard, or its module did not run.
        """
        told = [(self._heard, self._ran, self._apart)]
        if self.calls.whole:
            told = ranks.everyone(lambda: told[0])
        heard, ran, apart = (set[str]().union(*parts) for parts in zip(*told, strict=True))
        alike = {numberless(name) for name in heard}
        silent = [n for n, m in self.matrices.items() if m.module in ran and numberless(n) not in alike]
        parts = "applied in parts to different inputs"
        return dict.fromkeys(silent, "not heard when its block ran") | dict.fromkeys(sorted(apart), parts)

    def leave_out(self, names: Iterable[str]) -> None:
        """These, by full name, are no linears of the block any longer."""
        for name in set(map(self.full_name, self.weights)).intersection(names):
            inside = name.removeprefix(f"{self.path}.")
            del self.weights[inside], self.matrices[inside]

    @torch.no_grad()
    def _run(self, call: Call) -> Call:
        return call.through(self.module)
