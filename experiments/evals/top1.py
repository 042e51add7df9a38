"""What an image classifier gets right, and how far it is from the dense model, image by image."""

import base64
import hashlib
import io
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from experiments.console.errors import note
from experiments.console.families import Family
from experiments.data.images import ImageFiles, ImageSource, batches, decode
from experiments.evals.evaluator import Evaluator
from prune.feeder import UNLIMITED
from prune.network import Network
from prune.progress import passing

EXAMPLES, SMALL = 12, 64  # images that a report shows, and their width and height at most
FEW = 5  # classes among which the right one may be
NEAR = 1.0  # points by which the dense accuracy may miss its anchor


@dataclass(frozen=True)
class Top1(Evaluator):
    """data: the images whose held-out part is evaluated. path: a folder, archive or .parquet instead, all of it.

    images: only so many, evenly spread over all in their order, and the keys then say so (acc/cifar10@500); None is
    all. anchor: the dense model's accuracy in %, as its card has it; ValueError before anything is pruned where it is
    more than a point away, which is what a wrong mean or class order does. Keys, all /<name>, with a standard error
    over the images each: acc (top-1), acc5 (top-5), ce (cross-entropy), agree (the share whose first choice is the
    dense model's), kl (KL(dense || pruned) of the classes).
    """

    data: ImageSource
    path: str | None = None
    images: int | None = None
    anchor: float | None = None
    name: str = "top1"
    length: ClassVar[int] = UNLIMITED  # of tokens: as many as an image has
    pictures: ClassVar[bool] = True
    whole: ClassVar[bool] = True
    referred: ClassVar[bool] = True
    families: ClassVar[dict[str, Family]] = {
        "ce": Family("cross-entropy, nats per image", place=3),
        "agree": Family("images whose first choice is the dense model's", True, True, difference=False, place=4),
        "kl": Family("KL to the dense model, nats", difference=False, place=5),
        "acc5": Family("images whose class is among the first five", True, True, main=False, place=6),
    }

    @property
    def windows(self) -> int | None:  # type: ignore[override]
        """The images that are read, for plans."""
        return self.images

    @property
    def source(self) -> ImageSource:
        """Where the images are: the path if one is given, read as `data` is."""
        if not self.path:
            return self.data
        own = self.data if isinstance(self.data, ImageFiles) else ImageFiles(self.path, numbered=self.data.numbered)
        return replace(own, path=self.path, evaluation_path=self.path)

    def check(self) -> None:
        """ValueError or FileNotFoundError for settings that cannot work; reads no image."""
        if self.images is not None and (type(self.images) is not int or self.images < 1):
            expected = "expected a whole number of at least 1, or null for all"
            raise ValueError(f"eval.{self.name}.images: {expected}, found {self.images}")
        if self.anchor is not None and not 0 <= self.anchor <= 100:
            raise ValueError(f"eval.{self.name}.anchor: expected a top-1 accuracy in %, found {self.anchor}")
        if not self.source.pictures:
            raise ValueError(
                f"eval={self.name} classifies images, and data={self.source.name} is text; set data=images"
            )
        self.source.check()

    def reference_size(self, windows: int, length: int, vocabulary: int) -> float:
        """Bytes that `reference` takes for so many images."""
        return 4.0 * windows * vocabulary

    def reference(self, network: Network) -> dict[str, Tensor]:
        """The dense model's logits [n, v], float32, and a line with its accuracy, which has to be that of its card."""
        logits, labels, _ = self.answers(network)
        share = 100 * float((logits.argmax(1) == labels).double().mean())
        note(f"the dense model: top-1 {share:.2f} % of {len(labels)} images ({self.what(len(labels))})")
        if self.anchor is not None and abs(share - self.anchor) > NEAR:
            raise ValueError(
                f"the dense model's top-1 is {share:.2f} %, expected {self.anchor:g}: other images, classes or "
                f"preprocessing (mean, std, size) than its card's; mend that, or set eval.{self.name}.anchor=null"
            )
        return {"logits": logits}

    def __call__(self, network: Network, reference: dict[str, Tensor]) -> dict[str, Any]:
        """What this model gets right, and each image's part in every number."""
        logits, labels, sha256 = self.answers(network)
        if not logits.isfinite().all():
            raise ValueError(f"a prediction is NaN or infinite, computed in {network.model.dtype}")
        what = self.what(len(labels))
        scores = {f"{name}/{what}": values for name, values in compared(logits, reference["logits"], labels).items()}
        metrics = {key: float(values.mean()) for key, values in scores.items()}
        if len(labels) > 1:
            error = {key: float(values.std() / len(values) ** 0.5) for key, values in scores.items()}
            metrics |= {key.replace("/", "_stderr/", 1): value for key, value in error.items()}
        predicted = {"label": labels.tolist(), "dense": reference["logits"].argmax(1).tolist()}
        predicted |= {"model": logits.argmax(1).tolist()}
        details = {"scores": {key: values.tolist() for key, values in scores.items()}, "predicted": predicted}
        details["examples"] = self.examples(network, predicted)
        return {"metrics": metrics, "protocol": {"images": len(labels), "sha256": sha256}, "details": details}

    def answers(self, network: Network) -> tuple[Float[Tensor, "n v"], Int[Tensor, "n"], str]:
        """The logits of every image, its class, and a hash of all pixels and classes."""
        album = self.source.album("evaluation")
        numbers = spread(len(album), self.images)
        digest, logits, labels = hashlib.sha256(), [], []
        read = batches(album, numbers, network.processor, network.batch)
        for batch in passing(read, "images", -(-len(numbers) // network.batch), "batch"):
            images = network.readable(batch)
            with torch.no_grad():
                logits.append(network.model(**network.feeder.keywords(images, network.device)).logits.float().cpu())
            labels.append(images.labels)
            digest.update(images.pixels.numpy().astype("<f4").tobytes())
        digest.update(torch.cat(labels).numpy().astype("<i8").tobytes())  # last, so that no batch changes the hash
        return torch.cat(logits), torch.cat(labels), digest.hexdigest()

    def examples(self, network: Network, predicted: dict[str, list[int]]) -> list[dict[str, Any]]:
        """A few images, evenly spread over those that were read, with what they are and were taken for, by name.

        number: which of them it is; png: itself in base64, small enough for a report.
        """
        album, told = self.source.album("evaluation"), []
        numbers, names = spread(len(album), self.images), network.model.config.id2label
        for k in spread(len(numbers), EXAMPLES):
            image, _ = decode(*album[numbers[k]])
            image.thumbnail((SMALL, SMALL))
            image.save(file := io.BytesIO(), "PNG")
            kinds = {what: str(names[classes[k]]) for what, classes in predicted.items()}
            told.append(kinds | {"number": k, "png": base64.b64encode(file.getvalue()).decode()})
        return told

    def what(self, count: int) -> str:
        """What the metrics call these images."""
        return self.source.name + (f"@{count}" if self.images else "")


def spread(count: int, some: int | None) -> list[int]:
    """So many numbers below `count`, evenly spread; all where there are no more."""
    some = count if some is None else min(some, count)
    return [k * count // some for k in range(some)]


def compared(
    logits: Float[Tensor, "n v"], dense: Float[Tensor, "n v"], labels: Int[Tensor, "n"]
) -> dict[str, Float[Tensor, "n"]]:
    """Each image's part in every metric, in float64. Equal logits rank by the number of their class."""
    log, reference = logits.double().log_softmax(1), dense.double().log_softmax(1)
    order = logits.sort(dim=1, descending=True, stable=True).indices
    right = order == labels[:, None]
    return {
        "acc": right[:, 0].double(),
        "acc5": right[:, :FEW].any(1).double(),
        "ce": nn.functional.nll_loss(log, labels, reduction="none"),
        "agree": (order[:, 0] == dense.sort(dim=1, descending=True, stable=True).indices[:, 0]).double(),
        "kl": (reference.exp() * (reference - log)).sum(1).clamp(min=0),
    }
