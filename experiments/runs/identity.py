"""Names a computation by what determines its result, so that the same command finds its own folder again.

The rule. Of a run count, with every parameter: model, data, pattern, metric, allocator, update, quantizer, granularity,
propagate, batch and seed; the identity of the run whose masks are given; the code of all these and of the library, by
content (`sources`); the versions of torch and transformers, without a build's suffix (+cpu), and those in `VERSIONS`
of what a run uses; and the environment's word on precision (`PRECISION`). A class counts by its name and its code, not
by the module it lies in. A file counts with its content and the suffix by which it is read, not its place; 100 is
100.0; `dtype=auto` is the dtype that the checkpoint's config.json names, and `compute` counts where it is another. The
name is a hash of `content`, which a run's manifest keeps.

What cannot change the weights does not count: eval, tracker, device, outputs, scratch, activations, sweep, save_model.
Whether another setting has an effect beside this method
(a seed where nothing is drawn) is not asked: evaluations read the same data and seed, and a run too many is no wrong
one. Code that only tells, draws, logs or measures does not count; an evaluation's own counts for its numbers. What
moves last bits alone, such as the number of threads, is noted in the manifest. Calibration windows that come out
otherwise under the same settings (a hub's main branch moved) are noticed by their hash, see Run.settle.
"""

import hashlib
import json
import os
import platform
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from experiments.files.disk import digest
from experiments.models import location
from experiments.runs import sources
from experiments.runs.tasks import COMPLETE, STDLIB, by_task, reads

PARTS = ("model", "data", "pattern", "metric", "allocator", "update", "quantizer")
PARTS = (*PARTS, "granularity", "propagate", "batch", "seed")
CORRECTION = "prune.correction.Correction"
LATER = ("then", "correction")  # what runs may do without, as all of earlier versions do
# What a text is calibrated with, and not evaluated.
DRAWN = ("images", "seed")  # the same of images, which may be held out of one path
CALIBRATION = ("sequences", "length", "seed", "path", "train_file", "train_join")
# What the numbers of these classes depend on, beside torch and transformers.
VERSIONS = {
    "BESA": "prodigyopt",  # its optimizer
    "Zeroshot": "lm_eval",  # its tasks
    "Generation": "lm_eval",
    "Stdlib": "python",  # its text: the documentation of this Python
    "Digits": "scikit-learn",  # its images
    "ImageFiles": "pillow",  # which decodes and resizes
    "HubImages": "pillow",
}
PACKED = (".gz", ".zst", ".xz", ".bz2")  # suffixes behind which stands another one
# What makes weights of all parts: the walk over the blocks, and the store of blocks that are solved or given.
LIBRARY = ("prune.prune.prune", "experiments.runs.stores.BlockStore")
# Variables that make products coarser or finer than the configuration says.
PRECISION = (
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "CUBLAS_EMULATE_SINGLE_PRECISION",
    "CUBLAS_EMULATE_DOUBLE_PRECISION",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
)
FILES = ("path", "evaluation_path", "files")  # settings that may name a file or a folder


def fingerprint(content: Any) -> str:
    """Ten hexadecimal digits that stand for a JSON value; 100 and 100.0 are the same number."""
    return hashlib.sha256(json.dumps(_number(content), sort_keys=True).encode()).hexdigest()[:10]


