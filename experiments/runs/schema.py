"""What those that read a run's JSON rely on: the type and range of each field, held against a file where it is read.

A check takes a value and raises ValueError saying where what was expected and found. Fields that nobody reads are free.
"""

import json
import math
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from experiments.files.disk import as_written

Check = Callable[[Any], None]
LEVELS = 40  # of nesting in free parts, such as settings: six are in use
LARGEST = 2**63  # of an integer
BINS = 60  # of a histogram


def read(path: Path, check: Check, sealed: bool = False) -> dict[str, Any]:
    """A JSON object that passes the check; ValueError naming the file and what is wrong in it, OSError from the disk.

    One that has a seal (`disk.seal`) is held against it; with `sealed` one without is refused. Half a surrogate pair,
    which no file can be written with, is read as a question mark.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        altered = isinstance(content, dict) and (sealed or "sha256" in content) and not as_written(content)
        if "\\ud" in text.lower():
            content = json.loads(json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"))
    except FileNotFoundError:
        raise ValueError(f"{path.name} is missing") from None
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deep") from None
    except ValueError as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    if altered:
        raise ValueError(f"{path.name} is not as it was written; the same command makes it again")
    try:
        check(content)
    except ValueError as error:
        raise ValueError(f"{path.name}: {str(error).lstrip('.: ')}") from None
    return content


def expect(holds: bool, value: Any, what: str) -> None:
    """ValueError where it does not hold."""
    if not holds:
        found = {dict: "an object", list: "a list"}.get(type(value)) or json.dumps(value)[:40]
        raise ValueError(f": expected {what}, found {found}")


def inside(name: Any, check: Check, value: Any) -> None:
    """Checks a part, whose name stands in front of what is wrong with it."""
    try:
        check(value)
    except ValueError as error:
        raise ValueError(f".{name}{error}") from None


def fields(needed: tuple[str, ...] = (), **known: Check) -> Check:
    """An object with these fields, each of which may be absent unless it is needed; others are not looked at."""

    def check(value: Any) -> None:
        expect(isinstance(value, dict), value, "an object")
        if missing := [name for name in needed if name not in value]:
            raise ValueError(f": has no {', '.join(missing)}")
        for name in known.keys() & value.keys():
            inside(name, known[name], value[name])

    return check


def each(part: Check) -> Check:
    """An object whose values all pass the check."""

    def check(value: Any) -> None:
        expect(isinstance(value, dict), value, "an object")
        for name, content in value.items():
            inside(name, part, content)

    return check


def many(part: Check) -> Check:
    """A list whose items all pass the check."""

    def check(value: Any) -> None:
        expect(isinstance(value, list), value, "a list")
        for place, content in enumerate(value):
            inside(place, part, content)

    return check


def maybe(part: Check) -> Check:
    """Null, or what passes the check."""
    return lambda value: None if value is None else part(value)


def both(*checks: Check) -> Check:
    """What passes all of them."""

    def check(value: Any) -> None:
        for part in checks:
            part(value)

    return check


def text(value: Any) -> None:
    """Any string."""
    expect(isinstance(value, str), value, "a text")


def flag(value: Any) -> None:
    """True or false."""
    expect(isinstance(value, bool), value, "true or false")


def moment(value: Any) -> None:
    """A date and time with its zone."""
    try:
        known = datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        known = False
    expect(known, value, "a date and time with its zone")


def number(value: Any) -> None:
    """A number, which may be NaN or infinite: a model may diverge."""
    expect(isinstance(value, float) or (type(value) is int and abs(value) < LARGEST), value, "a number")


def amount(value: Any) -> None:
    """A finite number from 0 on."""
    number(value)
    expect(0 <= value < math.inf, value, "a number from 0 on")


def share(value: Any) -> None:
    """A number from 0 to 1."""
    number(value)
    expect(0 <= value <= 1, value, "a share from 0 to 1")


def size(value: Any) -> None:
    """A positive integer."""
    expect(type(value) is int and 0 < value < LARGEST, value, "a positive integer")


def shape(value: Any) -> None:
    """Rows and columns of a matrix."""
    many(size)(value)
    expect(len(value) == 2, value, "rows and columns")


def numbers(value: Any) -> None:
    """A list of numbers, told at once: there are thousands of them."""
    expect(isinstance(value, list) and set(map(type, value)) <= {int, float}, value, "a list of numbers")
    expect(all(-LARGEST < one < LARGEST for one in value if type(one) is int), value, "numbers of 64 bits")


def bins(value: Any) -> None:
    """The counts or shares of a histogram."""
    numbers(value)
    expect(len(value) == BINS and min(value) >= 0 and max(value) < LARGEST, value, f"{BINS} numbers from 0 on")


def free(value: Any, levels: int = LEVELS) -> None:
    """Settings and the like: any JSON that is not too deep; `_target_` names a class."""
    if not levels:
        raise ValueError(f": nested more than {LEVELS} levels deep")
    for name, content in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(content, dict | list):
            inside(name, lambda part: free(part, levels - 1), content)
        elif type(content) is int:
            inside(name, number, content)
        elif name == "_target_":
            inside(name, text, content)


def settings(value: Any) -> None:
    """An object of free parts."""
    expect(isinstance(value, dict), value, "an object")
    free(value)


def status(value: Any) -> None:
    """How a run stands, as it says itself."""
    expect(value in ("running", "done", "failed"), value, "running, done or failed")


def metric(value: Any) -> None:
    """The numbers of an evaluation; a perplexity is positive where it is a number at all, a sparsity is a share."""
    each(number)(value)
    for name, found in value.items():
        if name.startswith("ppl/"):
            inside(name, lambda one: expect(not one <= 0, one, "a positive number"), found)
        elif name == "audit/sparsity":
            inside(name, share, found)


def signed(value: Any) -> None:
    """A manifest that tells what its run is made of is of a version that seals it."""
    if value.get("content") and "sha256" not in value:
        raise ValueError(": has no sha256, so it is not as it was written; the same command makes it again")


GIVEN = fields(("names", "config"), names=fields(("method",), method=text), config=settings)
NM = fields(n=size, m=size)
CONFIG = both(settings, fields(model=settings, pattern=maybe(NM), given=maybe(GIVEN), propagate=text))
VERSIONS = each(maybe(text))
CODE = fields(commit=maybe(text), dirty=maybe(flag), diff=maybe(text), versions=maybe(VERSIONS), ranks=maybe(size))
DATA = both(settings, fields(name=text, sha256=text))
PEAKS = each(maybe(amount))
HISTOGRAM = fields(("removed", "kept"), removed=bins, kept=bins)
LAYER = fields(
    ("name", "block", "shape", "sparsity"),
    **{"name": text, "block": text, "shape": shape, "sparsity": share, "dtype": maybe(text)},
    **{"target": maybe(share), "wanted": maybe(number), "notes": each(number), "histograms": maybe(each(HISTOGRAM))},
)
ROWS = fields(("layers",), layers=many(LAYER))  # of a block
BLOCK = fields(("block", "error", "seconds"), block=text, error=maybe(number), seconds=amount)
PROTOCOL = both(settings, fields(tasks=each(settings), mean_over=many(text)))

MANIFEST = both(
    CODE,
    signed,
    fields(
        **dict.fromkeys(("model", "method", "pattern", "identity", "name", "error", "traceback"), text),
        **dict.fromkeys(("command", "sweep", "model_content", "model_commit"), maybe(text)),
        **dict.fromkeys(("device", "chip", "platform"), maybe(text)),
        **dict.fromkeys(("started", "finished"), maybe(moment)),
        **dict.fromkeys(("cores", "threads", "blocks"), maybe(size)),
        **{"content": maybe(settings), "sources": each(text), "environment": each(text)},
        **{"sparsity": share, "status": status, "config": CONFIG, "data": maybe(DATA)},
        **{"pruned": maybe(both(CODE, fields(also=many(CODE)))), "retries": maybe(many(settings))},
    ),
)
RESULTS = fields(
    **{"metrics": metric, "dense": metric, "difference_stderr": each(number)},
    **{"step": each(text), "protocol": each(PROTOCOL), "settings": each(settings), "skipped": each(text)},
    **{"seconds": each(amount), "stage_memory": each(PEAKS), "memory": PEAKS},
    **{"notes": each(number), "layers": many(LAYER), "blocks": many(BLOCK)},
)
STEP = fields(metrics=metric, protocol=PROTOCOL, details=fields(losses=numbers, scores=each(numbers)))
NOTE = fields(seconds=amount)  # of a solved block
SWEEP = fields(("jobs",), jobs=many(fields(("identity", "folder"), identity=text, folder=text)))
SHAPES = each(shape)  # of packed masks
