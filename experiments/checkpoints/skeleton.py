"""A model without its weights: what config.json alone says. Its parameters are on torch's meta device."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch

from experiments.checkpoints import whereabouts


def skeleton(
    path: str,
    revision: str | None,
    dtype: str | None,
    trust_remote_code: bool,
    stored: Callable[[], torch.dtype] = lambda: torch.float32,
) -> Any:
    """The causal LM that the folder, "demo" or hub id at `path` holds, with shapes; only its buffers have numbers.

    `dtype` auto or None is the configuration's own, or the `stored` one where it names none. ValueError or OSError in
    one line for a path, a dtype or a configuration that makes no model.
    """
    from experiments import models  # noqa: PLC0415

    kind = models.kind_of(dtype)
    from accelerate import init_empty_weights  # noqa: PLC0415 - seconds, later than a mistake
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415
    from transformers.initialization import no_init_weights  # noqa: PLC0415

    with models.explained(path), ExitStack() as stack:
        source = str(whereabouts.located(path) or path)
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)
        kind = (getattr(config, "dtype", None) or stored()) if kind == "auto" else kind
        stack.enter_context(init_empty_weights(include_buffers=False))  # rotary tables are in no checkpoint
        stack.enter_context(no_init_weights())
        model = AutoModelForCausalLM.from_config(config, dtype=kind, trust_remote_code=trust_remote_code)
    with models.explained(path):
        model.tie_weights()
    return model


def becomes(model: Any, stored: Iterable[str]) -> dict[str, str | None]:
    """The model's name of each tensor of a checkpoint; None for one that is fused or split on loading."""
    from transformers.conversion_mapping import get_model_conversion_mapping  # noqa: PLC0415
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key  # noqa: PLC0415

    rules, own = get_model_conversion_mapping(model), model.state_dict()
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    found: dict[str, str | None] = {}
    for name in stored:
        renamed, converted = rename_source_key(name, renamings, converters, model.base_model_prefix, own)
        found[name] = name if name in own and renamed not in own else None if converted else renamed
    return found
