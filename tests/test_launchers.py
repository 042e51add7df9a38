"""The launchers that several runs at once go through: what their presets say, and real runs by each of them."""

import json
import os
import subprocess
import sys
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hydra import compose
from omegaconf import OmegaConf

from experiments.composing.groups import CONF, composing
from tests.test_run import ROOT, TREE, arguments  # noqa: F401 - one is a fixture

PRESETS = sorted(path.stem for path in (CONF / "hydra" / "launcher").glob("*.yaml"))


def start(*asked, **options):
    line = [sys.executable, "-m", "experiments.run", *map(str, asked)]
    return subprocess.run(line, capture_output=True, text=True, **(TREE | options))


def preset(name: str, *more: str) -> dict:
    with composing():
        asked = [f"hydra/launcher={name}", "sweep=mine", "outputs=here", *more]
        config = compose("config", overrides=asked, return_hydra_config=True)
        return OmegaConf.to_container(config.hydra.launcher, resolve=True)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_explains_each_of_its_settings(name):
    lines = (CONF / "hydra" / "launcher" / f"{name}.yaml").read_text().splitlines()
    assert lines[0].startswith("# ") and f"hydra/launcher={name}" in "".join(lines[:3])
    bare = [line for line in lines if ":" in line and "#" not in line and "_target_" not in line]
    assert bare == [line for line in bare if line.rstrip() == "ray:"], "every setting has a comment"


def test_the_presets_avoid_what_the_plugins_do_by_themselves(recwarn):
    assert preset("joblib")["n_jobs"] == 2, "not one run on each core"
    local, slurm = preset("submitit_local"), preset("submitit_slurm")
    assert local["at_once"] == 1 and local["gpus_per_node"] == 1, "neither all at once nor with hidden GPUs"
    assert local["submitit_folder"] == slurm["submitit_folder"] == "here/multirun/mine", "logs lie with the multirun"
    assert slurm["timeout_min"] > 60 and slurm["max_num_timeout"] > 0, "a long run is queued again"
    assert preset("ray")["ray"]["init"]["object_store_memory"] is None, "address=auto refuses a size"
    assert not recwarn.list, "a preset is not merged with the plugin's own of its name"


def test_slurm_gets_a_script_that_asks_for_a_gpu_and_is_queued_again(tmp_path, monkeypatch):
    """The script is submitit's own, written as its launcher writes it; there is no cluster here."""
    from submitit.slurm import slurm  # noqa: PLC0415

    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    settings = preset("submitit_slurm", "hydra.launcher.partition=gpu", "hydra.launcher.array_parallelism=3")
    from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf  # noqa: PLC0415

    assert set(settings) == set(OmegaConf.structured(SlurmQueueConf)), "every key of the plugin is in the preset"
    folder, limit = settings.pop("submitit_folder"), settings.pop("max_num_timeout")
    from submitit import AutoExecutor  # noqa: PLC0415

    executor = AutoExecutor(folder=tmp_path / folder, cluster="slurm", slurm_max_num_timeout=limit)
    own = (
        "timeout_min",
        "cpus_per_task",
        "gpus_per_node",
        "tasks_per_node",
        "mem_gb",
        "nodes",
        "name",
        "stderr_to_stdout",
    )
    settings.pop("_target_")
    executor.update_parameters(**{name if name in own else f"slurm_{name}": value for name, value in settings.items()})
    inner = executor._executor
    assert isinstance(inner, slurm.SlurmExecutor) and inner.max_num_timeout == 20
    inner.parameters["map_count"] = 24
    script = inner._make_submission_file_text("python -m submitit.core._submit", "id").splitlines()
    wanted = ["--gpus-per-node=1", "--array=0-23%3", "--partition=gpu", "--time=720", "--requeue", "--signal=USR2@300"]
    for flag in [*wanted, "--cpus-per-task=8", "--mem=64GB", "--ntasks-per-node=1", "--nodes=1", "--job-name=prune"]:
        assert f"#SBATCH {flag}" in script, script
    assert not any("None" in line or "null" in line for line in script)


def manifests(outputs: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in outputs.glob("*/*/manifest.json")]


def together(found: list[dict]) -> bool:
    """Whether two runs were at work at the same time."""
    spans = sorted((datetime.fromisoformat(m["started"]), datetime.fromisoformat(m["finished"])) for m in found)
    return any(later[0] < earlier[1] for earlier, later in pairwise(spans))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["joblib", "submitit_local"])
def test_a_multirun_goes_through_processes_of_its_own(arguments, tmp_path, name):  # noqa: F811
    asked = ["-m", "experiment=magnitude,wanda", f"hydra/launcher={name}", f"outputs={tmp_path}", *arguments]
    answer = start(*asked)
    assert answer.returncode == 0 and "2 of 2 runs are done" in answer.stderr, answer.stderr
    found = manifests(tmp_path)
    assert {m["status"] for m in found} == {"done"} and len({m["sweep"] for m in found}) == 1
    assert together(found) == (name == "joblib")
    assert not (ROOT / "multirun.yaml").exists() and not list(tmp_path.glob("**/multirun.yaml"))
    again = start(*asked)
    assert again.returncode == 0 and "2 of 2 runs are done already" in again.stderr and "[1/2]" not in again.stdout


@pytest.fixture
def place():
    """A folder for all that Ray writes; the path of a socket may not be long."""
    pytest.importorskip("ray", reason="needs the extra [ray]: make ray")
    with TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield folder


def ray_environment(folder: str) -> dict:
    """Everything Ray writes goes into a folder of its own."""
    own = {"RAY_TMPDIR": folder, "HOME": folder, "RAY_USAGE_STATS_ENABLED": "0"}
    own |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}  # the nodes know each other by it
    return {"env": TREE["env"] | own}


@pytest.fixture
def cluster(place):
    """A head and a second node of one processor each on this machine, and how to reach them."""
    begin = [str(Path(sys.executable).with_name("ray")), "start", "--num-cpus=1", "--block"]
    nodes = []
    for how in (["--head", "--port=6399", "--include-dashboard=false"], ["--address=127.0.0.1:6399"]):
        node = subprocess.Popen([*begin, *how], stdout=subprocess.PIPE, text=True, cwd=place, **ray_environment(place))
        nodes.append(node)
        assert any("Ray runtime started" in line for line in node.stdout), "the node did not start"
    yield ray_environment(place)
    for node in reversed(nodes):
        node.terminate()
        node.wait()


@pytest.mark.slow
def test_ray_runs_on_two_nodes_of_a_cluster(arguments, tmp_path, cluster):  # noqa: F811
    asked = ["-m", "experiment=magnitude,wanda", "hydra/launcher=ray", "hydra.launcher.ray.init.address=auto"]
    answer = start(*asked, f"outputs={tmp_path}", *arguments, **cluster)
    assert answer.returncode == 0 and "2 of 2 runs are done" in answer.stderr, answer.stderr
    assert together(manifests(tmp_path)), "each node has one processor, so two at once are on two nodes"


@pytest.mark.slow
def test_ray_runs_on_this_machine_alone(arguments, tmp_path, place):  # noqa: F811
    asked = ["-m", "experiment=magnitude,wanda", "hydra/launcher=ray", "hydra.launcher.ray.init.num_cpus=1"]
    answer = start(*asked, f"outputs={tmp_path}", *arguments, **ray_environment(place))
    assert answer.returncode == 0 and "2 of 2 runs are done" in answer.stderr, answer.stderr
    assert not together(manifests(tmp_path))