def _number(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _number(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_number(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def deciding(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a configuration that decide the weights, `given` aside; of `LATER` those that say something."""
    later = {name: config[name] for name in LATER if config.get(name)}
    return {part: config[part] for part in PARTS if part in config} | later


def identity(config: dict[str, Any]) -> str:
    """The identity of a run with this resolved configuration."""
    return fingerprint(content(config))


def content(config: dict[str, Any]) -> dict[str, Any]:
    """All that the identity of a run with this resolved configuration is made of."""
    parts = {part: model(config) if part == "model" else by_content(config[part]) for part in PARTS}
    if following := config.get("then"):
        parts["then"] = by_content(following)
        parts |= {"order": list(following)} if len(following) > 1 else {}
    if config.get("correction"):
        parts["correction"] = {"alpha": config["correction"], "code": sources.code(CORRECTION)}
    if given := config.get("given"):
        parts["given"] = content(given["config"])
    return parts | {"code": sources.code(*LIBRARY)} | circumstances()


def evaluation(name: str, settings: dict[str, Any]) -> str:
    """The name of what an evaluation finds in a run's model: its own, and all else that this depends on."""
    return f"{name}-{fingerprint(_evaluation(settings))}"


def dense(config: dict[str, Any], name: str, settings: dict[str, Any] | None = None) -> str:
    """The name of what an evaluation finds in the dense model, which no setting of the calibration changes.

    `settings` are those of one of its tasks, where that is asked.
    """
    settings = dict(settings or config["eval"][name])
    for data, own in (("text", CALIBRATION), ("data", DRAWN)):
        if data in settings or data == "text":
            settings[data] = {key: value for key, value in (settings.get(data) or {}).items() if key not in own}
    return f"{name}-{fingerprint([model(config), config['batch'], _evaluation(settings), circumstances()])}"


def _evaluation(settings: dict[str, Any]) -> list[Any]:
    """Settings and files, and the name of the file that the metrics bear. Where there is a `path`, no text is read."""
    read = read_by(settings)
    if by_task(settings):
        read["files"] = _of_tasks(settings)
        if {STDLIB, COMPLETE} & set(settings["tasks"]):
            read["python"] = release("python")  # its text is that of data=stdlib
    return [by_content(read), Path(settings.get("path") or "").name]


def read_by(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that an evaluation goes by: where it has a `path`, its `text` is not read."""
    return {name: part for name, part in settings.items() if name != "text" or not settings.get("path")}


def _of_tasks(settings: dict[str, Any]) -> dict[str, str] | None:
    """The sha256 of each file that one of the tasks may read: no other file of the folder is read."""
    folder = Path(settings.get("files") or "")
    if not settings.get("files") or not folder.is_dir():
        return None
    named = [file for file in sorted(folder.iterdir()) if _named(file.name, settings["tasks"])]
    return {file.name: digest(file) for file in named}


def _named(file: str, tasks: list[str]) -> bool:
    return any(reads(task, file.partition(".")[0]) for task in tasks)


def survey(config: dict[str, Any], tokens: str | None, statistic: Any) -> str:
    """The identity of a statistic of the dense model over calibration windows with this sha256."""
    made = sources.code(name_of(type(statistic)), *LIBRARY)
    return fingerprint([model(config), config["batch"], tokens, repr(statistic), made, circumstances()])


def name_of(kind: type) -> str:
    """The full name of a class, as a configuration has it."""
    return f"{kind.__module__}.{kind.__qualname__}"


def modules(config: dict[str, Any]) -> dict[str, str]:
    """Every module whose code decides the weights of a run, with ten digits of its content."""
    named = targets([config.get(part) for part in (*PARTS, *LATER, "given")])
    return sources.modules(*named, *([CORRECTION] if config.get("correction") else []), *LIBRARY)


def targets(config: Any) -> list[str]:
    """The classes and functions that a configuration names, by full name."""
    if isinstance(config, dict):
        own = [config["_target_"]] if "_target_" in config else []
        return own + targets(list(config.values()))
    if isinstance(config, list):
        return [target for part in config for target in targets(part)]
    return []


def circumstances() -> dict[str, Any]:
    """What every number depends on beside settings and files: libraries, and a word on precision where one is set."""
    libraries = {package: release(package) for package in ("torch", "transformers")}
    if precision := {name: os.environ[name] for name in PRECISION if name in os.environ}:
        return {"libraries": libraries, "environment": precision}
    return {"libraries": libraries}


@cache
def installed(package: str) -> str | None:
    """The version of a package, or of Python; None where it is not there."""
    try:
        return platform.python_version() if package == "python" else version(package)
    except PackageNotFoundError:
        return None


def release(package: str) -> str | None:
    """The version of a package, or of Python, without its build's suffix; None where it is not there."""
    number = installed(package)
    return number and number.partition("+")[0]


def model(config: dict[str, Any]) -> dict[str, Any]:
    """The model's settings with its content in place of its path (the path itself where there is nothing).

    OSError for a file of it that may not be read, without which nobody knows what the model is.
    """
    settings = {name: value for name, value in by_code(config["model"]).items() if name not in ("device", "revision")}
    path, settings["dtype"] = config["model"]["path"], dtype(config["model"])
    if settings.get("compute") in (None, "auto", "dtype", settings["dtype"]):
        settings.pop("compute", None)  # in the dtype of the weights
    try:
        return settings | {"path": location.fingerprint(path, config["model"]["revision"], kept_in(config))}
    except FileNotFoundError:
        return settings | {"path": f"missing {path}"}


def dtype(model: dict[str, Any]) -> str | None:
    """The dtype of a model's weights by its settings: for `auto` that of config.json, `auto` where none is there."""
    named = model["dtype"]
    with suppress(OSError, ValueError, AttributeError, RecursionError):  # whoever loads it says what is wrong
        if named in (None, "auto") and (folder := location.located(model["path"])):
            stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            return stored.get("dtype") or stored.get("torch_dtype") or "auto"
    return named


def kept_in(config: dict[str, Any]) -> Path:
    """The folder that keeps the hashes of large files, for all runs of these outputs."""
    return Path(config["outputs"]) / "cache" / "digests"


def by_content(config: Any) -> Any:
    """The configuration with the sha256 of each file or folder that a setting names, and its suffix, for its path.

    A component is its own name and its code; where its numbers depend on the version of a package, that too.
    """
    if isinstance(config, list):
        return [by_content(value) for value in config]
    if not isinstance(config, dict):
        return config
    settings = by_code(config)
    for name, value in settings.items():
        if name in FILES and isinstance(value, str) and Path(value).exists():
            settings[name] = _file(Path(value))
        else:
            settings[name] = by_content(value)
    return settings


def by_code(config: dict[str, Any]) -> dict[str, Any]:
    """A copy of a component's settings with its class's own name and code in place of where that lies."""
    if "_target_" not in config:
        return dict(config)
    name = config["_target_"].rpartition(".")[2]
    component = config | {"_target_": name, "code": sources.code(config["_target_"])}
    if name in VERSIONS:
        component["version"] = release(VERSIONS[name])
    return component


def _file(path: Path) -> str:
    """A file by its content, and by its suffix: the same bytes are one text as .txt and many as .jsonl."""
    kind = "".join(path.suffixes[-2:]) if path.suffix in PACKED else path.suffix
    return digest(path) + ("" if path.is_dir() else kind)
