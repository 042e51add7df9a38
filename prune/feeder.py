"""What a model reads, and what its answers are held against: token sequences of a causal LM, or images of a classifier.

The walk, its backward pass and the evaluations ask a feeder for all that depends on it; blocks and methods never do.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prune.call import axis_of

UNLIMITED = 2**31  # tokens
LIMITS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len")
LENGTH = 32  # tokens of a sequence that tell whether a walk is right


@dataclass(frozen=True)
class Images:
    """Images as a classifier takes them, and their classes: cut and counted as a tensor is, along the first axis."""

    pixels: Float[Tensor, "n c h w"]
    labels: Int[Tensor, "n"]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, some: Any) -> "Images":
        """Those of a slice, or of a tensor of numbers."""
        return Images(self.pixels[some], self.labels[some])

    def split(self, size: int) -> Iterator["Images"]:
        """Batches of so many; the last may be smaller."""
        return (self[start : start + size] for start in range(0, len(self), size))


Samples = Any  # token sequences, Int[Tensor, "n t"], or Images: what calibrates and is evaluated


class Feeder:
    """One kind of samples, for one model."""

    causal: ClassVar[bool]  # whether a token must not see later ones

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    def config(self) -> Any:
        """The part of the model's configuration that its blocks were made of."""
        raise NotImplementedError

    @property
    def body(self) -> Any:
        """What calls the blocks, without a head where it can be had."""
        raise NotImplementedError

    @property
    def limit(self) -> int:
        """The most tokens of a sample, where it has a choice."""
        return UNLIMITED

    @property
    def outputs(self) -> int:
        """How many logits a prediction has: tokens of the vocabulary, or classes."""
        raise NotImplementedError

    def readable(self, samples: Samples) -> Samples:
        """The same samples; ValueError if the model cannot read them."""
        raise NotImplementedError

    def blank(self, count: int, length: int) -> Samples:
        """So many samples, of `length` tokens where that is a choice, to try a model on."""
        raise NotImplementedError

    def few(self, samples: Samples) -> Samples:
        """As much of them as tells whether a walk gives the model's own logits."""
        return samples[:1]

    def keywords(self, samples: Samples, device: torch.device) -> dict[str, Any]:
        """The arguments of a forward."""
        raise NotImplementedError

    def axis(self, hidden: torch.Size, samples: Samples) -> int | None:
        """On which axis of a hidden state the samples are, their tokens on the next one; None if on none."""
        raise NotImplementedError

    def predictions(self, logits: Float[Tensor, "1 ..."]) -> Float[Tensor, "s v"]:
        """The logits of one sample by what each predicts: s tokens, or s = 1 image."""
        raise NotImplementedError

    def labels(self, sample: Samples) -> Int[Tensor, "s"]:
        """What they should have predicted."""
        raise NotImplementedError


