"""Trains a small ViT on images, by a recipe: `python -m experiments.demo.train_vision digits`.

The same command gives the same weights on the same machine and number of threads. The images that would calibrate a run
train it, and it is measured on those that a run evaluates. Axes: n = images, c = channels, h, w = height, width.
"""

import argparse
import hashlib
import json
import logging
import math
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from jaxtyping import Float
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

from experiments.data.digits import Digits
from experiments.data.images import ImageFiles, ImageSource, batches
from experiments.data.windows import Part
from experiments.evals.top1 import Top1
from experiments.models.load import load
from experiments.models.vision import PROCESSOR, ImageReader, reader
from prune.feeder import Images

log = logging.getLogger("experiments.demo")

CIFAR10 = "../shared/data/vision/cifar10_test_jpeg.tar.gz"
BATCH = 64  # images per step
RATE = 1e-3  # peak learning rate
WARMUP = 0.05  # share of the steps
DECAY = 0.05  # of matrices, not of norms
SMOOTHING = 0.1  # of labels
DEVIATION = 0.05  # of the first weights
GREY = torch.tensor([0.299, 0.587, 0.114])  # what red, green and blue weigh in the lightness of a pixel


@dataclass(frozen=True)
class Recipe:
    """What is trained on what. size: of an image in pixels; mean, std: of its channels in 0..1; pad: pixels by which a
    crop moves; flip: whether half of the images are mirrored; jitter: of brightness, contrast and saturation.
    """

    source: ImageSource
    size: int
    patch: int
    width: int
    layers: int
    heads: int
    mlp: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    epochs: int
    pad: int
    flip: bool = False
    jitter: float = 0.0


RECIPES = {
    "digits": Recipe(Digits(), 8, 2, 64, 4, 4, 128, (0.305,) * 3, (0.376,) * 3, epochs=150, pad=1),
    "cifar10": Recipe(
        ImageFiles(CIFAR10), 32, 4, 96, 6, 3, 192, (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616), 60, 4, True, 0.2
    ),
}


def build(recipe: Recipe, classes: list[str], generator: torch.Generator) -> ViTForImageClassification:
    """The untrained model: matrices are normal, norms are one, biases zero."""
    config = ViTConfig(
        image_size=recipe.size,
        patch_size=recipe.patch,
        hidden_size=recipe.width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=recipe.mlp,
        id2label=dict(enumerate(classes)),
        label2id={name: number for number, name in enumerate(classes)},
    )
    model = ViTForImageClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, DEVIATION, generator=generator)
    return model


def eyes(recipe: Recipe, model: ViTForImageClassification, folder: Path) -> ImageReader:
    """Writes how the model sees images into its folder, and reads it from there as a run does."""
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": recipe.size, "width": recipe.size},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": recipe.mean,
        "image_std": recipe.std,
    }
    (folder / PROCESSOR).write_text(json.dumps(processor, indent=1) + "\n")
    made = reader(str(folder), folder, model.config)
    assert made is not None
    return made


def images(source: ImageSource, part: Part, seeing: ImageReader) -> Images:
    """All images of a part, as the model reads them."""
    album = source.album(part)
    return next(batches(album, range(len(album)), seeing, len(album)))


def jittered(pixels: Float[Tensor, "n c h w"], recipe: Recipe, generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """Each image in another brightness, contrast and saturation, by factors from 1 - jitter to 1 + jitter."""
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (recipe.mean, recipe.std))
    light, contrast, colour = 1 + recipe.jitter * (2 * torch.rand(3, len(pixels), 1, 1, 1, generator=generator) - 1)
    seen = ((pixels * std + mean) * light).clamp(0, 1)
    grey = (seen * GREY.view(3, 1, 1)).sum(1, keepdim=True)
    middle = grey.mean((2, 3), keepdim=True)
    seen = (middle + (grey - middle) * contrast + (seen - grey) * contrast * colour).clamp(0, 1)
    return (seen - mean) / std


