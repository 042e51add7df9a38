"""A run of a model larger than its memory: the peak of its process, beside one that only imports the same modules.

python -m tests.streaming --gigabytes 8
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter, sleep

import torch
from safetensors.torch import save_file

from experiments.benchmarking.costs import LLAMA
from experiments.files.disk import write_json
from experiments.models.skeleton import skeleton

# Llama 3.2 3B's widths, without shared heads: 113 M weights in a block.
SHAPE = {"hidden_size": 3072, "intermediate_size": 8192, "num_attention_heads": 24, "vocab_size": 32000}
SEQUENCES, LENGTH = 8, 128
IMPORTS = "import experiments.running.pipeline, experiments.evals.perplexity; from transformers import LlamaForCausalLM"


def main() -> None:
    """Prints bytes of the checkpoint, and peaks and metrics of the runs."""
    parser = argparse.ArgumentParser(prog="python -m tests.streaming", description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=8.0, help="of the checkpoint, in bfloat16 (default 8)")
    parser.add_argument("--methods", default="wanda,sparsegpt", metavar="X,Y", help="experiments of conf/experiment")
    parser.add_argument("--to", type=Path, default=Path("outputs/streaming"), help="folder for checkpoint and runs")
    parser.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="further overrides of experiments.run")
    options = parser.parse_args()
    folder = options.to.resolve() / "checkpoint"
    if not (folder / "model.safetensors.index.json").exists():
        make_checkpoint(folder, options.gigabytes)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    base = timed([sys.executable, "-c", IMPORTS])["peak"]
    for method in options.methods.split(","):
        outputs = options.to / method
        cost = timed([sys.executable, "-m", "experiments.run", *overrides(method, folder, outputs), *options.settings])
        metrics = json.loads(next(outputs.glob("*/*/results.json")).read_text())["metrics"]
        print(f"{method}: {size / 1e9:.2f} GB checkpoint, {cost['seconds']:.0f} s, peak {cost['peak'] / 1e9:.2f} GB,")
        print(f"  {(cost['peak'] - base) / 1e9:.2f} GB beyond the interpreter's {base / 1e9:.2f} GB; {metrics}")


def overrides(method: str, folder: Path, outputs: Path) -> list[str]:
    """A run that prunes, evaluates, audits and saves the checkpoint in this folder."""
    tokens = folder.with_name("tokens.safetensors")
    lines = [f"experiment={method}", "model=local", f"model.path={folder}", "data=tokens", f"data.path={tokens}"]
    lines += [
        f"eval.perplexity.path={tokens}",
        "eval=[perplexity,audit]",
        "save_model=true",
        "batch=1",
        "model.compute=dtype",
    ]
    return [*lines, f"outputs={outputs}"]


def make_checkpoint(folder: Path, gigabytes: float) -> None:
    """A random bfloat16 Llama of about this size, a file per block, written block by block."""
    block = 4 * SHAPE["hidden_size"] ** 2 + 3 * SHAPE["hidden_size"] * SHAPE["intermediate_size"]
    depth = max(1, round((gigabytes * 1e9 / 2 - 2 * SHAPE["hidden_size"] * SHAPE["vocab_size"]) / block))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", LLAMA | SHAPE | {"num_hidden_layers": depth, "dtype": "bfloat16"})
    sizes = {name: tensor.shape for name, tensor in skeleton(str(folder), None, None, False).state_dict().items()}
    generator, held = torch.Generator().manual_seed(0), dict[str, str]()
    for part in [f"model.layers.{k}." for k in range(depth)] + [""]:
        names = [name for name in sizes if name not in held and name.startswith(part)]
        file = f"model-{len(set(held.values())) + 1:05}-of-{depth + 1:05}.safetensors"
        draw = lambda size: torch.ones(size) if len(size) == 1 else torch.randn(size, generator=generator) * 0.02
        save_file({name: draw(sizes[name]).bfloat16() for name in names}, folder / file, metadata={"format": "pt"})
        held |= dict.fromkeys(names, file)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": held})
    tokens = torch.randint(SHAPE["vocab_size"], (SEQUENCES, LENGTH), generator=generator)
    save_file({"tokens": tokens}, folder.with_name("tokens.safetensors"))


def timed(command: Sequence[str]) -> dict[str, float]:
    """Seconds and peak resident bytes of a process; ChildProcessError if it fails.

    Linux's own peak is asked for again and again: rusage would count what this process held when it forked.
    """
    start, peak = perf_counter(), 0
    process = subprocess.Popen(command)
    while process.poll() is None:
        with suppress(OSError, IndexError):
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max(peak, 1024 * int(status.split("VmHWM:")[1].split()[0]))
        sleep(0.05)
    if process.returncode:
        raise ChildProcessError(f"{' '.join(command)}: exit {process.returncode}")
    return {"seconds": perf_counter() - start, "peak": peak}


if __name__ == "__main__":
    main()
