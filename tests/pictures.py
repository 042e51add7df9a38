"""Small image files with classes, and a tiny image classifier in a folder, as people have them."""

import json
from pathlib import Path

import numpy
from PIL import Image

from tests.vision import classifier

CLASSES = [f"kind{k}" for k in range(10)]
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": 16, "width": 16},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.25, 0.25, 0.25],
}


def picture(number: int, size: int = 20) -> Image.Image:
    """A random image, the same for the same number."""
    pixels = numpy.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=numpy.uint8)
    return Image.fromarray(pixels)


def folder(here: Path, each: int = 5, classes=tuple(CLASSES)) -> Path:
    """`each` .png for each class, in a folder of its name."""
    for k, name in enumerate(classes):
        (here / name).mkdir(parents=True)
        for n in range(each):
            picture(100 * k + n).save(here / name / f"{n}.png")
    return here


def model(here: Path, family: str = "vit") -> Path:
    """A random classifier of ten classes and its processor."""
    subject = classifier(family).model
    subject.config.label2id = {name: k for k, name in enumerate(CLASSES)}
    subject.config.id2label = dict(enumerate(CLASSES))
    subject.save_pretrained(here)
    (here / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return here
