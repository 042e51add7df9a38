"""Saves a quantised model as its codes, in compressed-tensors' format pack-quantized: transformers and vLLM load it.

Zeros are stored like any other code: an entry for sparsity in config.json is what today's loaders refuse.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from experiments.files.disk import replacing, write_json
from experiments.models.packed import FORMAT, METHOD, PACKAGE, installed
from experiments.models.skeleton import becomes
from experiments.models.stored import INDEX, configuration, contents, read
from prune.grid import Grid
from prune.matrices import Matrix
from prune.method import Quantizer
from prune.network import Network
from prune.prune import Store

Form = tuple[int, int, int]  # bits of a code, grids of a row, columns of a grid
INSTEAD = "or set save_model=true, which saves the values that the codes stand for"


def check(quantizer: Quantizer) -> None:
    """ValueError where what this quantizer makes cannot be saved packed."""
    if type(quantizer) is Quantizer:
        raise ValueError(
            f"save_model=packed: quantizer=none leaves nothing to pack; choose quantizer=minmax, {INSTEAD}"
        )
    if not getattr(quantizer, "symmetric", False):
        raise ValueError(f"save_model=packed: only symmetric grids load; set quantizer.symmetric=true, {INSTEAD}")
    if not installed():
        raise ValueError(f"save_model=packed: {PACKAGE}")


def suits(network: Network, folder: Path | None = None) -> None:
    """ValueError for a model with matrices that cannot be packed; the `folder` of its files tells of more of them."""
    matrices = network.matrices()
    why = {name: _kind(network.model, matrix) for name, matrix in matrices.items()}
    if folder is not None and not any(why.values()):
        plain = {key for key, rule in becomes(network.model, contents(folder)).values() if rule is None}
        why = {n: "" if m.parameter in plain else "fused or split when it is loaded" for n, m in matrices.items()}
    if odd := next((name for name in why if why[name]), None):
        raise ValueError(f"save_model=packed: {odd} is {why[odd]}, which cannot be packed; set save_model=true")


def _kind(model: nn.Module, matrix: Matrix) -> str:
    """What keeps a matrix from being packed; empty for the weight of a linear."""
    if matrix.expert is not None:
        return "one of a stack of experts"
    if matrix.turned:
        return "stored as [in, out]"
    linear = isinstance(model.get_submodule(matrix.owner), nn.Linear) and matrix.parameter.endswith(".weight")
    return "" if linear else "no weight of a torch.nn.Linear"


def pack(network: Network, folder: Path, solved: Store) -> None:
    """Puts codes and scales in the place of the solved matrices in a `folder` of plain weights, file by file.

    ValueError for a weight that does not lie on its grid, or whose grid is not symmetric.
    """
    suits(network, folder)
    tensors, matrices = contents(folder), network.matrices()
    places = {key: name for name, (key, rule) in becomes(network.model, tensors).items() if rule is None}
    names = {places[matrix.parameter]: name for name, matrix in matrices.items()}
    grid, forms, weight_map = _grids(network, solved), dict[str, Form](), dict[str, str]()
    for file in sorted({stored.file for stored in tensors.values()}):
        content: dict[str, Tensor] = {}
        for stored, tensor in read([each for each in tensors.values() if each.file == file]):
            found = grid(names[stored.name]) if stored.name in names else None
            content |= {stored.name: tensor} if found is None else parts(stored.name, tensor, found)
            if found is not None:
                forms[matrices[names[stored.name]].owner] = form(found, tensor)
        _replace(file, content)
        weight_map |= dict.fromkeys(content, file.name)
    if (folder / INDEX).is_file():
        size = sum((folder / name).stat().st_size for name in set(weight_map.values()))
        write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": weight_map})
    write_json(folder / "config.json", configuration(folder) | {"quantization_config": settings(network, forms)})


def _grids(network: Network, solved: Store) -> Callable[[str], Grid | None]:
    """The grid of a solved matrix by its full name; a block is read once, for its matrices follow each other."""
    load = lru_cache(maxsize=1)(solved.load)

    def grid(name: str) -> Grid | None:
        number = name.removeprefix(f"{network.path}.").partition(".")[0]
        answer = load(f"{network.path}.{number}").linears.get(name)  # None where it was not heard
        return answer and answer.grid

    return grid


def _replace(file: Path, content: dict[str, Tensor]) -> None:
    """Other tensors in a file."""
    with replacing(file) as temporary:
        save_file(content, temporary, metadata={"format": "pt"})


def form(grid: Grid, weight: Tensor) -> Form:
    """What the codes of a matrix are."""
    grids = grid.scale.shape[1]
    return grid.bits, grids, weight.shape[1] // grids


def parts(name: str, weight: Float[Tensor, "o i"], grid: Grid) -> dict[str, Tensor]:
    """What stands for a stored weight; ValueError where its codes do not give it back."""
    from compressed_tensors.compressors import pack_to_int32  # noqa: PLC0415 - of an extra

    half, scale = 2 ** (grid.bits - 1), grid.scale.to(weight.dtype)
    steps = grid.codes(weight.float()) - half
    if not (grid.zero == half).all() or not torch.equal(
        steps.to(weight.dtype) * scale[:, grid.groups(weight.shape[1])], weight
    ):
        raise ValueError(f"save_model=packed: {name} does not lie on its symmetric grid; set save_model=true")
    codes = {
        "packed": pack_to_int32(steps.to(torch.int8), grid.bits),
        "scale": scale,
        "shape": torch.tensor(weight.shape),
    }
    return {f"{name}_{part}": tensor.contiguous() for part, tensor in codes.items()}


def settings(network: Network, forms: dict[str, Form]) -> dict[str, Any]:
    """The quantization_config of a model whose linears, by name, are packed so; all others are told apart by name.

    Where they are of several kinds, each kind names its own; a row of one grid is of a kind that has as many columns.
    """
    grouped, kinds = {(bits, columns) for bits, grids, columns in forms.values() if grids > 1}, dict[Any, list[str]]()
    for name, (bits, _, columns) in sorted(forms.items()):
        kinds.setdefault((bits, columns if (bits, columns) in grouped else None), []).append(name)
    targets = [names if len(kinds) > 1 else ["Linear"] for names in kinds.values()]
    groups = [{"targets": own, "weights": _weights(*kind)} for kind, own in zip(kinds, targets, strict=True)]
    linears = {name for name, module in network.model.named_modules() if isinstance(module, nn.Linear)}
    beside = {stored.name.removesuffix(".weight") for stored in getattr(network.home, "beside", ())}
    return {
        "quant_method": METHOD,
        "format": FORMAT,
        "quantization_status": "compressed",
        "ignore": sorted((linears | beside) - forms.keys()),
        "config_groups": {f"group_{number}": group for number, group in enumerate(groups)},
    }


def _weights(bits: int, group: int | None) -> dict[str, Any]:
    """How weights of one kind are packed: so many columns share a grid, None for all."""
    shape = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
    return {"num_bits": bits, "type": "int", "symmetric": True, "dynamic": False, **shape}
