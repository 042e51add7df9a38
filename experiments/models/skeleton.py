"""A model without its weights: what config.json alone says. Its parameters are on torch's meta device."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from experiments.console.errors import note
from experiments.models import library, location
from experiments.models.stored import Stored, alike, first_dtype

DEEPEST = 10_000  # blocks
RETURNED = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}


def skeleton(
    path: str,
    revision: str | None,
    dtype: str | None,
    trust_remote_code: bool,
    tensors: Mapping[str, Stored] | None = None,
) -> Any:
    """The causal LM that the folder, "demo" or hub id at `path` holds, with shapes; only its buffers have numbers.

    `dtype` auto or None is the configuration's own, or that of the stored `tensors` where it names none. These also say
    what is tied (`tie`); without them all is that config.json ties. ValueError or OSError in one line for a path, a
    dtype or a configuration that makes no model.
    """
    kind = library.kind_of(dtype)
    from accelerate import init_empty_weights  # noqa: PLC0415 - seconds, later than a mistake
    from transformers import AutoModelForCausalLM  # noqa: PLC0415
    from transformers.initialization import no_init_weights  # noqa: PLC0415

    with library.explained(path), ExitStack() as stack:
        source = str(location.located(path) or path)
        config = configured(source, revision, trust_remote_code)
        own = getattr(_language_part(config), "dtype", None)
        kind = (own or first_dtype(tensors or {})) if kind == "auto" else kind
        stack.enter_context(init_empty_weights(include_buffers=False))  # rotary tables are in no checkpoint
        stack.enter_context(no_init_weights())
        model = AutoModelForCausalLM.from_config(config, dtype=kind, trust_remote_code=trust_remote_code)
    with library.explained(path):
        model.tie_weights() if tensors is None else tie(model, tensors)
    return model


def configured(source: str, revision: str | None, trust_remote_code: bool) -> Any:
    """The configuration of a folder or hub id, whatever it says of what a forward pass is to return: logits alone.

    `output_attentions` and the like change no number, but how blocks answer; the saved model has them as they were.
    ValueError for more blocks than any model has: not even their names would fit into memory.
    """
    from transformers import AutoConfig  # noqa: PLC0415

    config: Any = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)
    if (blocks := getattr(config.get_text_config(), "num_hidden_layers", 0) or 0) > DEEPEST:
        raise ValueError(f"config.json asks for {blocks} blocks, which no model has; copy it again")
    for part in [config, *(getattr(config, name, None) for name in config.sub_configs)]:
        for name, value in RETURNED.items():
            if getattr(part, name, value) != value:
                setattr(part, name, value)
    return config


def _language_part(config: Any) -> Any:
    """What AutoModelForCausalLM makes the model of: of some published configurations, their text_config alone."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    made: Any = AutoModelForCausalLM._model_mapping.get(type(config), None)
    text = config.sub_configs.get("text_config")
    return config.get_text_config() if text is not None and getattr(made, "config_class", None) is text else config


def tie(model: Any, tensors: Mapping[str, Stored]) -> None:
    """Ties what from_pretrained ties: a parameter that is not stored to the one that is, and two with equal values.

    Two that differ stay two, whatever config.json says of them.
    """
    own = becomes(model, tensors)
    stored = {key: name for name, key in own.items() if key is not None}
    pairs = model.all_tied_weights_keys.items()
    both = [(target, source) for target, source in pairs if target in stored and source in stored]
    kind = lambda key: model.get_parameter(key).dtype
    same = {one for one, two in both if alike(tensors[stored[one]], tensors[stored[two]], kind(one))}
    missing = {key for key in model.state_dict() if key not in stored or key in same}
    model.tie_weights(missing_keys=missing, recompute_mapping=False)
    if apart := [one for one, _ in both if one not in same]:
        place = next(iter(tensors.values())).file.parent
        note(f"{place}: {', '.join(apart)} kept as stored, though config.json ties it; so does transformers")


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
