"""The text every Python installation carries: the topics of `help()` and the standard library's docstrings."""

import ast
import functools
import hashlib
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from jaxtyping import Int64
from torch import Tensor

from experiments.data.windows import Part, Source, encode

try:
    from pydoc_data.topics import topics
except ImportError:  # some distributions leave it out
    topics = {}

# Third-party code, test code, and the parts that distributions leave out most often.
SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "ensurepip", "__pycache__"}


@dataclass(frozen=True)
class Stdlib(Source):
    """Python's own documentation; 10 % of the documents (by name) are the held-out part, the rest is for calibration.

    sequences: number of calibration windows.
    length: tokens per calibration window, capped (with a line that says so) by the model's own limit.
    seed: of the generator that draws the windows.
    """

    sequences: int
    length: int
    seed: int
    name: ClassVar[str] = "stdlib"
    heldout: ClassVar[bool] = True

    def check(self) -> None:
        """Raises ValueError when this Python was installed without the sources of its library."""
        if not any(_sources(_library())):
            raise ValueError(
                f"data=stdlib reads the .py files of Python's library, found none in {_library()}; "
                "use a complete Python installation or data=textfile data.path=FILE"
            )

    def stream(self, tokenizer: Any, part: Part) -> Int64[Tensor, "tokens"]:
        """The documents of a part, joined by a blank line."""
        return encode(tokenizer, "\n\n".join(documents("train" if part == "calibration" else "heldout")))


def documents(part: Literal["train", "heldout"]) -> list[str]:
    """One text per documentation topic and per module, in the order of their names; the two parts share no docstring.

    The part is decided by the document's name alone, so that a module is on the same side under every Python version.
    """
    return [text for name, text in _corpus(_library()).items() if _part(name) == part]


def _library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _part(name: str) -> Literal["train", "heldout"]:
    return "heldout" if int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10 == 0 else "train"


@functools.cache
def _corpus(library: Path) -> dict[str, str]:
    """Name -> text. A piece seen before is left out: topics quote each other, and subclasses repeat docstrings."""
    seen, corpus = set(), {}
    for name, pieces in sorted([*_topics(), *_modules(library)]):
        new = [piece for piece in dict.fromkeys(pieces) if piece not in seen]
        seen.update(new)
        if new:
            corpus[name] = "\n\n".join(new)
    return corpus


def _topics() -> Iterator[tuple[str, list[str]]]:
    """The language reference that `help()` shows, in paragraphs: some topics contain others word for word."""
    for name, text in topics.items():
        yield f"topic {name}", [piece.strip("\n") for piece in text.split("\n\n") if piece.strip()]


def _modules(library: Path) -> Iterator[tuple[str, list[str]]]:
    for path in _sources(library):
        try:
            with warnings.catch_warnings(action="ignore"):  # an invalid escape in somebody else's string
                module = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
        yield f"module {path.relative_to(library).with_suffix('').as_posix()}", list(_docstrings(module))


def _sources(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir() and path.name not in SKIPPED and not path.name.startswith("config-"):
            yield from _sources(path)
        elif path.suffix == ".py":
            yield path


def _docstrings(node: ast.AST) -> Iterator[str]:
    """In the order of the source. Only statements are visited: an expression holds no docstring, and there are many."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        docstring = (ast.get_docstring(node) or "").strip()
        if docstring:
            yield docstring
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield from _docstrings(child)
