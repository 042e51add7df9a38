"""The method that a configuration describes. Only here is anything instantiated."""

from typing import Any, get_args

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from prune.block import Granularity, Propagate
from prune.method import Method
from prune.prune import workable
from prune.states import Activations

ALLOWED = {
    "granularity": get_args(Granularity),
    "propagate": get_args(Propagate),
    "activations": get_args(Activations),
}


def make(part: dict[str, Any], **changes: Any) -> Any:
    """The object that a configuration describes; what its constructor raises comes out as it is."""
    try:
        return instantiate(part, _convert_="all", **changes)
    except InstantiationException as error:
        raise (error.__cause__ or error) from None


def method(config: dict[str, Any]) -> Method:
    """The method, its parts checked against each other; ValueError in one line for what makes no sense together."""
    chosen = Method(*(make(config[part]) for part in ("pattern", "metric", "allocator", "update")))
    for name, allowed in ALLOWED.items():
        if config[name] not in allowed:
            raise ValueError(f"{name}: expected one of {', '.join(allowed)}, found {config[name]}")
    workable(chosen)
    chosen.pattern.check(config["allocator"]["sparsity"], {})
    chosen.check(config["given"] and config["given"]["names"]["method"])
    return chosen
