"""The part of a table that is asked for, and models that stand in for its own so that it runs anywhere."""

from collections.abc import Mapping
from typing import Any

from experiments.composing.overrides import name_of
from experiments.reproduction.asked import Asked, pick
from experiments.reproduction.cells import entries, named, options

TEXT = ("data=stdlib", "data.sequences=32")  # small, and there wherever Python is
TASKS = ("eval=[perplexity,zeroshot,audit]", "eval.zeroshot.tasks=[stdlib]")


def narrow(table: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
    """The table with the asked models, methods, budgets, values and seeds alone, and what is set for every run.

    A model that the table does not have, but conf/model does, stands in. ValueError for what neither has, and for a
    model.path given to several models.
    """
    found, known = dict(table), entries(table)
    for part in ("methods", "budgets", "values"):
        wanted = pick(part.removesuffix("s"), getattr(asked, part), table.get(part, {}))
        found[part] = {name: entry for name, entry in table.get(part, {}).items() if name in wanted}
    labels = named(table, asked.models) or list(known)
    pick("model", [label for label in labels if label not in known], [*known, *options()])
    own = {label: entry | {"eval": evaluations(found, asked)} for label, entry in known.items()}
    found["models"] = {label: own.get(label) or stand_in(found, label, asked) for label in labels}
    runs = [label for label in labels if found["models"][label]["overrides"] is not None]
    if len(runs) > 1 and any(name_of(line) == "model.path" for line in asked.overrides):
        raise ValueError(f"model.path: one folder is one model, here are {len(runs)}; choose it with models=[ONE]")
    return found | {"seeds": list(asked.seeds or table["seeds"]), "asked": list(asked.overrides)}


def evaluations(table: Mapping[str, Any], asked: Asked) -> list[str] | None:
    """The evaluations that runs are to make, if the command line names them or the values; None for the table's own."""
    if lines := [line for line in asked.overrides if name_of(line) == "eval"]:
        return [name.strip() for name in lines[-1].partition("=")[2].strip("[] ").split(",")]
    if not asked.values:
        return None
    keys = [str(value.get("key")) for value in table["values"].values()]
    texts = [key.removeprefix("ppl/").partition("@")[0] if key.startswith("ppl/") else "zeroshot" for key in keys]
    return [*dict.fromkeys(texts), "audit"]


def stand_in(table: Mapping[str, Any], option: str, asked: Asked) -> dict[str, Any]:
    """What a table would say of a model that is not one of its own: text and tasks that need no download.

    A table without published numbers is measured on any model as on its own.
    """
    if table["kind"] != "published":
        return {"overrides": [f"model={option}"]}
    groups = [name_of(line) for line in asked.overrides]
    own = [line for line in table["overrides"] if name_of(line).split(".")[0] not in ("data", "eval", "model")]
    scored = any(str(value.get("key")).startswith("acc") for value in table["values"].values())
    lines = list(TEXT) * ("data" not in groups)
    if "eval" not in groups:
        lines += TASKS if scored else ("eval=[perplexity,audit]",)
    return {"base": own, "overrides": [f"model={option}", *lines], "stand_in": True}
