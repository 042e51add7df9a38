"""Under torchrun: the ranks meet, the first one speaks, and one that fails stops the others with its reason."""

import io
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout

from prune import ranks


def together(command: Callable[[], int]) -> int:
    """The exit code of a command that every rank runs; of the command itself where there is one process."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "LOCAL_RANK" not in os.environ:
        return command()
    import torch  # noqa: PLC0415 - seconds, which --help of one process need not wait for

    with ranks.meet(apart=torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])):
        return command() if ranks.first() else quietly(command)


def quietly(command: Callable[[], int]) -> int:
    """The exit code. The last line that was said is the reason of a failure, for the first rank to say."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said:
        code = command()
    if code:
        reason = next((line for line in reversed(said.getvalue().splitlines()) if line.strip()), f"exit code {code}")
        mine = ranks.rank()
        if not ranks.fail(reason.removeprefix("failed: ").removeprefix("error: ")):
            print(f"rank {mine}: {reason}", file=sys.stderr)
    return code


def gpu() -> str:
    """The GPU of this process: the first one, and of several ranks on a machine each its own."""
    import torch  # noqa: PLC0415

    return "cuda" if ranks.world() == 1 else f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
