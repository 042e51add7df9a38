"""The tables of published numbers as they are written: experiments/tables/*.yaml of kind `published`."""

from functools import cache
from pathlib import Path

import yaml

FOLDER = Path(__file__).parents[1] / "experiments" / "tables"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
OURS = (
    "parity",
    "parity_smollm2",
    "order",
    "all_methods",
    "study",
    "joint",
    "vision",
    "best",
)  # of our own
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem not in OURS)


@cache
def table(name):
    """A table as plain values."""
    return yaml.load((FOLDER / f"{name}.yaml").read_text(), LOADER)


def numbers(name):
    """(column, budget, method, model) -> what is printed, as text, and its spread or None."""
    found = {}
    for column, budgets in table(name)["published"].items():
        for budget, methods in budgets.items():
            for method, models in methods.items():
                for model, number in models.items():
                    entry = number if isinstance(number, dict) else {"value": number}
                    found[column, budget, method, model] = (str(entry["value"]), entry.get("spread"))
    return found
