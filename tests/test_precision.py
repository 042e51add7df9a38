"""What matrix units of a GPU would change: their rounding is imitated on the CPU, where the library asks for them."""

from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from experiments.composing import command
from experiments.running import components
from prune import prune as walk
from prune import reverse
from prune.network import Network
from prune.prune import prune
from tests.tiny import Memory

aten = torch.ops.aten
OPERANDS = {aten.mm.default: (0, 1), aten.bmm.default: (0, 1), aten.addmm.default: (1, 2), aten.baddbmm.default: (1, 2)}


def rounded(x):
    """float32 to 10 bits behind the point, ties to even; other dtypes as they are."""
    if x.dtype != torch.float32:
        return x
    bits = x.contiguous().view(torch.int32)
    return (bits + 0xFFF + (bits >> 13 & 1) & ~0x1FFF).view(torch.float32)


class MatrixUnits(TorchDispatchMode):
    """Every product in here has its operands rounded, in backward passes too."""

    products = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in OPERANDS:
            MatrixUnits.products += 1
            args = [rounded(a) if k in OPERANDS[func] else a for k, a in enumerate(args)]
        return func(*args, **(kwargs or {}))


@contextmanager
def imitated(*_):
    """Stands for prune.precision.as_fine_as on a GPU."""
    with MatrixUnits():
        yield


def masks(shared, experiment):
    """Of wiki-llama-3m in bfloat16, by this experiment on eight windows, and its perplexity on others."""
    folder, data = shared / "data/models/wiki-llama-3m", load_file(shared / "parity/wiki-llama-3m-calib.safetensors")
    config, store = command.jobs([f"experiment={experiment}", "device=cpu"])[0].config, None
    make = lambda: Network(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="eager"), batch=4
    )
    if config["given"]:
        store = Memory()
        for _ in prune(make(), data["tokens"][:8], components.method(config["given"]["config"]), done=store):
            pass
    model, method = make(), components.method(config)
    solved = prune(model, data["tokens"][:8], method, config["granularity"], given=store)
    found = torch.cat([p.mask.flatten() for block in solved for p in block.linears.values()])
    return found, model.losses(data["tokens"][-8:]).mean().exp().item()


def test_the_imitation_rounds_as_the_units_do():
    assert torch.equal(
        rounded(torch.tensor([1 + 2**-10, 1 + 2**-11, 1 + 3 * 2**-11])), torch.tensor([1 + 2**-10, 1.0, 1 + 2**-9])
    )
    half = torch.randn(100, generator=torch.Generator().manual_seed(0)).half().float()
    assert torch.equal(rounded(half), half), "what float16 holds stays as it is"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "differ", "move"),
    [("gblm", 1e-3, 2e-3), ("barber", 1e-4, 1e-3), ("mixed", 1e-3, 2e-3), ("besa", 2e-2, 1e-2)],
)
def test_masks_of_half_precision_models_hardly_depend_on_it(shared, monkeypatch, experiment, differ, move):
    """BESA's steps build on each other, so that the smallest difference grows."""
    exact, perplexity = masks(shared, experiment)
    for module in (reverse, walk):
        monkeypatch.setattr(module, "as_fine_as", imitated)
    MatrixUnits.products = 0
    found, other = masks(shared, experiment)
    assert MatrixUnits.products > 100 and len(found) == len(exact)
    assert (found != exact).float().mean() < differ
    assert other == pytest.approx(perplexity, rel=move)
