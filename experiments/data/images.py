"""Images with classes as data: a folder for each class, a tar of that, or Parquet.

Pixels are what the checkpoint's own processor makes of them, nothing is augmented. A part of each class may be held out
for evaluation; calibration images are drawn without replacement from the rest.
"""

import io
import random
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow
import torch
from PIL import Image, ImageSequence
from pyarrow.parquet import ParquetFile

from experiments.console.errors import note, one_line
from experiments.data.windows import Part, Source
from experiments.models.vision import ImageReader
from prune.feeder import UNLIMITED, Images

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
TARS = (".tar", ".tar.gz", ".tgz")
AT_ONCE = 64  # images that are decoded together
EXPECTED = "expected a folder, .tar or .tar.gz with a folder of images for each class, or .parquet with image and label"


class Album(Sequence[tuple[str, Any]]):
    """Images that are not decoded yet: the i-th is where it is, for messages, and its bytes or the image itself."""

    classes: list[str]  # the class of each
    numbered: bool = False  # whether classes that are numbers are the model's own

    @property
    def kinds(self) -> set[str]:
        """The classes that there are, of a part those of the whole."""
        return set(self.classes)


class Files(Album):
    """Images in folders named by their class, or in an archive of such folders; in the order of their names."""

    def __init__(self, path: str) -> None:
        self.path = path
        place = Path(path)
        self.packed = Archive(place) if place.is_file() else None
        inside = (file.relative_to(place).as_posix() for file in place.rglob("*"))
        names = sorted(n for n in (inside if self.packed is None else self.packed) if n.lower().endswith(SUFFIXES))
        self.names = [name for name in names if "/" in name and not Path(name).name.startswith(".")]
        if not self.names:
            raise ValueError(f"{path}: no images in folders named by their class; {EXPECTED}")
        self.classes = [Path(name).parent.name for name in self.names]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, k: Any) -> tuple[str, Any]:
        name = self.names[k]
        content = (Path(self.path) / name).read_bytes() if self.packed is None else self.packed[name]
        return f"{self.path}/{name}", content


class Table(Album):
    """The rows of a .parquet that have an image ({"bytes": ...} as Hugging Face writes it, or bytes) and a label."""

    def __init__(self, path: str, image: str, label: str) -> None:
        try:
            refuse_missing({image, label}, ParquetFile(path).schema_arrow.names, path)
            rows = ParquetFile(path).read(columns=[image, label])
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"{path}: not a Parquet file that can be read ({error}); copy it again") from error
        self.path, self.rows = path, rows.column(image)
        self.classes = [str(name) for name in rows.column(label).to_pylist()]

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, k: Any) -> tuple[str, Any]:
        found = self.rows[k].as_py()
        return f"{self.path}, row {k + 1}", found["bytes"] if isinstance(found, dict) else found


def refuse_missing(wanted: set[str], there: Sequence[str], where: str) -> None:
    """ValueError where a table has not all of these columns."""
    if missing := wanted - set(there):
        named, found = ", ".join(sorted(missing)), ", ".join(there)
        raise ValueError(f"{where}: no column {named}, found {found}; set data.image and data.label")


class ImageSource(Source):
    """Images: what is calibrated on, and others that are held out. A source gives its `album` and inherits the rest.

    images: calibration images, drawn without replacement with `seed`; a "sequence" of other sources is an image here.
    """

    heldout: ClassVar[bool] = True
    pictures: ClassVar[bool] = True
    numbered: bool = False
    images: int
    length: int = UNLIMITED  # tokens of an image: as many as the model makes of one

    @property
    def sequences(self) -> int:  # type: ignore[override]
        return self.images

    def check(self) -> None:
        """ValueError for settings that cannot work."""
        if type(self.images) is not int or self.images < 1:
            raise ValueError(f"data.images: expected a whole number of at least 1, found {self.images}")

    def album(self, part: Part) -> Album:
        """All images of a part, and the class of each."""
        raise NotImplementedError

    def calibration(self, tokenizer: ImageReader | None, limit: int) -> Images:  # type: ignore[override]
        """`images` of them, drawn without replacement, in the order of their names; the same each time."""
        album = self.album("calibration")
        if self.images > len(album):
            raise ValueError(f"{len(album)} images to calibrate on, {self.images} asked for; lower data.images")
        chosen = sorted(random.Random(self.seed).sample(range(len(album)), self.images))
        parts = list(batches(album, chosen, tokenizer, len(chosen)))
        return Images(torch.cat([part.pixels for part in parts]), torch.cat([part.labels for part in parts]))


