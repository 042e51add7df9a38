"""What a method costs on a case: seconds by stage and peak memory, beside the least that they could be.

A case is a model by its shapes alone, with random weights, or a real one with the tokens of parity.
"""

from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from time import perf_counter, process_time
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from experiments.composing.groups import composing
from experiments.composing.job import compose_job
from experiments.files.disk import now, write_json
from experiments.models.skeleton import skeleton
from experiments.planning.counting import statistic_size
from experiments.planning.outlook import Work, operations, outlook, total_operations
from experiments.running import components
from experiments.running.process import give_back
from experiments.runs import machine, provenance
from experiments.runs.stores import BlockStore
from prune.clock import Clock, clocked
from prune.network import Network
from prune.precision import as_fine_as
from prune.prune import Solved, prune

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False}
VOCABULARY = 2048  # only the head and the embedding know it, and nothing is measured of them
SIZES = {  # of Llama: hidden, intermediate, heads, key-value heads, blocks
    "small": (512, 1376, 8, 8, 4),
    "7b": (4096, 11008, 32, 32, 32),
    "13b": (5120, 13824, 40, 40, 40),
    "70b": (8192, 28672, 64, 8, 80),
}
SHARED = Path(__file__).parents[2].parent / "shared"
PACKAGED = {"smollm2": "parity/smollm2/calib.safetensors"}  # a real model that a package holds: its windows in SHARED
PLAIN = 4  # batches that a plain forward is timed on
WIDE = 4  # bytes of a number that methods compute with
PATIENCE = 1.0  # seconds for each of the four measurements of the machine's speed
WIDTH, BYTES = {"cpu": 1024, "cuda": 8192}, {"cpu": 2**26, "cuda": 2**30}  # a GPU is full and its cache too small


@dataclass(frozen=True)
class Case:
    """A model and its calibration windows. size: of SIZES or PACKAGED, or a folder of ../shared/data/models."""

    size: str
    blocks: int | None = None  # so many of them; None: all
    sequences: int | None = None  # None: all windows that a real model has
    length: int | None = None
    cpu: bool = False  # seconds are those that this process computes, not those that pass

    @property
    def name(self) -> str:
        """For tables: `7b x1, 8 x 512`."""
        depth = f" x{self.blocks}" if self.blocks else ""
        windows = f", {self.sequences} x {self.length}" if self.sequences else ""
        return f"{self.size}{depth}{windows}{', CPU time' if self.cpu else ''}"

    @property
    def now(self) -> Callable[[], float]:
        """The clock."""
        return process_time if self.cpu else perf_counter

    @property
    def real(self) -> bool:
        """Whether it is a trained model with text of its own."""
        return self.size not in SIZES

    def overrides(self, folder: Path, dtype: str) -> list[str]:
        """What experiments.run would be told; of a random model `folder` gets config.json and the tokens.

        FileNotFoundError where a real model is not there.
        """
        name = "-".join(str(part) for part in (self.size, self.blocks, self.sequences, self.length))
        model, tokens = folder / name, folder / f"{name}.safetensors"
        if self.size in PACKAGED:
            model, tokens = Path(self.size), SHARED / PACKAGED[self.size]
        elif self.real:
            model, tokens = SHARED / "data/models" / self.size, SHARED / "parity" / f"{self.size}-calib.safetensors"
            if not model.is_dir():
                raise FileNotFoundError(f"{model}: not there; real models lie in ../shared, beside this repository")
        else:
            write_json(model / "config.json", self._config())
            draw = torch.Generator().manual_seed(0)
            save_file({"tokens": torch.randint(VOCABULARY, (self.sequences, self.length), generator=draw)}, tokens)
        asked = [f"model.path={model}", f"data.path={tokens}", f"model.dtype={dtype}"]
        if self.sequences:
            asked += [f"data.sequences={self.sequences}", f"data.length={self.length}"]
        return ["model=local", "data=tokens", *asked, f"outputs={folder}/outputs", "eval=[]", "tracker=[]"]

    def _config(self) -> dict[str, Any]:
        hidden, inner, heads, shared, depth = SIZES[self.size]
        widths = {"hidden_size": hidden, "intermediate_size": inner, "num_attention_heads": heads}
        widths |= {"num_key_value_heads": shared, "num_hidden_layers": self.blocks or depth}
        return LLAMA | widths | {"vocab_size": VOCABULARY, "max_position_embeddings": 4096}

    def network(self, config: dict[str, Any]) -> Network:
        """The model: a real one from its files, the other one made on the device."""
        if self.real:
            return components.make(config["model"])
        device = config["device"]
        model = skeleton(
            config["model"]["path"], None, config["model"]["dtype"], False, compute=config["model"].get("compute")
        )
        draw = torch.Generator(device).manual_seed(0)
        for module in model.modules():
            for name, empty in module.named_parameters(recurse=False):
                made = torch.ones(empty.shape, dtype=empty.dtype, device=device)
                made = made if made.dim() == 1 else made.normal_(0, 0.02, generator=draw)
                setattr(module, name, nn.Parameter(made, requires_grad=False))
            for name, table in module.named_buffers(recurse=False):
                setattr(module, name, table.to(device))
        return Network(model, batch=config["batch"], device=device, activations=config["activations"])

    def tokens(self, config: dict[str, Any]) -> Tensor:
        """The calibration windows, [n, t]."""
        return components.make(config["data"]).calibration(None, 2**31)


