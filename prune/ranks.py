"""Several processes that prune one model together: what each asks of the others. A process alone has the answer itself.

All of them run the same program. Whatever is asked here has to be asked by every rank, in the same order.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # a process alone does not wait for torch here
    from torch import Tensor

Found = TypeVar("Found")
PATIENCE = timedelta(days=7)  # one rank may be busy alone for as long as an evaluation takes
FAREWELL = timedelta(seconds=30)  # for the first rank to hear why another one leaves
met: list[Any] = []  # torch.distributed and the store where the ranks leave word, inside `meet`


def rank() -> int:
    """Which one I am, from 0."""
    return met[0].get_rank() if met else 0


def world() -> int:
    """How many there are."""
    return met[0].get_world_size() if met else 1


def first() -> bool:
    """Whether I am the one that writes and speaks."""
    return rank() == 0


def share(sequences: "Tensor", batch: int = 1) -> "Tensor":
    """My part of the sequences [n, ...], in order and in whole batches.

    The same object, all of them, where I am alone or some rank would be left without a batch.
    """
    batches = -(-len(sequences) // batch)
    if world() == 1 or batches < world():
        return sequences
    start, stop = (batch * (batches * k // world()) for k in (rank(), rank() + 1))
    return sequences[start:stop]


def total(tensor: "Tensor") -> "Tensor":
    """The sum over the ranks, with the same bits on all; ConnectionError if another rank is gone, as below."""
    if world() == 1:
        return tensor
    tensor = tensor.contiguous()
    with _asking():
        met[0].all_reduce(tensor)
    return tensor


def from_rank(tensor: "Tensor", source: int) -> "Tensor":
    """The tensor of that rank, of the same shape and dtype as mine."""
    if world() == 1:
        return tensor
    tensor = tensor.contiguous()
    with _asking():
        met[0].broadcast(tensor, source)
    return tensor


def everyone(compute: Callable[[], Found]) -> list[Found]:
    """What each rank finds, in the order of ranks. What one raises stops all: the others raise ValueError with it."""
    if world() == 1:
        return [compute()]
    mine: Any = None
    raised: Exception | None = None
    try:
        mine = compute()
    except Exception as error:
        raised = error
    found: list[Any] = [None] * world()
    with _asking():
        met[0].all_gather_object(found, (mine, _said(raised)))
    if raised is not None:
        raise raised
    for _, said in found:
        if said is not None:
            raise ValueError(said)
    return [value for value, _ in found]


def told(compute: Callable[[], Found]) -> Found:
    """What the first rank finds, or raises, alone; the others wait for it. For decisions, and for what is written."""
    found: list[Any] = everyone(lambda: compute() if first() else None)
    return found[0]


@contextmanager
def entered(context: AbstractContextManager[Any]) -> Iterator[None]:
    """The first rank alone is in this context, behind a lock for instance; the others go on when it has entered."""
    with ExitStack() as stack:

        def enter() -> None:
            stack.enter_context(context)

        told(enter)
        yield


@contextmanager
def meet(apart: bool = False) -> Iterator[None]:
    """The ranks that the environment names (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, as torchrun sets them).

    apart: whether each has a GPU of its own, where NCCL carries the tensors; everything else goes by gloo.
    """
    from torch import distributed  # noqa: PLC0415
    from torch.distributed.nn import functional  # noqa: F401, PLC0415 - imported later, its defaults hold the group open

    store, mine, count = next(distributed.rendezvous("env://"))
    backend = "cpu:gloo,cuda:nccl" if apart else "gloo"
    distributed.init_process_group(backend, store=store, rank=mine, world_size=count, timeout=PATIENCE)
    met.extend([distributed, store])
    try:
        yield
    finally:
        if mine == 0:
            store.set("gone", "")
        met.clear()
        if distributed.is_initialized():
            distributed.destroy_process_group()


def fail(reason: str) -> bool:
    """Leave before the end; whoever asks this rank for something from now on raises ConnectionError with the reason.

    Whether the first rank ended within `FAREWELL`, so that it has said why.
    """
    distributed, store = met
    store.set("reason", f"rank {rank()}: {reason}")
    distributed.destroy_process_group()
    try:
        store.wait(["gone"], FAREWELL)
    except RuntimeError:
        return False
    return True


def _said(error: Exception | None) -> str | None:
    if error is None:
        return None
    kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
    return f"rank {rank()}: {kind}{error}"


@contextmanager
def _asking() -> Iterator[None]:
    """ConnectionError, with its reason if it left one, where a rank does not answer any more."""
    try:
        yield
    except RuntimeError as error:
        from torch import OutOfMemoryError  # noqa: PLC0415

        if isinstance(error, OutOfMemoryError):
            raise
        reason = "another rank is gone without a word; was it killed?"
        with suppress(RuntimeError):
            if met[1].check(["reason"]):
                reason = met[1].get("reason").decode()
        raise ConnectionError(reason) from error
