"""Where a result came from: code, versions, machine."""

import hashlib
import os
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# Variables that change in which order a machine sums, and so last bits alone.
SUMS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "TORCH_BLAS_PREFER_CUBLASLT",
    "DISABLE_ADDMM_CUDA_LT",
)
PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "lm_eval",
    "hydra-core",
    "omegaconf",
    "safetensors",
    "wandb",
    "prodigyopt",
)


def code() -> dict[str, Any]:
    """The commit of this source tree, whether it has uncommitted changes, and a hash of these (null where there are
    none): two states of a tree that is being worked on are two codes. All null where it is no git checkout.
    """
    here = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(
                ["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return answer.stdout.strip()

    commit = git("rev-parse", "HEAD")
    changes = commit and git("status", "--porcelain")
    diff = hashlib.sha256(f"{changes}{git('diff', 'HEAD')}".encode()).hexdigest()[:10] if changes else None
    return {"commit": commit, "dirty": None if commit is None else bool(changes), "diff": diff}


def versions() -> dict[str, str | None]:
    """Python and the packages that can change a number; null for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def since(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What a run is made of and is another now, a phrase each; both are manifests, and nothing changed gives none.

    A run that an earlier version of this project made does not say what it was made of.
    """
    if "content" not in before:
        return ["it does not tell which code made it"]
    pairs = leaves(before["content"]), leaves(now["content"])
    apart = {name for name in pairs[0] | pairs[1] if pairs[0].get(name) != pairs[1].get(name)}
    codes = {name for name in apart if name.rpartition(".")[2] == "code"}
    said = []
    if codes:
        read = [manifest.get("sources", {}) for manifest in (before, now)]
        said.append(
            f"the code has changed since ({', '.join(sorted(dict(set(read[0].items()) ^ set(read[1].items()))))})"
        )
    for name in sorted(apart - codes):
        old, new = (f"{leaf.get(name)!s:.20}" for leaf in pairs)
        said.append(f"{name} was {old}, now {new}")
    return said


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Nested dictionaries as {"a.b": leaf}."""
    if not isinstance(value, dict):
        return {path: value}
    inner = [leaves(part, f"{path}.{name}" if path else name) for name, part in value.items()]
    return {name: leaf for part in inner for name, leaf in part.items()}


def machine(device: str) -> dict[str, Any]:
    """The device a run uses, and what it is."""
    import torch  # noqa: PLC0415 - seconds, which a typing mistake need not wait for

    threads = torch.get_num_threads()
    return {
        "device": device,
        "chip": torch.cuda.get_device_name(device) if device.startswith("cuda") else processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "platform": platform.platform(),
        "environment": sums(),
    }


def sums() -> dict[str, str]:
    """What the environment says of the order of sums."""
    return {name: os.environ[name] for name in SUMS if name in os.environ}


def processor() -> str:
    """What the CPU calls itself; Python knows its architecture alone on Linux."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
