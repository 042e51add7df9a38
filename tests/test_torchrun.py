"""torchrun starts a run on two ranks: the masks and numbers of one process, one voice, one reason for a failure."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments.runs.stores import load_masks

ROOT = Path(__file__).parents[1]
TREE = {"cwd": ROOT, "env": os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}}
SMALL = ["model.dtype=float32", "data.sequences=16", "data.length=64", "batch=2", "eval=[perplexity,audit]"]
DIES = """
import os, signal, sys
from experiments import run
from prune.block import Block
advance = Block.advance
def dying(self):
    if self.path.endswith(".1") and os.environ["RANK"] == "1" and self.calls.whole:
        if os.environ["HOW"] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise MemoryError("no room")
    return advance(self)
Block.advance = dying
sys.exit(run.main())
"""


def start(*command, how=""):
    asked = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", *map(str, command)]
    environment = TREE["env"] | {"HOW": how}
    return subprocess.run(asked, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)


def found(outputs):
    """The manifest, the results and all masks of the only run."""
    (folder,) = (path.parent for path in outputs.glob("*/*/manifest.json"))
    told = [json.loads((folder / f"{name}.json").read_text()) for name in ("manifest", "results")]
    files = sorted((folder / "masks").glob("*.safetensors"))
    return *told, {f"{file.stem} {name}": mask for file in files for name, mask in load_masks(file).items()}


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["gblm", "sparsegpt"])
def test_a_run_on_two_ranks_is_the_run_on_one(tmp_path, experiment):
    asked = [f"experiment={experiment}", *SMALL, "eval.perplexity.length=64"]
    alone = [sys.executable, "-m", "experiments.run", *asked, f"outputs={tmp_path}/one"]
    subprocess.run(alone, check=True, capture_output=True, **TREE)
    ended = start("-m", "experiments.run", *asked, f"outputs={tmp_path}/two")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("made of model ") == 1, "the first rank alone speaks"
    one, two = found(tmp_path / "one"), found(tmp_path / "two")
    assert (one[0]["ranks"], two[0]["ranks"]) == (1, 2)
    assert one[0]["identity"] == two[0]["identity"]
    assert all(torch.equal(mask, two[2][name]) for name, mask in one[2].items())
    assert two[1]["metrics"] == pytest.approx(one[1]["metrics"], rel=1e-5)
    assert [b["error"] for b in two[1]["blocks"]] == pytest.approx([b["error"] for b in one[1]["blocks"]], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "said"),
    [("failed", "failed: rank 1: out of memory: MemoryError: no room"), ("killed", "failed: another rank is gone")],
)
def test_a_rank_that_ends_stops_the_run_with_one_line_and_one_process_goes_on(tmp_path, how, said):
    (tmp_path / "dies.py").write_text(DIES)
    asked = ["experiment=wanda", *SMALL, "eval=[audit]", f"outputs={tmp_path}/outputs"]
    ended = start(tmp_path / "dies.py", *asked, how=how)
    assert ended.returncode == 1
    assert [line[: len(said)] for line in ended.stderr.splitlines() if line.startswith("failed")] == [said]
    (manifest,) = (tmp_path / "outputs").glob("*/*/manifest.json")
    told = json.loads(manifest.read_text())
    assert told["status"] == "failed"
    assert told["error"].startswith(said.removeprefix("failed: "))
    assert len(list((manifest.parent / "blocks").glob("*"))) == 1, "what was solved before is kept"
    subprocess.run([sys.executable, "-m", "experiments.run", *asked], check=True, capture_output=True, **TREE)
    assert json.loads(manifest.read_text())["status"] == "done"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["experiment=besa"], "error: BESA runs blocks sequence by sequence"),
        (["-m", "experiment=wanda,magnitude"], "error: torchrun starts one run on several ranks"),
    ],
)
def test_what_ranks_cannot_share_is_refused_in_one_line(tmp_path, asked, said):
    ended = start("-m", "experiments.run", *asked, f"outputs={tmp_path}/outputs")
    assert [line[: len(said)] for line in ended.stderr.splitlines() if line.startswith("error")] == [said]
    assert not (tmp_path / "outputs").exists()
