"""In which dtype a run computes, settled when it is composed, so that its name and its record say it.

A CPU takes several times as long in float16 as in float32, and some do in bfloat16. So a model whose weights are half
precision computes in float32 on every CPU, unless the command line says otherwise; its weights stay what its own dtype
can hold.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.composing.overrides import name_of
from experiments.runs import identity, machine

SETTING = "model.compute"
GPUS = {"submitit_slurm": "hydra.launcher.gpus_per_node", "ray": "hydra.launcher.ray.remote.num_gpus"}


def settle_compute(config: dict[str, Any], overrides: Sequence[str], launcher: str | None) -> str | None:
    """Puts model.compute in its place, in the run that this one builds on as well: float32 where the weights are of
    another dtype, else it is left out.

    Returns what `auto` stands for, for those who compose the run elsewhere; None where it is not asked. ValueError for
    what it cannot be.
    """
    model = config["model"]
    named = compute = model.pop("compute", "dtype")
    if compute not in ("auto", "float32", "dtype"):
        raise ValueError(f"{SETTING}={compute}: expected auto, float32 or dtype (as model.dtype says)")
    if compute == "auto":
        typed = "model.dtype" in map(name_of, overrides)
        compute = "float32" if not typed and on_cpu(config["device"], overrides, launcher) else "dtype"
    if compute == "float32" and identity.dtype(model) != "float32":
        model["compute"] = "float32"
    if config.get("given"):
        settle_compute(config["given"]["config"], overrides, launcher)
    return compute if named == "auto" else None


def on_cpu(device: str, overrides: Sequence[str], launcher: str | None) -> bool:
    """Whether a run with this device= is going to compute on a CPU, wherever its launcher puts it."""
    if device != "auto":
        return not device.startswith("cuda")
    typed: Mapping[str, str] = {name_of(line): line.partition("=")[2] for line in overrides}
    gpus = typed.get(GPUS.get(launcher or "", ""))
    if gpus in (None, "null"):
        return launcher != "submitit_slurm" and not machine.gpu()
    return gpus == "0"
