"""Where a model keeps its list of blocks."""

from typing import Any

from torch import nn

# An encoder's depth, or one that counts the halves of a block, may have the first name.
DEPTHS = ("num_hidden_layers", "decoder_layers", "num_decoder_layers", "num_layers")


def blocks_of(model: Any, config: Any) -> str:
    """The path of the one ModuleList as long as the model is deep by this config, of its decoder's where several are.

    ValueError, which names those found, where that is not one.
    """
    known = dict(model.named_modules())
    depths = {int(depth) for name in DEPTHS if (depth := getattr(config, name, None))}
    lists = [name for name, module in known.items() if isinstance(module, nn.ModuleList)]
    fitting = [name for name in lists if not depths or len(known[name]) in depths]
    found = [name for name in fitting if not any(name.startswith(f"{other}.") for other in fitting)]
    if len(found) > 1 and hasattr(model, "get_decoder"):
        inside = set(model.get_decoder().modules())
        found = [name for name in found if known[name] in inside] or found
    if len(found) != 1:
        size = f"of {' or '.join(map(str, sorted(depths)))} blocks" if depths else "since its config has no depth"
        said = f"expected one ModuleList {size}, found {found or 'none'}; set model.blocks"
        raise ValueError(f"{type(model).__name__}: {said}")
    return found[0]
