"""The pruned model as a plain Hugging Face folder: dense safetensors, zeros +0.0, tokenizer, pruning_manifest.json."""

import shutil
from pathlib import Path
from typing import Any

from experiments.record import write_json
from prune.decoder import Decoder


def save(decoder: Decoder, folder: Path, manifest: dict[str, Any]) -> None:
    """Write `folder` as a whole or not at all; AutoModelForCausalLM.from_pretrained loads it."""
    temporary = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    decoder.model.save_pretrained(temporary)
    if decoder.tokenizer is not None:
        decoder.tokenizer.save_pretrained(temporary)
    write_json(temporary / "pruning_manifest.json", manifest)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)