def varied(pixels: Float[Tensor, "n c h w"], recipe: Recipe, generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """Each image moved by up to `pad` pixels (edges are reflected); mirrored and in other colours where asked for."""
    n, side = len(pixels), torch.arange(recipe.size)
    padded = nn.functional.pad(pixels, [recipe.pad] * 4, mode="reflect")
    down, right = torch.randint(0, 2 * recipe.pad + 1, (2, n, 1), generator=generator) + side
    moved = padded[torch.arange(n)[:, None, None], :, down[:, :, None], right[:, None]].permute(0, 3, 1, 2)
    if recipe.flip:
        mirrored = torch.rand(n, 1, 1, 1, generator=generator) < 0.5
        moved = torch.where(mirrored, moved.flip(3), moved)
    return jittered(moved, recipe, generator) if recipe.jitter else moved


def rate(done: float) -> float:
    """The learning rate after this share of the steps: a linear warm-up, then a cosine down to zero."""
    return RATE * min(done / WARMUP, 0.5 * (1 + math.cos(math.pi * done)))


@torch.no_grad()
def accuracy(model: ViTForImageClassification, heldout: Images) -> float:
    """The share of images whose class comes first, in %."""
    first = [model(pixel_values=part).logits.argmax(1) for part in heldout.pixels.split(BATCH)]
    return 100 * (torch.cat(first) == heldout.labels).double().mean().item()


def adamw(model: ViTForImageClassification) -> torch.optim.AdamW:
    """The optimizer; weight decay acts on matrices only."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim != 2]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}])


def train(
    model: ViTForImageClassification, recipe: Recipe, seen: Images, heldout: Images, epochs: int, seed: torch.Generator
) -> None:
    """AdamW on the images in random order, in place; logs the held-out accuracy on the way."""
    optimizer, began = adamw(model), time.monotonic()
    for epoch in range(1, epochs + 1):
        parts = torch.randperm(len(seen.labels), generator=seed).split(BATCH)
        for number, part in enumerate(parts, 1):
            for group in optimizer.param_groups:
                group["lr"] = rate((epoch - 1 + number / len(parts)) / epochs)
            logits = model(pixel_values=varied(seen.pixels[part], recipe, seed)).logits
            loss = nn.functional.cross_entropy(logits, seen.labels[part], label_smoothing=SMOOTHING)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        if epoch % 5 == 0 or epoch in (1, epochs):
            told = (epoch, epochs, loss.item(), accuracy(model, heldout), time.monotonic() - began)
            log.info("epoch %d/%d loss %.3f, held-out accuracy %.2f %%, %.0f s", *told)


def measured(folder: Path, source: ImageSource) -> tuple[float, int]:
    """The accuracy of the saved model in %, as eval=top1 of a run finds it, and the number of images."""
    network = load(str(folder), None, "float32", False, None, BATCH, "cpu")
    with network.resident():
        logits, labels, _ = Top1(source).answers(network)
    return 100 * (logits.argmax(1) == labels).double().mean().item(), len(labels)


def run(name: str, recipe: Recipe, out: Path, epochs: int, seed: int, threads: int) -> None:
    """Trains, saves, and logs what was done and how good it is."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    generator = torch.Generator().manual_seed(seed)
    versions = (platform.python_version(), torch.__version__, transformers.__version__)
    log.info("Python %s, torch %s, transformers %s", *versions)
    log.info("%s: %d epochs, seed %d, threads %d", name, epochs, seed, threads)
    classes = sorted(set(recipe.source.album("calibration").classes))
    model = build(recipe, classes, generator).train()
    seeing = eyes(recipe, model, out)
    seen, heldout = images(recipe.source, "calibration", seeing), images(recipe.source, "evaluation", seeing)
    log.info("%d parameters, %d images of %d classes", model.num_parameters(), len(seen.labels), len(classes))
    train(model, recipe, seen, heldout, epochs, generator)
    model.save_pretrained(out)
    log.info("saved weights: held-out accuracy %.2f %% of %d images", *measured(out, recipe.source))
    digest = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    log.info("sha256 of the weights %s", digest)


def main() -> None:
    """The command: what is logged goes to the screen, and to train.log in the model's folder."""
    parser = argparse.ArgumentParser(prog="python -m experiments.demo.train_vision", description="Train a small ViT.")
    parser.add_argument("recipe", choices=RECIPES, help=f"what on what; cifar10 reads {CIFAR10}")
    parser.add_argument("--out", type=Path, help="default: a folder of the recipe's name beside this file")
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--seed", type=int, default=0, help="of first weights, order and variations (default 0)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; part of what fixes the result (default 1)")
    options = parser.parse_args()
    recipe, out = RECIPES[options.recipe], options.out or Path(__file__).parent / options.recipe
    try:
        recipe.source.check()
    except (ValueError, OSError) as error:
        parser.error(str(error))
    out.mkdir(parents=True, exist_ok=True)
    handlers = [logging.StreamHandler(), logging.FileHandler(out / "train.log", "w")]
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers)
    run(options.recipe, recipe, out, options.epochs or recipe.epochs, options.seed, options.threads)


if __name__ == "__main__":
    main()
