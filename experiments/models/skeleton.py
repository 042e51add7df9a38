"""What transformers makes of a model's folder before a weight is read: a model on torch's meta device, with shapes
alone, and which of the stored tensors goes where in it. What it cannot do is told in one line.
"""

import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageClassification, AutoTokenizer
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
from transformers.initialization import no_init_weights
from transformers.utils import logging

from experiments.console.errors import note, one_line
from experiments.models.location import TOKENIZER, located
from experiments.models.stored import Stored, alike, first_dtype, some

DTYPES = {"auto": "auto", "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
DEEPEST = 10_000  # blocks
RETURNED = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}


@contextmanager
def explained(path: str, what: str = "") -> Iterator[None]:
    """What transformers, the hub or safetensors raise becomes a ValueError in one line that says what to do.

    `what` stands in front of it: what was being read. transformers is quiet meanwhile.
    """
    try:
        with quiet():
            yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a configuration or a file can break a library anywhere
        if str(error).startswith("model."):
            raise
        remedy = "expected a folder of a causal LM, or of an image classifier, that transformers loads from safetensors"
        if located(path) is None:
            remedy = "check id and revision, `hf auth login` if gated, or give model.path=FOLDER"
        reason = textwrap.shorten(one_line(error), 300, placeholder=" ...").rstrip(".")
        if "trust_remote_code" in str(error):
            reason = "it needs code of its own: read that, and allow it with model.trust_remote_code=true"
        raise ValueError(f"model.path={path}: {what}{reason}; {remedy}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without the table of tensors that transformers logs: what is wrong with them becomes one error of ours.

    Its progress bars are for people: in a log file they would be a line per step.
    """
    before = logging.get_verbosity()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def kind_of(dtype: str | None) -> Any:
    """The torch dtype of that name, or "auto"; ValueError for another name."""
    kind = DTYPES.get(dtype or "auto")
    if kind is None:
        raise ValueError(f"model.dtype={dtype}: expected one of {', '.join(DTYPES)}")
    return kind


def tokenizer(path: str, folder: Path, trust_remote_code: bool) -> Any:
    """The tokenizer in the `folder` of model.path=`path`; None where there is none, ValueError where it is broken."""
    if not any(True for pattern in TOKENIZER for _ in folder.glob(pattern)):
        return None
    with explained(path, "its tokenizer: "):
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)


def skeleton(
    path: str,
    revision: str | None,
    dtype: str | None,
    trust_remote_code: bool,
    tensors: Mapping[str, Stored] | None = None,
    compute: str | None = None,
) -> Any:
    """The causal LM or image classifier that the folder, "demo" or hub id at `path` holds; only its buffers have
    numbers.

    `dtype` auto or None is the configuration's own, or that of the stored `tensors` where it names none. These also say
    what is tied (`tie`); without them all is that config.json ties. `compute`: see `widened`. ValueError or OSError in
    one line for a path, a dtype or a configuration that makes no model.
    """
    kind = kind_of(dtype)
    source = str(located(path) or path)
    with explained(path):
        config = configured(source, revision, trust_remote_code)
        if kind == "auto":
            kind = getattr(_language_part(config), "dtype", None) or first_dtype(tensors or {})
        with init_empty_weights(include_buffers=False), no_init_weights():  # rotary tables are in no checkpoint
            model = auto(config).from_config(config, dtype=kind, trust_remote_code=trust_remote_code)
        if tensors is None:
            model.tie_weights()
        else:
            tie(model, tensors)
    return widened(model, compute)


def widened(model: Any, compute: str | None) -> Any:
    """The model with its numbers in the dtype of this name, to compute in; None leaves it as it is.

    What its weights are rounded to and saved in stays as it was (`narrow`).
    """
    if compute is None or model.dtype == kind_of(compute):
        return model
    model.weights_dtype = model.dtype
    return model.to(kind_of(compute))


def narrow(model: Any) -> torch.dtype | None:
    """The dtype of the weights of a model that was `widened`; None for one that computes in that dtype."""
    return getattr(model, "weights_dtype", None)


def configured(source: str, revision: str | None, trust_remote_code: bool) -> Any:
    """The configuration of a folder or hub id, whatever it says of what a forward pass is to return: logits alone.

    `output_attentions` and the like change no number, but how blocks answer; the saved model has them as they were.
    ValueError for more blocks than any model has: not even their names would fit into memory.
    """
    config: Any = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)
    if (blocks := getattr(config.get_text_config(), "num_hidden_layers", 0) or 0) > DEEPEST:
        raise ValueError(f"config.json asks for {blocks} blocks, which no model has; copy it again")
    for part in [config, *(getattr(config, name, None) for name in config.sub_configs)]:
        for name, value in RETURNED.items():
            if getattr(part, name, value) != value:
                setattr(part, name, value)
    return config


def auto(config: Any) -> Any:
    """What of transformers makes this model: an image classifier where config.json says so, or where there is nothing
    else to make of it; else a causal LM.
    """
    named = any("ForImageClassification" in name for name in config.architectures or [])
    alone = type(config) not in AutoModelForCausalLM._model_mapping
    classifies = named or (alone and type(config) in AutoModelForImageClassification._model_mapping)
    return AutoModelForImageClassification if classifies else AutoModelForCausalLM


def _language_part(config: Any) -> Any:
    """What AutoModelForCausalLM makes the model of: of some published configurations, their text_config alone."""
    made: Any = AutoModelForCausalLM._model_mapping.get(type(config), None)
    text = config.sub_configs.get("text_config")
    return config.get_text_config() if text is not None and getattr(made, "config_class", None) is text else config


def tie(model: Any, tensors: Mapping[str, Stored]) -> None:
    """Ties what from_pretrained ties: a parameter that is not stored to the one that is, and two with equal values.

    Two that differ stay two, whatever config.json says of them.
    """
    stored = {key: tensors[name] for name, (key, rule) in becomes(model, tensors).items() if rule is None}
    pairs = model.all_tied_weights_keys.items()
    both = [(target, source) for target, source in pairs if target in stored and source in stored]
    kind = lambda key: model.get_parameter(key).dtype
    same = {one for one, two in both if alike(stored[one], stored[two], kind(one))}
    missing = {key for key in model.state_dict() if key not in stored or key in same}
    model.tie_weights(missing_keys=missing, recompute_mapping=False)
    if apart := [one for one, _ in both if one not in same]:
        place = next(iter(tensors.values())).file.parent
        note(f"{place}: {', '.join(apart)} kept as stored, though config.json ties it; so does transformers")


def becomes(model: Any, names: Iterable[str]) -> dict[str, tuple[str, WeightConverter | None]]:
    """By the name of a stored tensor: its name in the model, and what fuses or splits it on loading (None: nothing)."""
    rules, own = get_model_conversion_mapping(model), model.state_dict()
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    by_pattern = {pattern: rule for rule in converters for pattern in rule.source_patterns}
    places: dict[str, tuple[str, WeightConverter | None]] = {}
    for name in names:
        key, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, own)
        if key not in own and name in own:  # as the loader does: its own names need no renaming
            key, pattern = name, None
        places[name] = key, by_pattern.get(pattern)
    return places


def judged(folder: Path, tensors: Mapping[str, Stored], trust_remote_code: bool) -> tuple[Any, list[str]]:
    """The folder's model on the meta device, and a line for each thing that is wrong with these tensors.

    transformers' own loader is given names and shapes without any values: what it would initialise anew, ignore or
    refuse is known before a weight is read, renamed and fused tensors (experts) included.
    """
    config = configured(str(folder), None, trust_remote_code)
    if hasattr(config, "quantization_config"):  # of codes that were read as plain weights
        del config.quantization_config
    with torch.device("meta"):
        empty: Any = auto(config).from_config(config, trust_remote_code=trust_remote_code)
    bare = {name: torch.empty(stored.shape, device="meta") for name, stored in tensors.items()}
    options = {"device_map": {"": "meta"}, "output_loading_info": True, "ignore_mismatched_sizes": True}
    model, report = type(empty).from_pretrained(None, config=empty.config, state_dict=bare, **options)
    keys = {name: key for name, (key, _) in becomes(model, tensors).items()}
    real = {key for key, value in model.state_dict().items() if value.is_floating_point()}
    old = {keys[name] for name, tensor in tensors.items() if tensor.obsolete}
    wrong = {
        "missing, which would be random": sorted(report["missing_keys"]),
        "unexpected": sorted(set(report["unexpected_keys"]) - old),
        "of another shape": sorted(name for name, *_ in report["mismatched_keys"]),
        "of whole numbers": [name for name, key in keys.items() if key in real and tensors[name].whole],
    }
    return model, [f"{len(names)} tensors {what}: {some(names)}" for what, names in wrong.items() if names]
