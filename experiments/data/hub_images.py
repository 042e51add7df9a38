"""Images with classes from a data set of the hub, such as ImageNet."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Image, load_dataset

from experiments.console.errors import one_line
from experiments.data.images import Album, ImageSource, refuse_missing
from experiments.data.windows import Part


class Rows(Album):
    """The rows of a data set that have an image and a label."""

    def __init__(self, rows: Any, where: str, image: str, label: str) -> None:
        refuse_missing({image, label}, rows.column_names, where)
        self.rows, self.where, self.image = rows.cast_column(image, Image(decode=False)), where, image
        names, labels = getattr(rows.features[label], "names", None), rows[label]
        self.classes = [names[number] if names and number >= 0 else str(number) for number in labels]

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, k: Any) -> tuple[str, Any]:
        found = self.rows[k][self.image]
        return f"{self.where}, row {k + 1}", found["bytes"] or Path(found["path"]).read_bytes()


@dataclass(frozen=True)
class HubImages(ImageSource):
    """A data set of the hub, an image and a label in each row. `split` calibrates, `evaluation_split` is held out.

    numbered: whether classes that are numbers are those of the model, though not all of these are there.
    """

    repository: str
    revision: str | None = None
    split: str = "train"
    evaluation_split: str = "validation"
    image: str = "image"
    label: str = "label"
    numbered: bool = False
    images: int = 512
    seed: int = 0

    @property
    def name(self) -> str:
        return self.repository.rpartition("/")[2]

    def album(self, part: Part) -> Album:
        """The rows of one split."""
        split = self.split if part == "calibration" else self.evaluation_split
        try:
            rows = load_dataset(self.repository, revision=self.revision, split=split)
        except Exception as error:  # whatever the hub or the library raises
            remedy = "check data.repository, `hf auth login` if gated, or give files: data=images data.path=FOLDER"
            raise ValueError(f"{self.repository}: {one_line(error)}; {remedy}") from error
        album = Rows(rows, f"{self.repository} {split}", self.image, self.label)
        album.numbered = self.numbered
        return album
