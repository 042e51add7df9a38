"""The catalogue of bad inputs and faults: what one is and how it is tried; `python -m tests.faults` lists them."""

import atexit
import functools
import importlib
import io
import json
import logging
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Container
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

PARTS = ("command", "settings", "data", "evals", "disk", "stored", "numbers")  # tests/test_faults_<part>.py
SECONDS = 5  # of this process in which a fault that needs no model must be told, however busy the machine is
VOCABULARY = 4096


@dataclass(frozen=True)
class Fault:
    """One bad input or fault, and what must come of it.

    arguments: of the command; may name {here}, a folder of its own, {model} and {tokens}. words: a pattern that the
    line which tells of it matches ("": no line is needed). code: 2 nothing was begun, 1 the run failed, 0 it was
    survived. prepare: makes the fault in the folder, whose out/ holds a finished run, and returns what undoes it, if
    that is needed.
    """

    sentence: str
    arguments: str
    words: str
    code: int = 2
    prepare: Callable[[Path], object] | None = None


@dataclass(frozen=True)
class Answer:
    """What a command line came to."""

    code: int
    out: str
    err: str
    seconds: float


def ask(*arguments: str) -> Answer:
    """`python -m experiments.run` with these arguments, in this process, as if it were a new one."""
    from hydra.core.global_hydra import GlobalHydra  # noqa: PLC0415 - the list is printed without

    from experiments import run  # noqa: PLC0415

    GlobalHydra.instance().clear()
    out, err, before, start = io.StringIO(), io.StringIO(), sys.argv, time.process_time()
    handlers, level = logging.root.handlers[:], logging.root.level
    try:
        sys.argv, logging.root.handlers[:] = ["experiments/run.py", *arguments], []
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = run.main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.argv, logging.root.handlers[:], logging.root.level = before, handlers, level
    return Answer(code, out.getvalue(), err.getvalue(), time.process_time() - start)


@functools.cache
def workplace() -> Path:
    """A random Llama with a real tokenizer in model/, 8 windows of 32 tokens, and a finished run of it in out/."""
    import torch  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    from experiments.models import location  # noqa: PLC0415
    from tests import tiny  # noqa: PLC0415

    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    tiny.network(vocab_size=VOCABULARY).model.save_pretrained(folder / "model")
    for file in Path(location.located("demo") or "").glob("tokenizer*"):
        shutil.copy(file, folder / "model")
    tokens = torch.randint(1, VOCABULARY, (8, 32), generator=torch.Generator().manual_seed(0))
    save_file({"tokens": tokens}, folder / "tokens.safetensors")
    answer = ask(*settings("experiment=magnitude save_model=true", folder))
    assert answer.code == 0, answer.err
    return folder


def settings(arguments: str, here: Path, place: Path | None = None) -> list[str]:
    """The words of a command: the tiny model and tokens of `place`, unless the arguments say otherwise."""
    place = place or here
    usual = {"model": "local", "model.path": place / "model", "model.dtype": "float32", "device": "cpu"}
    usual |= {"data": "tokens", "data.path": place / "tokens.safetensors", "outputs": here / "out"}
    usual |= {"eval.perplexity.path": place / "tokens.safetensors"}
    named = {"here": here, "model": place / "model", "tokens": place / "tokens.safetensors"}
    words = [re.sub(r"\{(here|model|tokens)\}", lambda m: str(named[m[1]]), word) for word in shlex.split(arguments)]
    chosen = {word.split("=")[0].lstrip("+~") for word in words}
    # An option that is chosen brings its own settings.
    others = tuple(f"{group}." for group in ("data", "eval", "model") if group in chosen)
    kept = [f"{name}={value}" for name, value in usual.items() if name not in chosen and not name.startswith(others)]
    return kept + words


def results(here: Path) -> dict[str, object]:
    """What must not be lost: numbers, layers, masks and weights of the run that was finished before."""
    from safetensors.numpy import load_file  # noqa: PLC0415

    (run,) = (here / "out" / "model").glob("magnitude-unstructured-0.5-*")
    told = json.loads((run / "results.json").read_text())
    told = told.get("value", told)
    facts = {name: told[name] for name in ("metrics", "dense", "protocol", "layers")}
    files = [*run.glob("masks/*.safetensors"), *run.glob("model/*.safetensors")]
    status = json.loads((run / "manifest.json").read_text())["status"]
    tensors = {str(f.relative_to(run)): {name: t.tobytes() for name, t in load_file(f).items()} for f in files}
    return facts | {"status": status, "tensors": tensors}


def check(fault: Fault, here: Path) -> None:
    """Try the fault: one clear line, the right exit code, in time, and the finished run as it was."""
    place = workplace()
    shutil.copytree(place / "out", here / "out")
    undo = fault.prepare(here) if fault.prepare else None
    try:
        answer = ask(*settings(fault.arguments, here, place))
    finally:
        if callable(undo):
            undo()
    said = [line for line in answer.err.splitlines() if line.strip()]
    assert "Traceback" not in answer.err + answer.out, answer.err
    assert answer.code == fault.code, (answer.code, answer.err)
    prefix = {2: "error: ", 1: "failed: ", 0: ""}[fault.code]
    lines = said if fault.code else [*said, *answer.out.splitlines()]  # what was survived is noted under the table
    assert any(line.startswith(prefix) and re.search(fault.words, line) for line in lines), answer.err + answer.out
    if fault.code:
        assert len([line for line in said if line.startswith(("error: ", "failed: "))]) == 1, answer.err
    if fault.code == 2:
        assert len(said) == 1 and answer.seconds < SECONDS, (answer.seconds, answer.err)
    assert results(here) == results(place), "something of the finished run is lost"


def cases(faults: list[Fault], often: Container[str] = ()) -> list[object]:
    """What pytest is to try, one by one: by default what loads no model (exit code 2), and the sentences of `often`."""
    import pytest  # noqa: PLC0415 - the list is printed without

    late = lambda fault: [pytest.mark.slow] if fault.code != 2 and fault.sentence not in often else []
    return [pytest.param(fault, id=fault.sentence.replace(" ", "_"), marks=late(fault)) for fault in faults]


def catalogue() -> list[tuple[str, Fault]]:
    """All faults, each with the part it belongs to."""
    return [(part, f) for part in PARTS for f in importlib.import_module(f"tests.test_faults_{part}").FAULTS]


if __name__ == "__main__":
    found = catalogue()
    for number, (part, fault) in enumerate(found, 1):
        print(f"{number:4}  {part:10} exit {fault.code}  {fault.sentence}")
    counts = [f"{sum(other == part for other, _ in found)} {part}" for part in PARTS]
    print(f"{len(found)} bad inputs and faults: {', '.join(counts)}")