@dataclass(frozen=True)
class Speed:
    """How fast a machine is: floating-point operations per second of matrix products, and bytes per second.

    rate, wide: in the model's dtype and in float32; running: in float32 as blocks are run by methods (prune.precision);
    summing: of inputs in the model's dtype into float32 (Gram.add); bandwidth: of bytes that are read and written.
    """

    rate: float
    wide: float
    running: float
    summing: float
    bandwidth: float


@dataclass(frozen=True)
class Cost:
    """One method on one case. Seconds, bytes; operations: floating-point, those of matrix products and factorisations.

    floor: the larger of operations over the measured rates and of the least traffic over the measured bandwidth.
    forwards: seconds of as many plain forwards as the method makes passes, a backward pass for two; measured as well.
    needed: bytes of a block's weights in float32, its statistics, and one layer of activations. speed: what the machine
    did before the method or behind it, the faster of both.
    """

    case: str
    method: str
    date: str
    commit: str | None
    seconds: float
    stages: dict[str, float]
    passes: tuple[float, float]
    operations: float
    floor: float
    forwards: float
    host: int
    device: int | None
    needed: int
    speed: Speed

    @property
    def ratio(self) -> float:
        """How many times longer than the floor it takes."""
        return self.seconds / self.floor

    @property
    def of_forwards(self) -> float | None:
        """How many times longer than its forwards it takes, which no method can do without; None where it has none."""
        return self.seconds / self.forwards if self.forwards else None

    @property
    def peak(self) -> int:
        """The peak where the model waits: the device's, else the host's."""
        return self.host if self.device is None else self.device

    @property
    def memory(self) -> float:
        """How many times more memory than needed it takes."""
        return self.peak / self.needed


class CPUClock(Clock):
    """Stages by the seconds that this process computes, not those that pass."""

    def turn(self) -> None:
        """As by the other clock, whose code counts in the identity of runs and stays as it is."""
        now = process_time()
        if self._open:
            self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + now - self._since
        self._since = now


def costs(case: Case, methods: Iterable[str], device: str, dtype: str, folder: Path) -> Iterable[Cost]:
    """Each method's cost; its settings may stand behind its name.

    Raises ValueError or OSError for a case or method that cannot run.
    """
    known, window, commit = set[str](), 0.0, provenance.code()["commit"]
    for method in methods:
        name, *settings = method.split()
        lines = [*case.overrides(folder, dtype), f"experiment={name}", f"device={device}", *settings]
        with composing(lines):
            config = compose_job(lines).config
        work, before = outlook(config, known), speed(device, getattr(torch, dtype), case.now)
        seconds, stages, host, peak = timed(case, config, folder)
        behind = speed(device, getattr(torch, dtype), case.now)
        best = Speed(*map(max, astuple(before), astuple(behind)))  # the machine is shared
        if forwards(work) and not window:
            window = plain(case, config)
        least = (floor(work, best), forwards(work) * window)
        numbers = (seconds, stages, work.passes, total_operations(work), *least, host, peak, needed(work))
        yield Cost(case.name, method, now(), commit, *numbers, best)


