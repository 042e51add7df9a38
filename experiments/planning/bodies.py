"""What models are made of, found once: plans read it from <outputs>/cache/bodies, for transformers takes seconds."""

from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from experiments.checkpoints import admission, whereabouts
from experiments.checkpoints.admission import empty
from experiments.contents import digest
from experiments.disk import seal, sealed
from experiments.identity import fingerprint, libraries
from experiments.planning import anatomy
from experiments.planning.anatomy import Anatomy, Body, Layer, dissect
from experiments.planning.counting import Counts
from prune import block
from prune.decoder import Decoder

Options = tuple[str, str | None, str | None, bool]  # of a skeleton: path, revision, dtype, trust_remote_code


@cache
def body(options: Options, blocks: str | None, routers: bool, asked: int, outputs: str) -> Body:
    """The model of these options, run on one sequence of `asked` tokens, or of as many as it takes.

    It is found anew each time for a model with code of its own, and where nothing can be written. ValueError or OSError
    in one line for a configuration that makes no model.
    """
    file = _file(options, blocks, routers, asked, outputs)
    if file is not None and (known := sealed(file)) is not None:
        return _read(known)
    decoder = Decoder(empty(*options, blocks), None, blocks, routers=routers)
    found = dissect(decoder, min(asked, decoder.limit))
    with suppress(OSError):
        if file is not None:
            seal(file, {"model": options[0]} | asdict(found))
    return found


def _file(options: Options, blocks: str | None, routers: bool, asked: int, outputs: str) -> Path | None:
    """Where it is kept, named by the content of config.json, by what lies beside it, by what is asked, and by the code
    that looks.
    """
    path, revision, dtype, own_code = options
    if own_code:
        return None
    try:
        content = [digest(whereabouts.configuration(path, revision)), whereabouts.inventory(path)]
    except Exception:  # whatever is wrong with it, `skeleton` says so
        return None
    code = [digest(Path(module.__file__).parent) for module in (anatomy, block, admission)]
    who = fingerprint([content, dtype, blocks, routers, asked, code, libraries()])
    return Path(outputs) / "cache" / "bodies" / f"{who}.json"


def _read(known: dict[str, Any]) -> Body:
    """What `asdict` made a dictionary of."""
    del known["model"]
    blocks = []
    for part in known.pop("blocks"):
        layers = [Layer(**layer | {"shape": tuple(layer["shape"])}) for layer in part.pop("layers")]
        forward, graph = Counts(**part.pop("forward")), Counts(**part.pop("graph"))
        blocks.append(Anatomy(layers=layers, forward=forward, graph=graph, **part))
    return Body(blocks=blocks, **known)
