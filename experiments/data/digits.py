"""1,797 handwritten digits of 8 x 8 pixels, which scikit-learn carries (UCI, Alpaydin and Kaynak, 1998)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from PIL import Image
from sklearn.datasets import load_digits

from experiments.data.images import Album, ImageSource, Some
from experiments.data.windows import Part

EVERY = 5  # the fifth of five images is held out
WHITE = 16  # the largest value of a pixel


class Drawn(Album):
    """All digits, grey made RGB."""

    def __init__(self) -> None:
        loaded: Any = load_digits()
        self.pictures = (loaded.images * (255 / WHITE)).round().astype("uint8")
        self.classes = [str(digit) for digit in loaded.target]

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, k: Any) -> tuple[str, Any]:
        return f"digit {k}", Image.fromarray(self.pictures[k]).convert("RGB")


@dataclass(frozen=True)
class Digits(ImageSource):
    """Every fifth image is held out for evaluation; `images` of the others calibrate, drawn with `seed`."""

    images: int = 256
    seed: int = 0
    name: ClassVar[str] = "digits"

    def album(self, part: Part) -> Album:
        """The images of one part."""
        whole, last = Drawn(), EVERY - 1
        return Some(whole, [k for k in range(len(whole)) if (k % EVERY == last) == (part == "evaluation")])
