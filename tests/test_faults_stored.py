"""What lies in outputs/ is cut, altered or gone: it is noticed, computed again, and ends with the same numbers."""

from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.files.disk import seal, sealed
from tests.faults import Fault, ask, cases, check, settings, workplace

KEPT = "experiment=magnitude save_model=true"
RUN = "out/model/magnitude-*/"
AGAIN = "is not as it was written; it is computed again"


def cut(file: Path) -> None:
    """Half of it, as a power loss leaves it."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    """Nothing of it."""
    file.write_bytes(b"")


def listed(file: Path) -> None:
    """JSON, but another thing."""
    file.write_text("[1, 2]")


def gone(file: Path) -> None:
    """The file is removed."""
    file.unlink()


def altered(file: Path) -> None:
    """One digit of a JSON file, or the last byte of another, is another one: it still can be read."""
    content = bytearray(file.read_bytes())
    if file.suffix == ".json":  # the first digit behind the first fraction's point
        place = content.index(b".", content.index(b": 0.") if b": 0." in content else 0) + 1
        content[place] = (content[place] - 48 + 1) % 10 + 48
    else:
        content[-1] ^= 1
    file.write_bytes(bytes(content))


def spoil(*what: tuple[str, Callable[[Path], None]], first: str = "") -> Callable[[Path], None]:
    """After the command `first`, do this to the first file that each pattern finds."""

    def prepare(here: Path) -> None:
        if first:
            assert ask(*settings(first, here, workplace())).code == 0
        for pattern, harm in what:
            harm(sorted(here.glob(pattern))[0])

    return prepare


def told(**facts: object) -> Callable[[Path], None]:
    """A manifest with other facts in it."""

    def prepare(here: Path) -> None:
        (path,) = here.glob(RUN + "manifest.json")
        seal(path, sealed(path) | facts)

    return prepare


RESULTS, STEP, DENSE = RUN + "results.json", RUN + "steps/perplexity-*.json", "out/cache/dense/perplexity-*.json"
ROWS, WEIGHTS, MANIFEST = RUN + "steps/blocks/*.json", RUN + "model/*.safetensors", RUN + "manifest.json"
GBLM, OTHER = "metric=gblm eval=[]", "metric=gblm eval=[] sparsity=0.7"
SURVEY, LIST = "out/cache/surveys/*/*.safetensors", "out/cache/surveys/*/complete.json"
GIVEN, BUILT = "given=wanda update=sparsegpt eval=[]", "given=wanda update=dsnot eval=[]"
MASKS, BLOCK = RUN + "masks/*.safetensors", "out/model/wanda-unstructured-*/blocks/*1.safetensors"
MASK = BLOCK.replace("blocks", "masks")
FAULTS = [
    Fault("a manifest cut short", KEPT, "", 0, spoil((MANIFEST, cut))),
    Fault("a manifest that is empty", KEPT, "", 0, spoil((MANIFEST, empty))),
    Fault("a manifest of another form", KEPT, "", 0, spoil((MANIFEST, listed))),
    Fault("a manifest that is gone", KEPT, "", 0, spoil((MANIFEST, gone))),
    Fault("a run whose process was killed", KEPT, "", 0, told(status="running", finished=None)),
    Fault("a run that was finished in the future", KEPT, "done on 2999", 0, told(finished="2999-01-01T00:00:00+00:00")),
    Fault("results cut short", KEPT, "results.json " + AGAIN, 0, spoil((RESULTS, cut))),
    Fault("results of another form", KEPT, "results.json " + AGAIN, 0, spoil((RESULTS, listed))),
    Fault("results that were altered", KEPT, "results.json " + AGAIN, 0, spoil((RESULTS, altered))),
    Fault("results that are gone", KEPT, "", 0, spoil((RESULTS, gone))),
    Fault("an evaluation cut short", KEPT, AGAIN, 0, spoil((STEP, cut))),
    Fault("an evaluation that was altered", KEPT, AGAIN, 0, spoil((STEP, altered))),
    Fault("an evaluation that is empty", KEPT, AGAIN, 0, spoil((STEP, empty))),
    Fault("the dense model's numbers cut short", KEPT, AGAIN, 0, spoil((DENSE, cut), (RESULTS, gone))),
    Fault("the dense model's numbers altered", KEPT, AGAIN, 0, spoil((DENSE, altered), (RESULTS, gone))),
    Fault("rows of a block altered", KEPT, AGAIN, 0, spoil((ROWS, altered))),
    Fault("a mask cut short", KEPT, AGAIN, 0, spoil((MASKS, cut))),
    Fault("a mask altered", KEPT, AGAIN, 0, spoil((MASKS, altered))),
    Fault(
        "saved weights cut short", KEPT, "model.*safetensors is not as it was", 0, spoil((WEIGHTS, cut), (STEP, gone))
    ),
    Fault(
        "saved weights altered", KEPT, "model.*safetensors is not as it was", 0, spoil((WEIGHTS, altered), (STEP, gone))
    ),
    Fault("gradients cut short", OTHER, AGAIN, 0, spoil((SURVEY, cut), first=GBLM)),
    Fault("gradients altered", OTHER, AGAIN, 0, spoil((SURVEY, altered), first=GBLM)),
    Fault("gradients gone", OTHER, "", 0, spoil((SURVEY, gone), first=GBLM)),
    Fault("the gradients' list cut short", OTHER, "", 0, spoil((LIST, cut), first=GBLM)),
    Fault("a given block cut short", BUILT, AGAIN, 0, spoil((BLOCK, cut), first=GIVEN)),
    Fault("a given block altered", BUILT, AGAIN, 0, spoil((BLOCK, altered), first=GIVEN)),
    Fault("a given mask altered", BUILT, AGAIN, 0, spoil((MASK, altered), first=GIVEN)),
]


OFTEN = ("a manifest of another form", "results cut short", "an evaluation that was altered")


@pytest.mark.parametrize("fault", cases(FAULTS, OFTEN))
def test_it_is_noticed_and_nothing_is_lost(fault, tmp_path):
    check(fault, tmp_path)
