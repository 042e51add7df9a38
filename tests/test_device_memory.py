"""What lies on the device at most is what a plan says: a block, its statistics, what solves it, and hidden states.

Measured on the emulated device (tests/emulated.py), which counts the bytes of all tensors there. Attention keeps its
scores there (MATH), in the plan, too.
"""

import gc

import pytest
from safetensors.torch import save_file

from experiments.composing import command
from experiments.planning import memory
from experiments.planning.outlook import outlook
from experiments.running import components
from prune.prune import prune
from tests import emulated, tiny
from tests.faults import settings
from tests.test_contracts import options

SIZES = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "vocab_size": 128}
FIRST = [("gblm", "host")]
EXPERIMENTS = [option.partition("=")[2] for option in options("experiment")]
MORE = [(name, place) for name in EXPERIMENTS for place in ("device", "host") if (name, place) not in FIRST]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny Llama and 16 windows of 32 tokens."""
    folder = tmp_path_factory.mktemp("memory")
    tiny.network(**SIZES).model.save_pretrained(folder / "model")
    save_file({"tokens": tiny.tokens(16, 32)}, folder / "tokens.safetensors")
    return folder


def most(run):
    """Bytes on the device at most while this runs, beside those that are there already."""
    gc.collect()
    before = emulated.memory.held
    with emulated.memory.measured():
        run()
    return emulated.memory.peak - before


def walked(network, config, given=None):
    """The model pruned as a run does it; its solved blocks."""
    method, done = components.method(config), tiny.Memory()
    settings = config["granularity"], config["propagate"], done, given
    for _ in prune(network, tiny.tokens(16, 32), method, *settings):
        pass
    return done


@pytest.mark.parametrize(
    ("experiment", "activations"), [*FIRST, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)]
)
def test_a_plan_tells_the_peak_of_a_method_and_of_an_evaluation(experiment, activations, place, tmp_path, monkeypatch):
    monkeypatch.setattr(components, "device", lambda asked: asked)
    words = f"experiment={experiment} eval.perplexity.path={{tokens}} batch=2 activations={activations}"
    (each,) = command.jobs(settings(words, tmp_path, place))
    config = each.config
    with emulated.device() as far:
        given = config["given"] and config["given"]["config"]
        masks = walked(components.make(given["model"]), given) if given else None
        network = components.make(config["model"], device=str(far))
        network.activations = activations
        pruning = most(lambda: walked(network, config, masks))
        evaluating = most(lambda: network.losses(tiny.tokens(16, 32)))
        work = outlook(config | {"device": str(far)})
    planned = {stage.name: sum(stage.device.values()) for stage in memory.stages(work, activations)}
    evaluation = planned.pop("eval=perplexity")
    assert 0.5 * max(planned.values()) < pruning < 1.02 * max(planned.values())
    assert 0.5 * evaluation < evaluating < 1.02 * evaluation


def test_a_plan_tells_the_peak_of_a_text_that_the_model_writes(place, tmp_path, monkeypatch):
    monkeypatch.setattr(components, "device", lambda asked: asked)
    words = "experiment=wanda data=self_generated data.sequences=16 data.length=64 eval=[audit] batch=8"
    (each,) = command.jobs(settings(words, tmp_path, place))
    with emulated.device() as far:
        network = components.make(each.config["model"], device=str(far))
        written = most(lambda: components.make(each.config["data"]).generate(network))
        work = outlook(each.config | {"device": str(far)})
    (stage,) = [stage for stage in memory.stages(work, "device") if stage.name == "data generation"]
    assert 0.8 * sum(stage.device.values()) < written < 1.02 * sum(stage.device.values()), stage
