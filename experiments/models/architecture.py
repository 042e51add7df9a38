"""What a checkpoint's config.json asks of its tensors, as transformers itself answers on the meta device.

Its loader is given the names and shapes without any values: what it would initialise anew, ignore or refuse is known
before a weight is read, renamed and fused tensors (experts) included.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from experiments.models import library
from experiments.models.skeleton import configured
from experiments.models.stored import Stored
from prune.decoder import Decoder

STACKING = {"MergeModulelist", "SplitModulelist", "Concatenate", "Chunk", "Split"}  # conversions that keep rows rows
MANY = 4  # names that a line gives
WORDS = {
    "missing": "missing, which would be random",
    "unexpected": "unexpected",
    "reshaped": "of another shape",
    "whole": "of whole numbers",
}


@dataclass(frozen=True)
class Architecture:
    """kind: the model's class. faults: what is wrong with the tensors, a line each. matrices: the stored names of what
    can be pruned, in the model's order. turned: those that are stored [.., i, o]. tied: pairs of stored names that the
    model holds as one. notes: what is not checked, and why.
    """

    kind: str
    faults: list[str]
    matrices: list[str]
    turned: set[str]
    tied: list[tuple[str, str]]
    notes: list[str]


def architecture(
    folder: Path,
    tensors: Mapping[str, Stored],
    blocks: str | None = None,
    trust_remote_code: bool = False,
    routers: bool = False,
    skipped: Iterable[str] = (),
) -> Architecture:
    """What the model of this folder makes of these tensors; ValueError if config.json makes no causal LM.

    `blocks` is the path of the decoder blocks, as in model.blocks; `routers` as in model.routers; `skipped`
    are matrices that a run left as they were, by full name.
    """
    try:
        with library.quiet():
            model, report, notes = _loaded(folder, tensors, trust_remote_code)
            home = _homes(model, tensors)
    except Exception as error:  # a configuration can break a model's code anywhere
        raise ValueError(f"{folder}: config.json makes no causal language model: {library.reason(error)}") from error
    wrong, tied, kind = _wrong(model, report, home, tensors), _tied(model, home), type(model).__name__
    faults = [f"{len(names)} tensors {WORDS[what]}: {_some(names)}" for what, names in wrong.items() if names]
    try:
        decoder = Decoder(model, blocks=blocks, routers=routers)
        decoder.unheard = dict.fromkeys(skipped, "")
        prunable = _prunable(decoder)
    except ValueError as error:
        return Architecture(kind, faults, [], set(), tied, [*notes, f"no matrices: {error}"])
    order = [key for key in model.state_dict() if key in prunable]
    stored = {name: key for name, (key, _) in home.items() if key in prunable and len(tensors[name].shape) > 1}
    rearranged = [name for name in stored if not _keeps_rows(model, tensors[name], *home[name])]
    if rearranged:
        notes.append(f"not checked, as loading rearranges them: {_some(rearranged)}")
    matrices = sorted(stored.keys() - set(rearranged), key=lambda name: (order.index(stored[name]), name))
    turned = {name for name in matrices if prunable[stored[name]]}
    return Architecture(kind, faults, matrices, turned, tied, notes)


def misfits(folder: Path, tensors: Mapping[str, Stored], trust_remote_code: bool) -> dict[str, list[str]]:
    """Which tensors transformers itself would find wrong, by what is wrong with them, as shards.match has them."""
    model, report, _ = _loaded(folder, tensors, trust_remote_code)
    return _wrong(model, report, _homes(model, tensors), tensors)


def _wrong(
    model: Any, report: dict[str, Any], home: Mapping[str, tuple[str, Any]], tensors: Mapping[str, Stored]
) -> dict[str, list[str]]:
    real = {key for key, value in model.state_dict().items() if value.is_floating_point()}
    old = {home[name][0] for name, tensor in tensors.items() if tensor.obsolete}
    return {
        "missing": sorted(report["missing_keys"]),
        "unexpected": sorted(set(report["unexpected_keys"]) - old),
        "reshaped": sorted(name for name, *_ in report["mismatched_keys"]),
        "whole": [name for name, (key, _) in home.items() if key in real and tensors[name].whole],
    }


def _loaded(folder: Path, tensors: Mapping[str, Stored], trust_remote_code: bool) -> tuple[Any, dict[str, Any], list]:
    """The model on the meta device after loading tensors without values, what transformers reports, and notes."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - seconds

    config = configured(str(folder), None, trust_remote_code)
    notes = []
    if quantized := getattr(config, "quantization_config", None):
        found = quantized.get("quant_method") if isinstance(quantized, dict) else type(quantized).__name__
        notes.append(f"config.json asks for quantization ({found}); checked against the model without it")
        del config.quantization_config
    with torch.device("meta"):
        empty: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    bare = {name: torch.empty(stored.shape, device="meta") for name, stored in tensors.items()}
    options = {"device_map": {"": "meta"}, "output_loading_info": True, "ignore_mismatched_sizes": True}
    model, report = type(empty).from_pretrained(None, config=empty.config, state_dict=bare, **options)
    return model, report, notes


def _homes(model: Any, tensors: Mapping[str, Stored]) -> dict[str, tuple[str, Any]]:
    """Which parameter each stored tensor goes into, and the conversion on the way (None: none)."""
    from transformers.conversion_mapping import get_model_conversion_mapping  # noqa: PLC0415
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key  # noqa: PLC0415

    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    by_pattern = {pattern: rule for rule in converters for pattern in rule.source_patterns}
    own = model.state_dict()
    found = {}
    for name in tensors:
        key, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, own)
        if key not in own and name in own:
            key, pattern = name, None  # as the loader does: its own names need no renaming
        found[name] = (key, by_pattern.get(pattern))
    return found


def _prunable(decoder: Decoder) -> dict[str, bool]:
    """The parameters that hold what can be pruned, and whether it lies in them as [i, o]."""
    return {place.parameter: place.turned for place in decoder.matrices().values()}


def _keeps_rows(model: Any, tensor: Stored, key: str, rule: Any) -> bool:
    """Whether the axes of the stored tensor are those of the model's."""
    known = rule is None or {type(step).__name__ for step in rule.operations} <= STACKING
    return known and tensor.shape[-1] == model.get_parameter(key).shape[-1]


def _tied(model: Any, home: Mapping[str, tuple[str, Any]]) -> list[tuple[str, str]]:
    """Pairs of stored tensors that the model holds as one parameter."""
    stored = {key: name for name, (key, _) in home.items()}
    pairs = (getattr(model, "all_tied_weights_keys", None) or {}).items()
    return [(stored[one], stored[other]) for one, other in pairs if one in stored and other in stored]


def _some(names: list[str]) -> str:
    return ", ".join(names[:MANY]) + (", ..." if len(names) > MANY else "")
