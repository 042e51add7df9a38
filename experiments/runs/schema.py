"""What those that read a run's JSON rely on: the type and range of each field, held against a file where it is read.

A form says what a value has to look like: a `Kind` of value, (form,) for null or what has the form, [form] for a list
of such, {name: form} for an object. There "name!" has to be there, "ppl/" stands for all names that begin with it and
"*" for all others. Fields that nobody reads are free.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from experiments.files.disk import as_written

LEVELS = 40  # of nesting: six are in use
LARGEST = 2**63  # of an integer
BINS = 60  # of a histogram


@dataclass(frozen=True)
class Kind:
    """A value that is no object: what it is called, and which values are of this kind."""

    name: str
    holds: Callable[[Any], bool]


Form = Kind | tuple[Any] | list[Any] | dict[str, Any]


def read(path: Path, form: Form, sealed: bool = False) -> dict[str, Any]:
    """A JSON object of this form; ValueError naming the file and what is wrong in it, OSError from the disk.

    One that has a seal (`disk.seal`) is held against it; one without is refused with `sealed`, and if it tells what its
    run is made of, as a manifest of a version that seals. Half a surrogate pair, which no file can be written with, is
    read as a question mark.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError(f"{path.name} is not a JSON object")
        altered = (sealed or content.get("content") or "sha256" in content) and not as_written(content)
        if "\\ud" in text.lower():
            content = json.loads(json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"))
    except FileNotFoundError:
        raise ValueError(f"{path.name} is missing") from None
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deep") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from error
    if altered:
        raise ValueError(f"{path.name} is not as it was written; the same command makes it again")
    try:
        refuse_odd(content)
        refuse(content, form)
    except ValueError as error:
        raise ValueError(f"{path.name}: {str(error).lstrip('.: ')}") from None
    return content


def refuse(value: Any, form: Form, place: str = "") -> None:
    """ValueError saying where a value is not of this form, what was expected and what is there."""
    if isinstance(form, Kind):
        if not form.holds(value):
            raise fault(value, form.name, place)
    elif isinstance(form, tuple):
        if value is not None:
            refuse(value, form[0], place)
    elif isinstance(form, list):
        if not isinstance(value, list):
            raise fault(value, "a list", place)
        for number, item in enumerate(value):
            refuse(item, form[0], f"{place}.{number}")
    else:
        if not isinstance(value, dict):
            raise fault(value, "an object", place)
        needed = [name.removesuffix("!") for name in form if name.endswith("!")]
        if missing := [name for name in needed if name not in value]:
            raise ValueError(f"{place}: has no {', '.join(missing)}")
        for name, item in value.items():
            part = form.get(name) or form.get(f"{name}!") or form.get(f"{name.partition('/')[0]}/") or form.get("*")
            if part:
                refuse(item, part, f"{place}.{name}")


def fault(value: Any, what: str, place: str) -> ValueError:
    """What is said of a value that is not what it should be."""
    there = {dict: "an object", list: "a list"}.get(type(value)) or json.dumps(value)[:40]
    return ValueError(f"{place}: expected {what}, found {there}")


def refuse_odd(value: Any, place: str = "", levels: int = LEVELS) -> None:
    """ValueError for what is right nowhere: deep nesting, an integer of more than 64 bits, a `_target_` of no name."""
    if not levels:
        raise ValueError(f"{place}: nested more than {LEVELS} levels deep")
    for name, part in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(part, dict | list):
            refuse_odd(part, f"{place}.{name}", levels - 1)
        elif type(part) is int and abs(part) >= LARGEST:
            raise fault(part, "a number of 64 bits", f"{place}.{name}")
        if name == "_target_" and not isinstance(part, str):
            raise fault(part, "a text", f"{place}.{name}")


def _with_zone(value: Any) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False


TEXT = Kind("a text", lambda value: isinstance(value, str))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
STATUS = Kind("running, done or failed", lambda value: value in ("running", "done", "failed"))
MOMENT = Kind("a date and time with its zone", _with_zone)
NUMBER = Kind("a number", lambda value: type(value) in (int, float))  # NaN and infinite too: a model may diverge
AMOUNT = Kind("a number from 0 on", lambda value: NUMBER.holds(value) and 0 <= value < math.inf)
SHARE = Kind("a number from 0 to 1", lambda value: NUMBER.holds(value) and 0 <= value <= 1)
LOSS = Kind("a positive number", lambda value: NUMBER.holds(value) and not value <= 0)  # or NaN
SIZE = Kind("a positive integer", lambda value: type(value) is int and 0 < value < LARGEST)
SHAPE = Kind("rows and columns", lambda value: type(value) is list and len(value) == 2 and all(map(SIZE.holds, value)))
NUMBERS = Kind("a list of numbers", lambda value: type(value) is list and {*map(type, value)} <= {int, float})
COUNTS = Kind(
    f"{BINS} numbers from 0 on",
    lambda value: NUMBERS.holds(value) and len(value) == BINS and min(value) >= 0 and max(value) < LARGEST,
)

SETTINGS = Kind("an object", lambda value: isinstance(value, dict))  # of which no part is read by itself
GIVEN = {"names!": {"method!": TEXT}, "config!": SETTINGS}
CONFIG = {"model": SETTINGS, "pattern": ({"n": SIZE, "m": SIZE},), "given": (GIVEN,), "propagate": TEXT}
CODE = {"commit": (TEXT,), "dirty": (FLAG,), "diff": (TEXT,), "versions": ({"*": (TEXT,)},), "ranks": (SIZE,)}
PEAKS = {"*": (AMOUNT,)}
LAYER = {
    "name!": TEXT,
    "block!": TEXT,
    "shape!": SHAPE,
    "sparsity!": SHARE,
    "dtype": (TEXT,),
    "target": (SHARE,),
    "wanted": (NUMBER,),
    "bits": SIZE,
    "grids": SIZE,
    "zeros": SHARE,
    "notes": {"*": NUMBER},
    "measures": {"*": NUMBER},
    "histograms": ({"*": {"removed!": COUNTS, "kept!": COUNTS}},),
}
ROWS = {"layers!": [LAYER]}  # of a block
METRICS = {"ppl/": LOSS, "audit/sparsity": SHARE, "audit/zeros": SHARE, "*": NUMBER}
PROTOCOL = {"tasks": {"*": {"members": [TEXT]}}, "mean_over": [TEXT]}

MANIFEST = CODE | {
    **dict.fromkeys(("model", "method", "pattern", "identity", "name", "error", "traceback", "unsaved"), TEXT),
    **dict.fromkeys(("command", "sweep", "model_content", "model_commit", "stage"), (TEXT,)),
    **dict.fromkeys(("device", "chip", "platform"), (TEXT,)),
    **dict.fromkeys(("started", "finished"), (MOMENT,)),
    **dict.fromkeys(("cores", "threads", "blocks"), (SIZE,)),
    "sources": {"*": TEXT},
    "environment": {"*": TEXT},
    "content": (SETTINGS,),
    "sparsity": SHARE,
    "status": STATUS,
    "config": CONFIG,
    "data": ({"name": TEXT, "sha256": TEXT},),
    "pruned": (CODE | {"also": [CODE]},),
    "retries": ([SETTINGS],),
}
FLAGS = dict.fromkeys(("higher", "percent", "main", "difference"), FLAG)
FAMILIES = {"*": {"title!": TEXT, "place": NUMBER} | FLAGS}
RESULTS = {
    "metrics": METRICS,
    "families": FAMILIES,
    "dense": METRICS,
    "difference_stderr": {"*": NUMBER},
    "step": {"*": TEXT},
    "protocol": {"*": PROTOCOL},
    "settings": {"*": SETTINGS},
    "seconds": {"*": AMOUNT},
    "saved": {"*": AMOUNT},
    "given": {"*": AMOUNT},
    "stage_memory": {"*": PEAKS},
    "memory": PEAKS,
    "skipped": {"*": TEXT},
    "notes": {"*": NUMBER},
    "layers": [LAYER],
    "stored": {"weights!": SIZE, "bytes!": SIZE, "linears!": SIZE},
    "blocks": [{"block!": TEXT, "error!": (NUMBER,), "seconds!": AMOUNT}],
}
STEP = {"metrics": METRICS, "protocol": PROTOCOL, "details": {"losses": NUMBERS, "scores": {"*": NUMBERS}}}
NOTE = {"seconds": AMOUNT}  # of a solved block
SWEEP = {"jobs!": [{"identity!": TEXT, "folder!": TEXT}]}
SHAPES = {"*": SHAPE}  # of packed masks
