"""What code a number is made by: the sources of a module and of all that it imports of the same people, by content.

Only what is read as code counts, by its syntax tree: no comment, docstring or line break, and no place. A module that
is moved is the same code; one that imports another's function of the same name is not. Late imports count as others do,
installed packages by their versions alone (see `identity`). Nothing is imported here: torch would take seconds.
"""

import ast
import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

OURS = ("prune", "experiments")
# They say, show, name and lock, and decide no number: a new word in a message shall not compute a sweep anew.
ASIDE = (
    "prune.progress",
    "experiments.console.bars",
    "experiments.console.errors",
    "experiments.console.families",
    "experiments.files.disk",
    "experiments.runs.identity",
    "experiments.runs.sources",
)
OTHERS = {"site-packages", "dist-packages"}  # where packages are installed
LIBRARY = Path(ast.__file__).parent  # Python's own


@dataclass(frozen=True)
class Source:
    """A module: sha256 of its code without the names of the modules that it imports, and those of them that count."""

    digest: str
    imports: tuple[str, ...]


def code(*targets: str) -> str | None:
    """Ten hexadecimal digits for the code of these functions or classes, by full name; None where one has no source."""
    if not targets or any(module_of(target) is None for target in targets):
        return None
    return hashlib.sha256(" ".join(sorted(modules(*targets).values())).encode()).hexdigest()[:10]


def modules(*targets: str) -> dict[str, str]:
    """Every module that these need, with ten digits of its content and of what it imports by which name."""
    digests: dict[str, str] = {}
    todo = [module for target in targets for module in _run(module_of(target) or "")]
    while todo:
        name = todo.pop()
        if name not in digests and name not in ASIDE:
            source = read(name)
            whole = [source.digest, *("aside" if other in ASIDE else read(other).digest for other in source.imports)]
            digests[name] = hashlib.sha256(" ".join(whole).encode()).hexdigest()[:10]
            todo += source.imports
    return dict(sorted(digests.items()))


def edited(*targets: str) -> list[str]:
    """The modules of these whose files hold another text than when this process first read them."""
    return [name for name in modules(*targets) if (file := _file(name)) is None or _bytes(file) != file.read_bytes()]


def module_of(target: str) -> str | None:
    """The module that a class or a function lies in; None where there is none with a source."""
    name = target
    while name and (_file(name) is None):
        name = name.rpartition(".")[0]
    return name or None


@cache
def read(name: str) -> Source:
    """The source of a module, as it is when this process first asks: that is what it imports, too."""
    file = _file(name)
    tree = ast.parse(_bytes(file)) if file else ast.Module([], [])
    imports = [other for node in ast.walk(tree) for other in _imported(node, name)]
    return Source(hashlib.sha256(repr(_plain(tree, name)).encode()).hexdigest(), tuple(imports))


@cache
def _bytes(file: Path) -> bytes:
    return file.read_bytes()


def _imported(node: ast.AST, here: str) -> Iterator[str]:
    """The modules that an import statement of module `here` runs, as far as they are read too."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        origin = _origin(node, here)
        names = [f"{origin}.{alias.name}" for alias in node.names]
    else:
        return
    for name in names:
        if _shared(name, here):
            yield from _run(name)


def _run(name: str) -> Iterator[str]:
    """The modules that an import of this one runs: itself, and the __init__.py of every package around it."""
    words = name.split(".")
    for count in range(1, len(words) + 1):
        module = ".".join(words[:count])
        if (file := _file(module)) and (file.name != "__init__.py" or _bytes(file).strip()):
            yield module


def _origin(node: ast.ImportFrom, here: str) -> str:
    """The module that names are imported from, in full."""
    file = _file(here)
    package = here.split(".") if file and file.name == "__init__.py" else here.split(".")[:-1]
    start = package[: len(package) - node.level + 1] if node.level else []
    return ".".join([*start, *([node.module] if node.module else [])])


def _plain(node: object, here: str) -> object:
    """A syntax tree as tuples: the same in every Python, without docstrings and the names of modules read elsewhere."""
    if isinstance(node, list):
        return tuple(_plain(part, here) for part in node)
    if not isinstance(node, ast.AST):
        return "" if node is None else repr(node)
    if isinstance(node, ast.ImportFrom) and _shared(_origin(node, here), here):
        return "from", tuple((alias.name, alias.asname) for alias in node.names)
    if isinstance(node, ast.Import):
        return "import", tuple(("" if _shared(name.name, here) else name.name, name.asname) for name in node.names)
    fields = dict(ast.iter_fields(node))
    documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    if documented and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = fields["body"][1:]
    parts = ((name, _plain(value, here)) for name, value in fields.items())
    return type(node).__name__, *((name, part) for name, part in parts if part)


def _shared(name: str, here: str) -> bool:
    """Whether a module counts with `here`, which imports it: of this project, of the same package, or not installed."""
    top = name.partition(".")[0]
    if top in (*OURS, here.partition(".")[0]):
        return True
    return any(not OTHERS & set(place.parts) and LIBRARY not in place.parents for place in _places(top))


@cache
def _file(name: str) -> Path | None:
    """The source of a module by its full name; None where there is none."""
    top, *inner = name.split(".")
    for place in _places(top):
        if inner:
            files = place.joinpath(*inner).with_name(f"{inner[-1]}.py"), place.joinpath(*inner, "__init__.py")
        else:
            files = place, place / "__init__.py"
        for file in files:
            if file.is_file():
                return file
    return None


@cache
def _places(top: str) -> tuple[Path, ...]:
    """The folders of a package, or the file of a module; none for what is built in or not there."""
    with suppress(ImportError, ValueError):
        spec = find_spec(top)
        if spec and spec.submodule_search_locations:
            return tuple(Path(place).absolute() for place in spec.submodule_search_locations)
        if spec and spec.origin and spec.origin.endswith(".py"):
            return (Path(spec.origin).absolute(),)
    return ()
