"""conf/README.md, made from the comments in conf/:  python -m experiments.reference

Every group of choices with its options, and every setting with its default and its meaning.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from experiments.disk import replacing
from experiments.options import CONF

ROOT = CONF.parent
COMMENT = re.compile(r"\s#\s(.*)$")
FEW = 5  # options that a row names
PRESETS = ("experiment", "experiment/ablation", "ablate", "hparams_search")  # they set what is listed elsewhere
PARTS = ("pattern", "metric", "allocator", "update")  # their modules open with what they are
HEAD = """# Settings

Made by `python -m experiments.reference` from the comments in this folder: the YAML files are the source, change them.

A run chooses one option of each group (`metric=wanda`; of `eval` and `tracker` any list, `eval=[perplexity,audit]`) and
can set every parameter of what it chose (`metric.alpha=50`). `python -m experiments.run experiment=wanda --cfg job
--resolve` shows all settings of a run without running it. An option is one YAML: its `_target_` is the class that is
made of it, the other keys are that class's parameters. A file more in a folder is an option more; nothing else changes.
"""
ABOUT = {  # what a folder is a choice of, in the order of a run
    "experiment": "A published method: a named combination of the choices below",
    "model": "Which language model: `model=local model.path=FOLDER` for any folder",
    "data": "Which text calibrates",
    "pattern": "Which masks are allowed, and which weights compete",
    "metric": "How much each weight matters",
    "allocator": "How sparse each layer is",
    "update": "What the remaining weights are",
    "eval": "What is measured, any list",
    "tracker": "Where it is logged, any list",
    "ablate": "One axis of an ablation, for any experiment: a multirun over its values",
    "experiment/ablation": "An ablation study: a multirun of its own, `experiment=ablation/NAME`",
    "hparams_search": "A prepared sweep over a method's settings",
    "hydra/launcher": "How the runs of a multirun are started",
}


@dataclass(frozen=True)
class Setting:
    """A key of an option, its default as written, and what its comment says."""

    name: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Option:
    """A YAML of conf/: its name, what its first lines say, and its settings."""

    name: str
    about: str
    settings: tuple[Setting, ...]

    @classmethod
    def read(cls, file: Path) -> "Option":
        """From its file; for a part of a method, or without a comment, from the sentence that its module opens with."""
        text = file.read_text(encoding="utf-8")
        head = re.match(r"(#.*\n)*", text).group()  # type: ignore[union-attr] - it matches nothing, too
        said = [line.lstrip("# ") for line in head.splitlines() if "@package" not in line]
        about = " ".join([*([_module(text)] if file.parent.name in PARTS or not said else []), *said])
        content = yaml.compose(text)
        return cls(file.stem, about, tuple(_settings(content, text.splitlines())) if content else ())


def _module(text: str) -> str:
    """The first sentence of the module that a YAML's `_target_` is in; empty if it has none of ours."""
    found = re.search(r"_target_: ((?:prune|experiments)[\w.]*)\.\w+", text)
    file = ROOT / (found[1].replace(".", "/") + ".py") if found else None
    said = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) if file else "") or ""
    return said.partition("\n\n")[0].replace("\n", " ")


def _settings(node: Any, lines: list[str], place: str = "") -> Iterator[Setting]:
    """Every leaf of a YAML mapping but what is Hydra's own; a comment stands on the line of its key."""
    for key, value in node.value:
        name = f"{place}{key.value}"
        if name in ("hydra", "defaults") or key.value == "_target_":
            continue
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            yield from _settings(value, lines, f"{name}.")
            continue
        line = lines[key.start_mark.line]
        comment = COMMENT.search(line)
        default = COMMENT.sub("", line).partition(":")[2].strip()
        yield Setting(name, default, comment[1] if comment else "")


def options(group: str) -> list[Option]:
    """The options of a group, by name."""
    return [Option.read(file) for file in sorted((CONF / group).glob("*.yaml"))]


def merged(name: str, group: list[Option]) -> list[list[str]]:
    """A row for each setting of a group: full name, default, meaning, and which options have it if not all do."""
    place = name.replace("/", ".")
    found: dict[tuple[str, str], dict[str, str]] = {}
    for option in group:
        for setting in option.settings:
            found.setdefault((setting.name, setting.meaning), {})[option.name] = setting.default
    names = list(dict.fromkeys(key for key, _ in found))
    rows = []
    for (key, meaning), having in sorted(found.items(), key=lambda entry: names.index(entry[0][0])):
        values = set(having.values())
        default = f"`{values.pop()}`" if len(values) == 1 else "its own"
        who = ", ".join(having) if len(having) <= FEW else f"{len(having)} of {len(group)}"
        rows.append([f"`{place}.{key}`", default, meaning, "" if len(having) == len(group) else who])
    return rows


def render() -> str:
    """The whole page as Markdown."""
    root = Option.read(CONF / "config.yaml").settings
    rows = [[f"`{s.name}`", f"`{s.default}`", s.meaning] for s in root if not (CONF / s.name).is_dir()]
    parts = [HEAD.strip(), "## A run", _table(["setting", "default", "meaning"], rows)]
    for name, about in ABOUT.items():
        group = options(name)
        parts += [f"## {name}", f"{about}.", _table([f"`{name}=`", "what it is"], [[o.name, o.about] for o in group])]
        if rows := merged(name, group) if name not in PRESETS else []:
            parts.append(_table(["setting", "default", "meaning", "only of"], rows))
    return "\n\n".join(parts) + "\n"


def _table(header: list[str], body: list[list[str]]) -> str:
    """Not padded: a longer comment would change every line."""
    rows = [header, ["---"] * len(header), *([cell.replace("|", r"\|") for cell in row] for row in body)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    argparse.ArgumentParser(prog="python -m experiments.reference", description="Write conf/README.md.").parse_args(
        arguments
    )
    with replacing(CONF / "README.md") as place:
        place.write_text(render(), encoding="utf-8")
    print(f"wrote {CONF / 'README.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
