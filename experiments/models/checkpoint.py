"""The pruned model as a plain Hugging Face folder: dense safetensors, zeros +0.0, and a pruning_manifest.json; every
other file of the model's folder is as it was.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.files.disk import read_json, write_json
from experiments.models.certificate import measure
from experiments.models.contract import certificate
from experiments.models.location import CERTIFICATE, companions
from experiments.models.saved import hashes
from experiments.models.shards import Memory, Shards, write
from experiments.models.stored import configuration
from prune.decoder import Decoder

GENERATION = "generation_config.json"


def save(decoder: Decoder, folder: Path) -> None:
    """Write `folder` as a whole or not at all; AutoModelForCausalLM.from_pretrained loads it."""
    temporary = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    home, model = decoder.home, decoder.model
    if isinstance(home, Shards):
        write(decoder, home, temporary)
        accompany(home.folder, temporary, model)
    elif isinstance(home, Memory):
        with _plain_generation(model):
            model.save_pretrained(temporary)
        (temporary / GENERATION).unlink(missing_ok=True)
        accompany(home.folder, temporary, model)
    else:
        model.save_pretrained(temporary)
        if decoder.tokenizer is not None:
            decoder.tokenizer.save_pretrained(temporary)
    write_json(temporary / CERTIFICATE, {"sha256_by_file": hashes(temporary)})
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)


def accompany(source: Path, folder: Path, model: Any) -> None:
    """Puts what else lies in the model's folder `source` beside the new weights: settings, tokenizer, processor, code.

    config.json is as it was, but for the dtype; where transformers made a model of a part of it, it is that part's.
    """
    for file in companions(source):
        (folder / file.relative_to(source)).parent.mkdir(exist_ok=True)
        shutil.copy(file, folder / file.relative_to(source))
    config = configuration(source)
    written = configuration(folder) if (folder / "config.json").is_file() else config
    if written.get("model_type") != config.get("model_type"):
        return
    kind = str(model.config.dtype).removeprefix("torch.")
    config.pop("transformers_weights", None)
    for part in (config, config.get("text_config")):
        if isinstance(part, dict) and {"dtype", "torch_dtype"} & part.keys():
            part.pop("torch_dtype", None)
            part["dtype"] = kind
    write_json(folder / "config.json", {"dtype": kind} | config)


@contextmanager
def _plain_generation(model: Any) -> Iterator[None]:
    """Without its generation settings, which transformers may read and yet refuse to write: the file is copied."""
    own = getattr(model, "generation_config", None)
    if own is None:
        yield
        return
    model.generation_config = type(own)()
    try:
        yield
    finally:
        model.generation_config = own


def certify(folder: Path, manifest: dict[str, Any], results: dict[str, Any]) -> None:
    """Put into the folder what was done to the model: the run's manifest, its metrics, sparsity and mask by matrix.

    Sparsities and masks are read from the saved weights, once: a later command must not certify what was changed since.
    """
    place = folder / CERTIFICATE
    earlier, skipped = read_json(place, {}), sorted(results.get("skipped", {}))
    if "mask_sha256" in earlier:
        found = {name: earlier[name] for name in ("sparsity_by_matrix", "mask_sha256_by_matrix", "mask_sha256")}
    else:
        model = manifest["config"]["model"]
        options = (model["blocks"], model["trust_remote_code"], model.get("routers", False), skipped)
        found = certificate(measure(folder, (), *options).matrices)
    found["sha256_by_file"] = earlier.get("sha256_by_file") or hashes(folder)
    found |= {"status": "done", "metrics": results["metrics"], "skipped": skipped}
    write_json(place, manifest | found)
