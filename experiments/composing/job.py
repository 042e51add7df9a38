"""One run that a command line asks for."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from experiments.runs.folder import Names, Run


@dataclass(frozen=True)
class Job:
    """One run that the command line asks for."""

    config: dict[str, Any]
    names: Names
    overrides: tuple[str, ...] = ()
    choices: dict[str, Any] = field(default_factory=dict)  # the option of each group

    @cached_property
    def run(self) -> Run:
        """Its run, named once: its code and its files are hashed for that. Nothing is written yet."""
        return Run.open(self.config, self.names)
