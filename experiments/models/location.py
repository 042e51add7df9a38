"""The folder that a model lies in: found, downloaded from the hub, and told from others by its content.

Without torch: the name of a run must not wait for it.
"""

import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from experiments.files.disk import digest

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
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    folder = located(path)
    if folder is not None:
        return folder
    return Path(snapshot_download(path, revision=revision, allow_patterns=NEEDED, ignore_patterns=["*/*", "conso*"]))


def companions(folder: Path) -> list[Path]:
    """What belongs to a model beside its weights and config.json: tokenizer, processor, generation settings, code."""
    kinds = [*BESIDE, "additional_chat_templates/*.jinja"]
    found = {file for kind in kinds for file in folder.glob(kind) if file.is_file()}
    return sorted(file for file in found if not any(file.match(kind) for kind in LEFT))


def located(path: str) -> Path | None:
    """The folder that `path` means; None for a hub id, owner/name. FileNotFoundError for anything else."""
    folder = Path(__file__).parents[1] / "demo" / "model" if path == "demo" else Path(path)
    if folder.is_dir():
        return folder
    if re.fullmatch(r"\w[\w.-]*/[\w.-]+", path):
        return None
    raise FileNotFoundError(f"model.path={path}: no such folder; give a model's folder or a hub id, owner/name")


def fingerprint(path: str, revision: str | None, keep: Path | None = None) -> str:
    """What a model is, as text: id and revision of a hub model, a sha256 over the names and contents of its `files`.

    The hashes of large files are kept in the folder `keep`. A file that may not be read counts with its size and time.
    """
    folder = located(path)
    if folder is None:
        return f"{path}@{revision or 'main'}"
    found = files(folder)
    with ThreadPoolExecutor(8) as pool:
        content = pool.map(partial(_content, keep=keep), found)
        lines = [f"{file.relative_to(folder)}\0{told}\n" for file, told in zip(found, content, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def files(folder: Path) -> list[Path]:
    """The files of a model's folder that loading it could read, also where its index has them in folders below."""
    found = {file for file in folder.iterdir() if not any(fnmatch(file.name, kind) for kind in UNREAD)}
    found |= {*folder.glob("additional_chat_templates/*.jinja")}
    for index in folder.glob("*.index*.json"):
        with suppress(OSError, ValueError, AttributeError, TypeError, KeyError, RecursionError):
            found |= {folder / name for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    return sorted(file for file in found if file.is_file())


def _content(file: Path, keep: Path | None) -> str:
    try:
        return digest(file, keep)
    except OSError:
        status = file.stat()
        return f"unreadable {status.st_size} {status.st_mtime_ns}"
