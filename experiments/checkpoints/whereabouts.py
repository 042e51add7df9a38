"""The folder that a model lies in: found, downloaded from the hub, and told from others by its content.

Without torch: the name of a run must not wait for it.
"""

import hashlib
import re
from pathlib import Path

TOKENIZER = ("tokenizer*", "vocab*", "merges.txt", "spiece.model")  # what a folder keeps its tokenizer in
BESIDE = ["*.json", "*.model", "*.txt", "*.py", "*.jinja", "*.tiktoken", "LICENSE*", "NOTICE*"]  # a model's weights
NEEDED = ["*.safetensors", *BESIDE]  # of a hub model
LEFT = ("config.json", "*.index.json", "*.index.*.json", "pruning_manifest.json", "trainer_state.json")  # not as it was
IDENTIFYING = ("config.json", "adapter_config.json", "*.safetensors", "*.safetensors.index.json", "*.py", *TOKENIZER)
WHOLE = 64 * 2**20  # bytes up to which a file is hashed whole: reading 140 GB to name a run would take minutes


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


def configuration(path: str, revision: str | None) -> Path:
    """The config.json of the model that `path` means, a hub model's after downloading it; OSError without a hub."""
    if (folder := located(path)) is not None:
        return folder / "config.json"
    from huggingface_hub import hf_hub_download  # noqa: PLC0415

    return Path(hf_hub_download(path, "config.json", revision=revision))


def located(path: str) -> Path | None:
    """The folder that `path` means; None for a hub id, owner/name. FileNotFoundError for anything else."""
    folder = Path(__file__).parents[1] / "demo" / "model" if path == "demo" else Path(path)
    if folder.is_dir():
        return folder
    if re.fullmatch(r"\w[\w.-]*/[\w.-]+", path):
        return None
    raise FileNotFoundError(f"model.path={path}: no such folder; give a model's folder or a hub id, owner/name")


def inventory(path: str) -> list[tuple[str, int, int]]:
    """Name, size and time of change of every file in a folder and right below it; [] for a hub model."""
    folder = located(path)
    files = sorted([*folder.glob("*"), *folder.glob("*/*")]) if folder is not None else []
    return [(str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def fingerprint(path: str, revision: str | None) -> str:
    """What a model is, as text: id and revision of a hub model, a sha256 over a folder's config, weights and tokenizer.

    A file above 64 MB counts with its header, size and time of change: touching it is taken for a change, and its bytes
    changed in place with the old time would go unseen.
    """
    folder = located(path)
    if folder is None:
        return f"{path}@{revision or 'main'}"
    digest = hashlib.sha256()
    for file in sorted({file for pattern in IDENTIFYING for file in folder.glob(pattern)}):
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(_content(file)).digest())
    return digest.hexdigest()


def _content(file: Path) -> bytes:
    status = file.stat()
    if status.st_size <= WHOLE:
        return file.read_bytes()
    with file.open("rb") as opened:
        size = opened.read(8)  # a safetensors file opens with the length of its header, which names every tensor
        header = opened.read(min(int.from_bytes(size, "little"), WHOLE))
    return header + f"{status.st_size} {status.st_mtime_ns}".encode()
