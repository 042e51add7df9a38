"""Command lines of options with dashes: a mistake in one is a line that says what to write instead."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from experiments.console.errors import nearest

CONF = Path(__file__).parents[2] / "conf"
CONSOLE = "prune-lm "  # what sys.argv[0] begins with where the console command began
TAKEN = "NAME=VALUE"  # the metavar of words that are settings of runs


class Arguments(argparse.ArgumentParser):
    """An ArgumentParser that raises ValueError, also for what is written as a setting and is none here.

    It calls itself as it was called: `prune-lm NAME`, or python -m experiments.NAME.
    """

    def __init__(self, **named: Any) -> None:
        texts = {key: named[key] for key in ("prog", "epilog") if named.get(key) and sys.argv[0].startswith(CONSOLE)}
        super().__init__(
            **named | {key: text.replace("python -m experiments.", CONSOLE) for key, text in texts.items()}
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As its parent does."""
        words = list(sys.argv[1:] if args is None else args)
        if not self._takes_settings:
            for before, word in zip(["", *words], words, strict=False):
                if not before.startswith("-"):
                    self._refuse_setting(word)
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """ValueError for what is wrong, with the nearest option, or the setting that is meant, of an unknown word."""
        word, *others = message.partition("unrecognized arguments: ")[2].split() or [""]
        options = self._option_string_actions
        if word:
            near = difflib.get_close_matches(word.partition("=")[0], options, 1, 0.8)
            message = f"{word} is not expected{nearest(word, options)}"
            if self._takes_settings and not near:
                message = without_dashes(word, *others[:1])
        raise ValueError(f"{message}; --help lists what there is")

    @property
    def _takes_settings(self) -> bool:
        """Whether words of it, or of commands below it, are settings of runs."""
        return any(action.metavar == TAKEN or action.nargs == argparse.PARSER for action in self._actions)

    def _refuse_setting(self, word: str) -> None:
        """ValueError for a word that is written as a setting: an option, an argument or a setting of other commands."""
        name, equals, value = word.partition("=")
        if not equals or Path(word).exists():
            return
        if f"--{name}" in self._option_string_actions:
            raise ValueError(f"{word}: an option here; write --{name} {value}")
        if any(action.dest == name and not action.option_strings for action in self._actions):
            raise ValueError(f"{word}: write {value} alone")
        top = name.partition(".")[0]
        if (CONF / top).is_dir() or f"\n{top}: " in (CONF / "config.yaml").read_text(encoding="utf-8"):
            raise ValueError(f"{word}: a setting of experiments.run, and none here; --help lists what there is")


def without_dashes(word: str, following: str = "") -> str:
    """What to write in place of a setting that has dashes in front: `--sparsity 0.5` is sparsity=0.5."""
    name, _, value = word.lstrip("-").partition("=")
    value = value or ("VALUE" if not following or following.startswith("-") or "=" in following else following)
    return f"{word}: a setting is written without dashes, {name.replace('-', '_')}={value}"


def bare(words: Sequence[str]) -> str:
    """What the first word without = could be meant for, for the end of a line; empty if all have one."""
    word = next((word for word in words if "=" not in word), "")
    if word and (CONF / word).is_dir():
        return f"; did you mean {word}=NAME?"
    groups = [folder.name for folder in sorted(CONF.iterdir()) if word and (folder / f"{word}.yaml").is_file()]
    return f"; did you mean {groups[0]}={word}?" if groups else ""