def speed(device: str, dtype: torch.dtype, now: Callable[[], float]) -> Speed:
    """This device's, for a model of this dtype, by a clock."""
    least = partial(shortest, now=now)
    kind = torch.device(device).type
    one, other = (torch.randn(WIDTH[kind], WIDTH[kind], device=device) for _ in range(2))
    half, rest = one.to(dtype), other.to(dtype)
    source = torch.zeros(BYTES[kind], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    products = 2 * WIDTH[kind] ** 3
    wide = products / least(lambda: one @ other)
    rate = wide if dtype == torch.float32 else products / least(lambda: half @ rest)
    with as_fine_as([half], one.device):
        running = wide if kind == "cpu" or dtype == torch.float32 else products / least(lambda: one @ other)
    bandwidth = 2 * BYTES[kind] / least(lambda: target.copy_(source))
    return Speed(rate, wide, running, wide if kind == "cpu" else rate, bandwidth)


def shortest(call: Callable[[], object], now: Callable[[], float]) -> float:
    """Seconds of a call at its fastest."""
    timer = Timer("call()", timer=now, globals={"call": call}, num_threads=torch.get_num_threads())
    return min(timer.blocked_autorange(min_run_time=PATIENCE).times)


def timed(case: Case, config: dict[str, Any], folder: Path) -> tuple[float, dict[str, float], int, int | None]:
    """Seconds, seconds by stage, and peaks of host and device beyond what was there before.

    The masks that a method is given are made before that, below `folder`.
    """
    device = config["device"]
    given = None
    if config["given"]:
        given = BlockStore(Path(mkdtemp(dir=folder)))
        for _ in walk(case, config["given"]["config"], folder, done=given):
            pass
    settle = partial(torch.cuda.synchronize, device) if device.startswith("cuda") else lambda: None
    ready = walk(case, config, folder, given=given)
    give_back()
    machine.forget_peaks(device)
    before = machine.peaks(device)
    start = case.now()
    with clocked((CPUClock if case.cpu else Clock)(settle)) as clock:
        for solved in ready:
            del solved
    settle()
    seconds = case.now() - start
    peaks = {name: None if peak is None else peak - before[name] for name, peak in machine.peaks(device).items()}
    clock.seconds["other"] = seconds - sum(clock.seconds.values())  # embedding, and turning from block to block
    return seconds, clock.seconds, peaks["host_peak"], peaks["device_peak"]


@torch.no_grad()
def plain(case: Case, config: dict[str, Any]) -> float:
    """Seconds of a calibration window's forward through the whole model, which is on the device, at its fastest."""
    network = case.network(config)
    batches = case.tokens(config).to(config["device"]).split(network.batch)[:PLAIN]
    with network.resident():
        seconds = shortest(lambda: [network.model.base_model(batch, use_cache=False) for batch in batches], case.now)
    return seconds / sum(map(len, batches))


def forwards(work: Work) -> int:
    """Windows that go through the model in all passes of a method, those of a survey too; a backward pass is two."""
    forward, backward = work.passes
    return (forward + 2 * backward) * work.sequences + sum(out + 2 * back for _, out, back in work.surveys)


def walk(case: Case, config: dict[str, Any], folder: Path, **stores: Any) -> Iterable[Solved]:
    """The pruning of a fresh model, not begun yet; where it is read block by block, solved ones lie below `folder`."""
    network, method = case.network(config), components.method(config)
    tokens = case.tokens(config) if method.calibrated else None
    if network.home.forgets:
        stores = {"done": BlockStore(Path(mkdtemp(dir=folder)))} | stores
    return prune(network, tokens, method, config["granularity"], config["propagate"], **stores)


def floor(work: Work, speed: Speed) -> float:
    """Seconds that matrix products need at the measured rates, or reading and writing what must be, if that is more.

    At least, weights are read once, scored, and written, and every pass reads and writes a layer of activations.
    """
    weights = work.body.sizes.weights
    passes = sum(work.passes) * len(work.body.blocks)
    traffic = 2 * weights * work.body.sizes.itemsize + 2 * passes * layer(work)
    parts = operations(work).values()
    products = sum(number / getattr(speed, rate) for rates in parts for rate, number in rates.items())
    return max(products, traffic / speed.bandwidth)


def layer(work: Work) -> int:
    """Bytes of one layer of activations."""
    return work.sequences * work.length * work.body.sizes.state


def needed(work: Work) -> int:
    """Bytes that the largest block's weights, its statistics, and one layer of activations take."""
    sizes = []
    for block in work.body.blocks:
        held = sum(statistic_size(s, one.shape[1]) for one in block.inputs for s in work.method.inputs)
        sizes.append(WIDE * block.weights + held)
    return int(max(sizes)) + layer(work)
