"""What an image classifier wants of images: how they are prepared, and which number a class has."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers import AutoImageProcessor

from experiments.console.errors import note
from experiments.models.skeleton import explained
from experiments.models.stored import some

PROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True)
class ImageReader:
    """What a tokenizer is to a language model. processor: of transformers, on PIL alone, so that the pixels do not
    depend on what else is installed; numbers: of classes by name; classes: how many the model has.
    """

    processor: Any
    numbers: dict[str, int]
    classes: int

    def pixels(self, images: Sequence[Any]) -> Float[Tensor, "n c h w"]:
        """PIL images of any size in RGB, as the model was trained to see them."""
        return self.processor(images=list(images), return_tensors="pt")["pixel_values"]

    def numbering(self, names: Collection[str], numbered: bool = False) -> dict[str, int]:
        """The number of each class of a data set, by its name: by the model's own names; the numbers that they are,
        where all of the model's are there or they are said to be its own (`numbered`); in the order of their names,
        where the model's say nothing and there are as many. ValueError for classes that it does not have, or may not.
        """
        classes = sorted(names)
        if all(name in self.numbers for name in classes):
            return {name: self.numbers[name] for name in classes}
        if all(name.isdecimal() and int(name) < self.classes for name in classes):
            if not numbered and len({int(name) for name in classes}) < self.classes:
                raise ValueError(
                    f"the images' classes are numbers ({some(classes)}), not all {self.classes} of the model's, which "
                    f"are called {some(list(self.numbers))}: name them so, or, if the numbers are the model's, set "
                    "data.numbered=true"
                )
            return {name: int(name) for name in classes}
        known = [name for name in classes if name in self.numbers]
        if known or len(classes) != self.classes:
            strange = [name for name in classes if name not in known]
            raise ValueError(
                f"{len(strange)} classes that the model does not have ({some(strange)}); it has {self.classes}, "
                f"{some(list(self.numbers))}: give images of these, in folders of these names"
            )
        note(f"classes are numbered in the order of their names, 0 {classes[0]} to {len(classes) - 1} {classes[-1]}")
        return {name: number for number, name in enumerate(classes)}


def reader(path: str, folder: Path, config: Any) -> ImageReader | None:
    """How to read images for the model in the `folder` of model.path=`path`; None where nothing there says it."""
    if not (folder / PROCESSOR).is_file():
        return None
    with explained(path, "its image processor: "):
        processor = AutoImageProcessor.from_pretrained(str(folder), backend="pil")
    return ImageReader(processor, {str(name): int(k) for name, k in config.label2id.items()}, config.num_labels)
