"""What is benchmarked: models by their shapes alone, with random weights, and real ones with the tokens of parity."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from experiments.data.files import Tokens
from experiments.files.disk import write_json
from experiments.models.skeleton import skeleton
from experiments.running import components
from prune.decoder import Decoder

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False}
VOCABULARY = 2048  # only the head and the embedding know it, and nothing is measured of them
SIZES = {  # of Llama: hidden, intermediate, heads, key-value heads, blocks
    "small": (512, 1376, 8, 8, 4),
    "7b": (4096, 11008, 32, 32, 32),
    "13b": (5120, 13824, 40, 40, 40),
    "70b": (8192, 28672, 64, 8, 80),
}
SHARED = Path(__file__).parents[2].parent / "shared"


@dataclass(frozen=True)
class Case:
    """A model and its calibration windows. size: a name of SIZES, or a folder of ../shared/data/models."""

    size: str
    blocks: int | None = None  # so many of them; None: all
    sequences: int | None = None  # None: all windows that a real model has
    length: int | None = None

    @property
    def name(self) -> str:
        """For tables: `7b x1, 8 x 512`."""
        depth = f" x{self.blocks}" if self.blocks else ""
        return f"{self.size}{depth}" + (f", {self.sequences} x {self.length}" if self.sequences else "")

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
        if self.real:
            model, tokens = SHARED / "data/models" / self.size, SHARED / "parity" / f"{self.size}-calib.safetensors"
            if not model.is_dir():
                raise FileNotFoundError(f"{model}: not there; real models lie in ../shared, beside this repository")
        else:
            write_json(model / "config.json", self._config())
            draw = torch.Generator().manual_seed(0)
            save_file({"tokens": torch.randint(VOCABULARY, (self.sequences, self.length), generator=draw)}, tokens)
        asked = [f"model.path={model}", f"data.path={tokens}", f"model.dtype={dtype}"]
        return ["model=local", "data=tokens", *asked, f"outputs={folder}/outputs", "eval=[]", "tracker=[]"]

    def _config(self) -> dict[str, Any]:
        hidden, inner, heads, shared, depth = SIZES[self.size]
        widths = {"hidden_size": hidden, "intermediate_size": inner, "num_attention_heads": heads}
        widths |= {"num_key_value_heads": shared, "num_hidden_layers": self.blocks or depth}
        return LLAMA | widths | {"vocab_size": VOCABULARY, "max_position_embeddings": 4096}

    def decoder(self, config: dict[str, Any]) -> Decoder:
        """The model: a real one from its files, the other one made on the device."""
        if self.real:
            return components.make(config["model"])
        device = config["device"]
        model = skeleton(config["model"]["path"], None, config["model"]["dtype"], False)
        draw = torch.Generator(device).manual_seed(0)
        for module in model.modules():
            for name, empty in module.named_parameters(recurse=False):
                made = torch.ones(empty.shape, dtype=empty.dtype, device=device)
                made = made if made.dim() == 1 else made.normal_(0, 0.02, generator=draw)
                setattr(module, name, nn.Parameter(made, requires_grad=False))
            for name, table in module.named_buffers(recurse=False):
                setattr(module, name, table.to(device))
        return Decoder(model, batch=config["batch"], device=device, activations=config["activations"])

    def tokens(self, config: dict[str, Any]) -> Tensor:
        """The calibration windows, [n, t]."""
        return Tokens(config["data"]["path"]).calibration(None, 2**31)
