"""One run in a process of its own, which dies when it is told to; and what a failing disk does to what it wrote."""

import os
import random
import select
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.running import pipeline
from experiments.runs.folder import Run
from experiments.summary import rows

LIMIT = 300.0  # seconds, after which an attempt counts as hung
STORED = ("masks/*.safetensors", "blocks/*.safetensors", "steps/**/*.json", "results.json")
Command = tuple[dict[str, Any], Any]  # a run's configuration and Names


def attempt(asked: Command, log: Path, delay: float = LIMIT, at_rename: int | None = None, before: bool = True) -> int:
    """Do the run in a child; its exit code, or minus the signal that ended it: at `delay`, or at that rename."""
    child = os.fork()
    if child == 0:
        live(asked, log, at_rename, before)
    handle = os.pidfd_open(child)
    try:
        if not select.select([handle], [], [], delay)[0]:
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(handle)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def live(asked: Command, log: Path, at_rename: int | None, before: bool) -> None:
    """The child: the run as the command line does it, with what it says in a log. Does not return."""
    code = 1
    try:
        with log.open("ab", 0) as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        renamed = count_renames(at_rename, before)
        print(rows.single(pipeline.run(Run.open(*asked)).folder))
        log.with_suffix(".renames").write_text(str(len(renamed)))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def count_renames(deadly: int | None, before: bool) -> list[None]:
    """Count this process's renames from here on; at the one of this number it kills itself, before it or after it."""
    seen: list[None] = []

    def watched(rename: Callable[..., None]) -> Callable[..., None]:
        def act(*arguments: Any, **options: Any) -> None:
            seen.append(None)
            if len(seen) == deadly and before:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(*arguments, **options)
            if len(seen) == deadly:
                os.kill(os.getpid(), signal.SIGKILL)

        return act

    os.replace, os.rename = watched(os.replace), watched(os.rename)
    return seen


def damage(outputs: Path, generator: random.Random) -> bool:
    """Cut a stored file in half, or turn a bit of it; whether there was one."""
    runs = [path.parent for path in outputs.glob("*/*/manifest.json")]
    files = sorted(file for run in runs for pattern in STORED for file in run.glob(pattern))
    files += sorted(file for file in outputs.glob("cache/**/*") if file.suffix in (".json", ".safetensors"))
    if files:
        file = generator.choice(files)
        content = bytearray(file.read_bytes())
        if generator.random() < 0.5:
            del content[len(content) // 2 :]
        else:
            content[generator.randrange(len(content))] ^= 1
        file.write_bytes(content)
    return bool(files)
