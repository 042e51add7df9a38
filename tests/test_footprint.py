"""What a run writes is told alike by its plan and by the checks before it, and it writes no more, and hardly less."""

from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from experiments.composing import command
from experiments.composing.groups import CONF
from experiments.composing.method import make
from experiments.models import packing, saving
from experiments.models.load import empty
from experiments.models.skeleton import skeleton
from experiments.planning.anatomy import dissect
from experiments.planning.outlook import work
from experiments.running import components, pipeline
from experiments.running.footprint import footprint, packed_size, sizes
from experiments.runs import stores
from prune import reverse
from prune.network import Network
from prune.states import States
from tests.quantised import needed, quantised, solve
from tests.small import model_of
from tests.tiny import network

EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
PLACES = ("device", "host", "disk")
SMALL = 200_000  # bytes of manifest, results, notes, headers, the plot


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model of 3 blocks, 32 windows to calibrate on and 48 to evaluate, each of 64 tokens."""
    here = tmp_path_factory.mktemp("small")
    network(hidden_size=64, intermediate_size=512).model.save_pretrained(here / "model")
    generator = torch.Generator().manual_seed(0)
    for name, rows in (("few", 32), ("more", 48)):
        save_file({"tokens": torch.randint(1, 96, (rows, 64), generator=generator)}, here / f"{name}.safetensors")
    return here


def config_of(place, *words):
    given = f"model=local model.path={place}/model data=tokens data.path={place}/few.safetensors eval=[perplexity]"
    given += f" eval.perplexity.path={place}/more.safetensors device=cpu batch=16 tracker=[]"
    return command.jobs([*given.split(), *words])[0]


@pytest.fixture(scope="module")
def bare(place):
    """What a plan and a preflight know of the model."""
    one, other = (Network(skeleton(str(place / "model"), None, "auto", False), None, None) for _ in range(2))
    return dissect(one, 64), sizes(other)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_plan_and_preflight_tell_the_same_bytes(experiment, place, bare, tmp_path):
    body, known = bare
    asked = config_of(place, f"experiment={experiment}").config
    for activations in PLACES:
        for more in ({}, {"save_model": True, "scratch": str(tmp_path)}):
            config = asked | {"activations": activations} | more
            built = components.build(config)
            told = work(config, built, body, None).written
            assert told == footprint(config, built, known)
            assert len({entry[:2] for entry in told}) == len(told), "each has a name of its own"


class Peak:
    """The most bytes under a folder, files without a name among them, whenever something has been written."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bytes = str(folder), 0

    def look(self) -> None:
        """Named files, open ones, and those that live as long as a tensor is mapped to them."""
        named = [file.stat() for file in Path(self.folder).rglob("*") if file.is_file()]
        opened = []
        for number in Path("/proc/self/fd").iterdir():
            with suppress(OSError):
                opened += [number.stat()] if str(number.readlink()).startswith(self.folder) else []
        sizes = {status.st_ino: status.st_size for status in [*named, *opened]}
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, _, _, _, inode, *path = line.split(maxsplit=5)
            if path and path[0].startswith(self.folder) and int(inode) not in sizes:
                begin, end = (int(part, 16) for part in span.split("-"))
                sizes[int(inode)] = end - begin
        self.bytes = max(self.bytes, sum(sizes.values()))

    def after(self, monkeypatch, owner, name: str) -> None:
        """Look whenever this function has been called."""
        plain = getattr(owner, name)

        def seen(*arguments, **named):
            value = plain(*arguments, **named)
            self.look()
            return value

        monkeypatch.setattr(owner, name, seen)


@pytest.mark.parametrize(
    ("experiment", "words"),
    [
        ("wanda", "activations=disk save_model=true"),
        ("wanda", "activations=host save_model=true"),
        ("gblm", "activations=disk"),
        ("gblm", "activations=host scratch={scratch}"),
        ("mixed", "activations=disk scratch={scratch} allocator.sequences=8"),
        ("besa_layer", "activations=disk allocator.epochs=1 data.sequences=4"),
        ("barber", "activations=host"),
        ("rtn", "quantizer.group=16"),
        pytest.param("rtn", "quantizer.group=16 quantizer.symmetric=true save_model=packed", marks=needed),
    ],
)
def test_a_run_writes_what_was_told_and_no_more(experiment, words, place, tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    words = words.format(scratch=tmp_path / "scratch").split()
    asked, peaks = config_of(place, f"experiment={experiment}", f"outputs={tmp_path}/outputs", *words), {}
    written = ((States, "_put"), (reverse, "_shelf"), (stores, "write_tensors"))
    for setting in ("outputs", "scratch"):
        peaks[setting] = Peak(tmp_path / setting)
        for owner, name in (*written, (saving, "save"), (packing, "save_file")):
            peaks[setting].after(monkeypatch, owner, name)
    told = footprint(asked.config, components.build(asked.config), sizes(make(asked.config["model"])))
    pipeline.run(asked.run)
    for setting, peak in peaks.items():
        whole = sum(size for where, _, size in told if where == setting)
        small = {"outputs": SMALL * (2 if asked.config["given"] else 1), "scratch": 0}[setting]
        assert 0.95 * whole <= peak.bytes <= whole + small, f"{setting}: {whole} told, {peak.bytes} found; {told}"


@needed
@pytest.mark.parametrize(("bits", "group"), [(4, 16), (3, None), (8, 64)])
def test_a_packed_model_has_as_many_bytes_as_its_plan_tells(bits, group, place, tmp_path):
    store, method = stores.BlockStore(tmp_path / "run"), quantised(bits, group)
    model, _ = solve(place / "model", store, method)
    saving.save(model, tmp_path / "packed", store)
    files = [file.read_bytes() for file in (tmp_path / "packed").glob("*.safetensors")]
    tensors = sum(len(file) - 8 - int.from_bytes(file[:8], "little") for file in files)  # without the headers
    assert packed_size(method, sizes(model)) == tensors < 0.6 * sizes(model).size


@pytest.mark.parametrize(("kind", "hidden"), [("gemma3n_text", 2 * 32), ("deepseek_v4", 4 * 32)])
def test_a_state_of_several_streams_has_as_many_bytes_before_a_run_as_in_its_plan(tmp_path, kind, hidden):
    model_of(kind).save_pretrained(tmp_path)
    network = Network(*empty(str(tmp_path), None, "float32", False))
    assert sizes(network).hidden == hidden == dissect(network, 16).sizes.hidden