@dataclass(frozen=True)
class ImageFiles(ImageSource):
    """Images of your own. path: a folder with a folder for each class, a .tar or .tar.gz of one, or a .parquet.

    evaluation_path: others like it, to evaluate on; without it the last `holdout` of each class by name, which nothing
    is calibrated on then. image, label: columns of a .parquet. That and a packed archive are read into memory.
    numbered: whether classes that are numbers are those of the model, though not all of these are there.
    """

    path: str
    evaluation_path: str | None = None
    holdout: float = 0.2
    image: str = "image"
    label: str = "label"
    numbered: bool = False
    images: int = 512
    seed: int = 0

    @property
    def name(self) -> str:
        name = Path(self.path).name
        return next((name[: -len(end)] for end in (*TARS, ".parquet") if name.lower().endswith(end)), name)

    def check(self) -> None:
        """ValueError or FileNotFoundError for what cannot be images; reads none."""
        super().check()
        if not 0 <= self.holdout < 1:
            raise ValueError(f"data.holdout: expected a share from 0 to below 1, found {self.holdout}")
        for path in filter(None, (self.path, self.evaluation_path)):
            if not Path(path).exists():
                raise FileNotFoundError(f"{path}: no such file; {EXPECTED}")
            if Path(path).is_file() and not path.lower().endswith((*TARS, ".parquet")):
                raise ValueError(f"{path}: {EXPECTED}")

    def album(self, part: Part) -> Album:
        """The images of one part."""
        if self.evaluation_path:
            return self._opened(self.path if part == "calibration" else self.evaluation_path)
        return Some(whole := self._opened(self.path), held(whole.classes, self.holdout, part))

    def _opened(self, path: str) -> Album:
        album = Table(path, self.image, self.label) if path.lower().endswith(".parquet") else Files(path)
        album.numbered = self.numbered
        return album


class Some(Album):
    """Those of these numbers in an album."""

    def __init__(self, album: Album, numbers: Sequence[int]) -> None:
        self.whole, self.numbers = album, numbers
        self.classes, self.numbered = [album.classes[number] for number in numbers], album.numbered

    @property
    def kinds(self) -> set[str]:
        return self.whole.kinds

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, k: Any) -> tuple[str, Any]:
        return self.whole[self.numbers[k]]


def held(classes: Sequence[str], share: float, part: Part) -> list[int]:
    """The numbers of the images in a part: the last `share` of each class is for evaluation, the rest calibrates."""
    of_class: dict[str, list[int]] = {}
    for number, name in enumerate(classes):
        of_class.setdefault(name, []).append(number)
    kept = {name: round(len(numbers) * (1 - share)) for name, numbers in of_class.items()}
    parts = (n[: kept[c]] if part == "calibration" else n[kept[c] :] for c, n in of_class.items())
    found = sorted(number for numbers in parts for number in numbers)
    if not found:
        raise ValueError(
            f"no image is left for {part}: the last {share:.0%} of each class are held out; set data.holdout"
        )
    return found


def batches(album: Album, numbers: Sequence[int], reader: ImageReader | None, size: int) -> Iterator[Images]:
    """These images of an album, so many at a time, as the model reads them; says which were not plain RGB.

    ValueError for one that cannot be read, naming it, and for a model that does not say how it sees images.
    """
    if reader is None:
        raise ValueError(
            "the model's folder has no preprocessor_config.json, which says how it sees images; copy it there"
        )
    labels, odd = reader.numbering(album.kinds, album.numbered), Counter[str]()
    with ThreadPoolExecutor() as threads:
        for start in range(0, len(numbers), size):
            batch = numbers[start : start + size]
            pixels = []
            for few in (batch[k : k + AT_ONCE] for k in range(0, len(batch), AT_ONCE)):
                decoded = list(threads.map(lambda k: decode(*album[k]), few))
                odd.update(kind for _, kinds in decoded for kind in kinds)
                pixels.append(reader.pixels([image for image, _ in decoded]))
            yield Images(torch.cat(pixels), torch.tensor([labels[album.classes[k]] for k in batch]))
    if odd:
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(odd.items()))
        note(f"of {len(numbers)} images: {told}")


def decode(where: str, content: bytes | Image.Image) -> tuple[Image.Image, list[str]]:
    """An image in RGB, and what was unusual about it; ValueError, naming it, for one that cannot be read."""
    try:
        image = content if isinstance(content, Image.Image) else Image.open(io.BytesIO(content))
        image.load()
    except Exception as error:  # of a network, whatever is wrong with a file
        raise ValueError(
            f"{where}: not an image that can be read ({one_line(error)}); remove it, or copy it again"
        ) from error
    kinds = [] if image.mode == "RGB" else [f"{image.mode} made RGB"]
    if getattr(image, "is_animated", False):
        image = next(iter(ImageSequence.Iterator(image)))
        kinds.append("animated, of which the first frame")
    if min(image.size) == 1:
        kinds.append("of one pixel in height or width")
    return image.convert("RGB"), kinds


def _inside(folder: Path) -> Iterator[str]:
    return (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


class Archive(Mapping[str, bytes]):
    """The files in a .tar by name, read from their place; of a compressed one all are in memory."""

    def __init__(self, path: Path) -> None:
        self.path, packed = path, not path.name.lower().endswith(".tar")
        self.places: dict[str, tuple[int, int]] = {}
        self.whole: dict[str, bytes] = {}
        try:
            with tarfile.open(path) as archive:
                for member in archive:
                    if (file := archive.extractfile(member) if member.isfile() else None) is not None:
                        self.places[member.name] = member.offset_data, member.size
                        if packed:
                            self.whole[member.name] = file.read()
        except (tarfile.TarError, OSError, EOFError) as error:
            raise ValueError(f"{path}: not an archive that can be read ({one_line(error)}); copy it again") from error

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __getitem__(self, name: str) -> bytes:
        if name in self.whole:
            return self.whole[name]
        start, size = self.places[name]
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(size)