class TokenFeeder(Feeder):
    """Token ids [n, t] for a causal LM: each but the first is to be predicted from those before it."""

    causal = True

    @property
    def config(self) -> Any:
        """Of the language part of a model that has others."""
        return self.model.config.get_text_config()

    @property
    def body(self) -> Any:
        """The model without its head."""
        return self.model.base_model

    @property
    def limit(self) -> int:
        """The longest sequence the model takes, in tokens; without position embeddings there is no limit."""
        found = (getattr(self.config, name, None) for name in LIMITS)
        return next((limit for limit in found if limit), UNLIMITED)

    @property
    def outputs(self) -> int:
        """The rows of the embedding, which the head has, too."""
        return self.model.get_input_embeddings().num_embeddings

    def readable(self, samples: Int[Tensor, "n t"]) -> Int[Tensor, "n t"]:
        """The tokens; ValueError if the model has no embedding for one of them, or takes no sequence that long."""
        rows = self.outputs
        if samples.min() < 0 or samples.max() >= rows:
            raise ValueError(
                f"token ids {int(samples.min())} to {int(samples.max())}, but the model knows 0 to {rows - 1}: "
                "the tokens were made with another tokenizer"
            )
        if samples.shape[1] > self.limit:
            raise ValueError(
                f"windows of {samples.shape[1]} tokens, but the model takes {self.limit}; cut them shorter"
            )
        return samples

    def blank(self, count: int, length: int) -> Int[Tensor, "n t"]:
        """The first token, again and again."""
        return torch.zeros(count, length, dtype=torch.long)

    def few(self, samples: Int[Tensor, "n t"]) -> Int[Tensor, "1 s"]:
        """The beginning of the first sequence."""
        return samples[:1, :LENGTH]

    def keywords(self, samples: Int[Tensor, "b t"], device: torch.device) -> dict[str, Any]:
        """The ids; no cache of keys and values."""
        return {"input_ids": samples.to(device), "use_cache": False}

    def axis(self, hidden: torch.Size, samples: Int[Tensor, "b t"]) -> int | None:
        """By their numbers."""
        return axis_of(hidden, *samples.shape)

    def predictions(self, logits: Float[Tensor, "1 t v"]) -> Float[Tensor, "s v"]:
        """Of the s = t - 1 tokens behind the first."""
        return logits[0, :-1]

    def labels(self, sample: Int[Tensor, "1 t"]) -> Int[Tensor, "s"]:
        """These tokens."""
        return sample[0, 1:]


class ImageFeeder(Feeder):
    """Images for a classifier: one class is to be predicted from all of an image."""

    causal = False

    @property
    def config(self) -> Any:
        """Of the vision part of a model that has others."""
        return getattr(self.model.config, "vision_config", self.model.config)

    @property
    def body(self) -> Any:
        """The model itself: a classifier's base model may be itself, or want hidden states."""
        return self.model

    @property
    def outputs(self) -> int:
        """The classes."""
        return self.model.config.num_labels

    def readable(self, samples: Samples) -> Images:
        """The images; ValueError for another kind of samples, other channels, or a class the model does not have."""
        if not isinstance(samples, Images):
            raise ValueError(f"{type(self.model).__name__} classifies images, found a text; set data=images")
        channels, classes = getattr(self.config, "num_channels", 3), self.outputs
        if samples.pixels.dim() != 4 or samples.pixels.shape[1] != channels:
            raise ValueError(f"expected images [n, {channels}, height, width], found {list(samples.pixels.shape)}")
        if len(samples) and not 0 <= int(samples.labels.min()) <= int(samples.labels.max()) < classes:
            found = f"{int(samples.labels.min())} to {int(samples.labels.max())}"
            raise ValueError(f"images of classes {found}, but the model knows 0 to {classes - 1}")
        return samples

    def blank(self, count: int, length: int) -> Images:
        """Grey ones, of the model's own size."""
        size = self.config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        pixels = torch.zeros(count, getattr(self.config, "num_channels", 3), height, width)
        return Images(pixels, torch.zeros(count, dtype=torch.long))

    def keywords(self, samples: Images, device: torch.device) -> dict[str, Any]:
        """The pixels, in the model's dtype."""
        return {"pixel_values": samples.pixels.to(device, self.model.dtype)}

    def axis(self, hidden: torch.Size, samples: Images) -> int:
        """Always the first."""
        return 0

    def predictions(self, logits: Float[Tensor, "1 v"]) -> Float[Tensor, "1 v"]:
        """One for each image."""
        return logits

    def labels(self, sample: Images) -> Int[Tensor, "1"]:
        """The image's class."""
        return sample.labels


def feeder_of(model: Any) -> Feeder:
    """The feeder for this model, by its main input; what writes text reads tokens, whatever else it can see.

    ValueError for a model of another library.
    """
    if not hasattr(model, "main_input_name"):
        kind = type(model).__module__ + "." + type(model).__name__
        raise ValueError(f"expected a model of transformers, a PreTrainedModel, found {kind}")
    images = model.main_input_name == "pixel_values" and not model.can_generate()
    return ImageFeeder(model) if images else TokenFeeder(model)
