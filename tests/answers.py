"""What a user's command answers in a folder where much was run before, beside what it answers in an empty one."""

import json
import shutil
from pathlib import Path

from tests.faults import ask, settings, workplace


def place(tmp_path: Path) -> Path:
    """The tiny model and tokens of `tests.faults`, in a folder of its own, without any run."""
    for name in ("model", "tokens.safetensors"):
        source = workplace() / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    return tmp_path


def answer(words: str, here: Path, outputs: str = "out") -> tuple[dict, str]:
    """The results of the run that these words ask for, and all that was said; it must end well."""
    found = ask(*settings(f"{words} outputs={here / outputs}", here))
    assert found.code == 0, found.err
    return json.loads((run(found.out) / "results.json").read_text()), found.out + found.err


def run(out: str) -> Path:
    """The folder of the run that a command printed last."""
    return next(Path(line) for line in reversed(out.splitlines()) if line and Path(line).is_dir())


def write(path: Path, text: str) -> Path:
    """A file with this text, in a folder that is made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
