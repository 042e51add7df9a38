"""The pruned model as a plain Hugging Face folder: dense safetensors, zeros +0.0, tokenizer, pruning_manifest.json."""

import shutil
from pathlib import Path
from typing import Any

from experiments.record import write_json
from prune.decoder import Decoder


def save(decoder: Decoder, folder: Path) -> None:
    """Write `folder` as a whole or not at all; AutoModelForCausalLM.from_pretrained loads it."""
    temporary = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    decoder.model.save_pretrained(temporary)
    if decoder.tokenizer is not None:
        decoder.tokenizer.save_pretrained(temporary)
    temporary.replace(folder)


def certify(folder: Path, manifest: dict[str, Any], results: dict[str, Any]) -> None:
    """Put into the folder what was done to the model: the run's manifest, what was measured, sparsity by matrix."""
    layers = {layer["name"]: layer["sparsity"] for layer in results["layers"]}
    facts = {"status": "done", "metrics": results["metrics"], "sparsity_by_matrix": layers}
    write_json(folder / "pruning_manifest.json", manifest | facts)
