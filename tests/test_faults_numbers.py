"""Numbers that no solver likes: features that are zero, the same or too large, and layers that nothing reaches."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.faults import VOCABULARY, Fault, cases, check
from tests.tiny import network


def odd(change: Callable[[torch.nn.Module], object], family: str = "llama") -> Callable[[Path], None]:
    """A model folder odd/ beside windows t.safetensors of the tiny tokens, after `change` of the model."""

    def prepare(here: Path) -> None:
        model = network(family, vocab_size=VOCABULARY).model
        with torch.no_grad():
            change(model)
        model.save_pretrained(here / "odd")

    return prepare


def embedding(value: float) -> Callable[[torch.nn.Module], object]:
    """Every token is the same vector."""
    return lambda model: model.get_input_embeddings().weight.fill_(value)


def dead(model: torch.nn.Module) -> None:
    """A feature of the first block that is zero on every token, before and after its norm."""
    model.get_input_embeddings().weight[:, 3] = 0


def large(model: torch.nn.Module) -> None:
    """Weights that float16 can hold, and products of them that it cannot."""
    for name, weight in model.named_parameters():
        if "mlp" in name:
            weight.mul_(3e4)


def one_expert(model: torch.nn.Module) -> None:
    """A router without an opinion: every token goes to the same two of four experts."""
    for name, weight in model.named_parameters():
        if name.endswith("gate.weight"):
            weight.zero_()


def same(here: Path) -> None:
    """Calibration windows of one token only: the Hessian has rank one."""
    save_file({"tokens": torch.full((4, 16), 7)}, here / "t.safetensors")


ODD = "eval=[] model=local model.path={here}/odd model.dtype=float32 experiment=sparsegpt"
FAULTS = [
    Fault("a Hessian of rank one", "eval=[] experiment=sparsegpt data.path={here}/t.safetensors", "", 0, same),
    Fault(
        "a Hessian of rank one, without damping",
        "eval=[] experiment=sparsegpt update.damping=0.0 data.path={here}/t.safetensors",
        "factor",
        1,
        same,
    ),
    Fault("a feature that is always zero", ODD, "dead columns: ", 0, odd(dead)),
    Fault(
        "features that are all zero",
        ODD,
        "dead columns: 768",
        0,
        odd(embedding(0.0)),
    ),
    Fault(
        "activations beyond float16",
        ODD.replace("float32", "float16"),
        "model.layers.0.*NaN or infinite .*float",
        1,
        odd(large),
    ),
    Fault(
        "weights that are not finite",
        ODD,
        "model.layers.0.mlp.*NaN or infinite values in its weights; the",
        1,
        odd(lambda m: m.model.layers[0].mlp.up_proj.weight.fill_(torch.inf)),
    ),
    Fault(
        "experts that no token reaches", ODD.replace("sparsegpt", "wanda"), "unseen: ", 0, odd(one_expert, "mixtral")
    ),
]


@pytest.mark.parametrize("fault", cases(FAULTS, ["features that are all zero"]))
def test_it_gets_one_line_and_nothing_is_lost(fault, tmp_path):
    check(fault, tmp_path)
