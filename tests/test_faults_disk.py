"""Places that cannot be written or are full, odd names and links, and clocks that are wrong."""

import functools
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import Fault, cases, check, workplace

KEPT = "experiment=magnitude save_model=true"


def mount(name: str, *options: str) -> Callable[[Path], Callable[[], object]]:
    """A file system of its own in a folder; the test is skipped where this user may not mount one."""

    def prepare(here: Path) -> Callable[[], object]:
        folder = here / name
        folder.mkdir(exist_ok=True)
        words = [word.replace("HERE", str(here)) for word in options]
        if subprocess.run(["mount", *words, str(folder)], capture_output=True).returncode:
            pytest.skip("this user may not mount a file system")
        return functools.partial(subprocess.run, ["umount", "-l", str(folder)])

    return prepare


def file(here: Path) -> None:
    """A file where a folder should be."""
    (here / "file").write_text("x")


def link(here: Path) -> None:
    """Another way to the same outputs."""
    (here / "link").symlink_to(here / "out")


def copied(here: Path) -> None:
    """The model and its tokens in a folder whose name needs care."""
    shutil.copytree(workplace() / "model", here / "mödel, one" / "model")
    shutil.copy(workplace() / "tokens.safetensors", here / "mödel, one" / "t.safetensors")


def future(here: Path) -> None:
    """As if the clock had been put back by ten years since."""
    for path in (here / "out").rglob("*"):
        os.utime(path, (2e9, 2e9))


READONLY = mount("out", "--bind", "-o", "ro", "HERE/out")
FULL = mount("small", "-t", "tmpfs", "-o", "size=200k", "tmpfs")
TINY = mount("small", "-t", "tmpfs", "-o", "size=40k", "tmpfs")
FAULTS = [
    Fault("outputs that are a file", "outputs={here}/file", "outputs.*file", prepare=file),
    Fault("outputs below a file", "outputs={here}/file/out", "outputs.*file", prepare=file),
    Fault("outputs where nothing can be made", "outputs=/proc/out", "outputs.*/proc/out"),
    Fault("a multirun where nothing can be made", "-m seed=1,2 outputs=/proc/out", "outputs.*/proc/out"),
    Fault(
        "outputs on a disk that is only read",
        "outputs={here}/small",
        "outputs.*small.*Read-only.*; choose another",
        prepare=mount("small", "-t", "tmpfs", "-o", "ro", "tmpfs"),
    ),
    Fault("outputs on a full disk", f"outputs={{here}}/small {KEPT}", "the run writes .* are free; free some", 2, FULL),
    Fault("a scratch folder that is not there", "scratch={here}/none", "scratch=.*no such folder; make it, or leave"),
    Fault("a scratch folder that is a file", "scratch={here}/file", "scratch=.*no such folder", prepare=file),
    Fault(
        "a scratch folder that is full",
        "metric=gblm scratch={here}/small",
        "scratch=.*activations for LossGradient .* are free; free some",
        2,
        TINY,
    ),
    Fault("a sweep whose name is too long", "-m seed=1,2 sweep=" + "x" * 300, "at most 60 letters"),
    Fault("a sweep whose name is a path", "-m seed=1,2 sweep=../../x", "at most 60 letters"),
    Fault("outputs under a link", f"{KEPT} outputs={{here}}/link", "done on .*; nothing to compute", 0, link),
    Fault("files from the future", KEPT, "done on .*; nothing to compute", 0, future),
    Fault(
        "blanks, commas and umlauts in every path",
        "eval=[] \"outputs='{here}/ü, x'\" \"model.path='{here}/mödel, one/model'\" "
        "\"data.path='{here}/mödel, one/t.safetensors'\"",
        "",
        0,
        copied,
    ),
]


@pytest.mark.parametrize("fault", cases(FAULTS, ["outputs on a full disk"]))
def test_it_gets_one_line_and_nothing_is_lost(fault, tmp_path):
    check(fault, tmp_path)


@pytest.mark.slow
def test_a_finished_run_on_a_disk_that_is_only_read_is_still_told(tmp_path):
    check(Fault("a finished run that cannot be written", KEPT, "done on .*; nothing", 0, READONLY), tmp_path)
