"""The pruned model as a plain Hugging Face folder: dense safetensors, zeros +0.0, tokenizer, pruning_manifest.json."""

import logging
import shutil
from pathlib import Path
from typing import Any

from experiments import verify
from experiments.checkpoints.contract import certificate
from experiments.checkpoints.shards import Shards, write
from experiments.disk import read_json, write_json
from experiments.identity import digest
from prune.decoder import Decoder

log = logging.getLogger("experiments")


def save(decoder: Decoder, folder: Path) -> None:
    """Write `folder` as a whole or not at all; AutoModelForCausalLM.from_pretrained loads it."""
    temporary = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    if isinstance(decoder.home, Shards):
        write(decoder, decoder.home, temporary)
    else:
        decoder.model.save_pretrained(temporary)
    if decoder.tokenizer is not None:
        decoder.tokenizer.save_pretrained(temporary)
    write_json(temporary / verify.CERTIFICATE, {"sha256_by_file": hashes(temporary)})
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)


def intact(folder: Path) -> bool:
    """Whether the weights in a folder that `save` wrote are as it wrote them; one line is logged if they are not."""
    if not folder.is_dir():
        return False
    written, there = read_json(folder / verify.CERTIFICATE, {}).get("sha256_by_file"), hashes(folder)
    wrong = sorted(name for name in {*(written or there), *there} if (written or {}).get(name) != there.get(name))
    if wrong:
        log.warning("%s is not as it was written; the model is pruned again", folder / wrong[0])
    return not wrong


def hashes(folder: Path) -> dict[str, str]:
    """The sha256 of every file of weights."""
    return {file.name: digest(file) for file in sorted(folder.glob("*.safetensors"))}


def certify(folder: Path, manifest: dict[str, Any], results: dict[str, Any]) -> None:
    """Put into the folder what was done to the model: the run's manifest, its metrics, sparsity and mask by matrix.

    Sparsities and masks are read from the saved weights, once: a later command must not certify what was changed since.
    """
    place = folder / verify.CERTIFICATE
    earlier = read_json(place, {})
    if "mask_sha256" in earlier:
        found = {name: earlier[name] for name in ("sparsity_by_matrix", "mask_sha256_by_matrix", "mask_sha256")}
    else:
        model = manifest["config"]["model"]
        options = (model["blocks"], model["trust_remote_code"], model.get("routers", False))
        found = certificate(verify.measure(folder, (), *options).matrices)
    found["sha256_by_file"] = earlier.get("sha256_by_file") or hashes(folder)
    write_json(place, manifest | {"status": "done", "metrics": results["metrics"]} | found)
