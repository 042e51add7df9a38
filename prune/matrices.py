"""Which parameters of a block are matrices that can be pruned."""

from jaxtyping import Float
from torch import Tensor, nn


def matrices(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The prunable [o, i] matrices of a module, as views by name, and why its other parameters above one axis are not.

    Fused experts [e, o, i] (transformers marks them `is_transposed = False`) are e matrices, named `<tensor>.<expert>`.
    """
    found: dict[str, Tensor] = {}
    skipped: dict[str, str] = {}
    for path, owner in module.named_modules():
        for short, parameter in owner.named_parameters(recurse=False):
            name = f"{path}.{short}" if path else short
            if isinstance(owner, nn.Linear) and short == "weight":
                found[path] = parameter.detach()
            elif parameter.dim() == 3 and not isinstance(owner, nn.Conv1d):
                stack = enumerate(experts_of(name, owner, parameter))
                found |= {f"{name}.{expert}": matrix for expert, matrix in stack}
            elif parameter.dim() > 1:
                skipped[name] = f"{list(parameter.shape)} of {type(owner).__name__}, not the weight of an nn.Linear"
    return found, skipped


def experts_of(name: str, owner: nn.Module, parameter: nn.Parameter) -> Float[Tensor, "e o i"]:
    """A fused expert tensor; ValueError if its module does not apply it expert by expert as a linear [out, in]."""
    if getattr(owner, "is_transposed", True):
        raise ValueError(
            f"{name}: a fused tensor {list(parameter.shape)} of {type(owner).__name__}, "
            "which does not apply its experts as linears [out, in]; such models cannot be pruned"
        )
    return parameter.detach()
