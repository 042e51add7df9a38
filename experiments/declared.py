"""What a class says of itself in its source: importing a component would import torch, which takes seconds."""

import ast
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any


@cache
def declared(target: str, fact: str) -> Any:
    """The constant that the class of this full name, or else the first of its bases that has one, gives to `fact`.

    A base is looked for where its module imports it from by name, or in that module. ImportError or AttributeError
    where there is no such module, class or constant; ValueError for a value that is computed.
    """
    module, _, name = target.rpartition(".")
    found = find_spec(module)
    if found is None or found.origin is None:
        raise ImportError(f"no module {module}")
    tree = ast.parse(Path(found.origin).read_text(encoding="utf-8"))
    owner = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)
    if owner is None:
        raise AttributeError(f"no class {target}")
    if (value := _value(owner, fact)) is not None:
        return ast.literal_eval(value)
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    origins = {part.asname or part.name: f"{each.module}.{part.name}" for each in imports for part in each.names}
    for base in map(ast.unparse, owner.bases):
        with suppress(ImportError, AttributeError):
            return declared(origins.get(base, f"{module}.{base}"), fact)
    raise AttributeError(f"{target} does not say {fact}")


def _value(owner: ast.ClassDef, fact: str) -> ast.AST | None:
    """What the class's own body makes of the name: the value it is set to, or the function it is; None if nothing."""
    for node in owner.body:
        if isinstance(node, ast.FunctionDef) and node.name == fact:
            return node
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if fact in [target.id for target in targets if isinstance(target, ast.Name)] and node.value:  # type: ignore[attr-defined]
            return node.value  # type: ignore[attr-defined]
    return None
