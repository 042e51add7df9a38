"""Folders that hold a model which cannot be pruned as it lies there, told by config.json and the names of tensors."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.models.stored import Stored

QUANTISATION = ("quantization_config", "compression_config")
PACKED = re.compile(  # what only a quantised matrix has beside it, or is called
    r"[.:](qweight|qzeros|qdata|weight_packed|weight_scale|weight_scale_inv|absmax|SCB|W_q|compressed|bitmask)$"
    r"|_proj_(blocks|scales)$"
)


def refuse_adapter(folder: Path) -> None:
    """ValueError for an adapter, alone or beside a model: transformers would apply it, and no number would be right."""
    file = folder / "adapter_config.json"
    if not file.is_file():
        return
    if (folder / "config.json").is_file():
        raise ValueError(
            f"{folder}: adapter_config.json lies beside the model, and transformers would apply it;"
            " merge the adapter into the weights (peft: merge_and_unload), or move it away"
        )
    raise ValueError(f"{folder}: an adapter of {_base(file)}; merge it into that (peft: merge_and_unload) and save it")


def _base(file: Path) -> str:
    """The model that an adapter was made for."""
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "another model"


def refuse_quantised(config: dict[str, Any], tensors: Iterable["Stored"]) -> None:
    """ValueError for quantised weights, and for a config.json that asks transformers to quantise plain ones."""
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    asked = next((part[key] for part in parts for key in QUANTISATION if part.get(key)), None)
    packed = next((tensor for tensor in tensors if tensor.dtype.startswith("F8") or PACKED.search(tensor.name)), None)
    if packed is None and asked is None:
        return
    if asked is None:
        raise ValueError(f"quantised ({packed.name} is {packed.dtype}): dequantise it first")
    if packed is None:
        raise ValueError(
            f"config.json asks for quantisation ({_method(asked)}), but the weights are plain; take"
            " quantization_config out of it, or give the weights it was written for"
        )
    raise ValueError(f"quantised ({_method(asked)}): dequantise it first")


def _method(asked: Any) -> str:
    """What a quantization_config calls itself."""
    if isinstance(asked, dict) and asked.get("quant_method"):
        return str(asked["quant_method"])
    return "bitsandbytes" if "load_in_" in str(asked) else "of no name"
