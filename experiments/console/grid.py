"""Tables of cells: on a terminal, in Markdown, in LaTeX and as CSV, each written in one place."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from tabulate import tabulate

from experiments.console.text import inline, visible

TAG = re.compile("<(?=[A-Za-z/!?])")  # what Markdown takes for the beginning of HTML
SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"}
SPECIAL |= {">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$"}
SPECIAL |= {letter: f"\\{letter}" for letter in "&%$#_{}"}
Spans = Sequence[tuple[str, int]]


def grid(header: Sequence[str], body: Sequence[Sequence[str]], align: str, style: str = "pipe") -> str:
    """A table of these cells, Markdown or ("simple") for a terminal.

    align: l (left, for words) or r (right, for numbers) for each column; the last letter holds for all that follow.
    """
    if style == "pipe":
        header, *body = [[no_html(cell).replace("|", r"\|") for cell in line] for line in (header, *body)]
    sides = [{"l": "left", "r": "right"}[side] for side in _filled(align, len(header))]
    return tabulate(body, header, style, disable_numparse=True, colalign=sides if body else None)


def no_html(text: str) -> str:
    """Text in which Markdown sees no HTML."""
    return TAG.sub("&lt;", text)


def latex(header: Sequence[str], parts: Iterable[Sequence[Sequence[str]]], align: str, above: Spans = ()) -> str:
    r"""A tabular of LaTeX cells (`escape` what is text), with a rule before each part; needs `\usepackage{booktabs}`.

    align: as in `grid`. above: a line over the header, as words and the number of columns that they are over.
    """
    line = lambda cells: " & ".join(cells) + r" \\"
    lines = [rf"\begin{{tabular}}{{{_filled(align, len(header))}}}", r"\toprule"]
    if above:
        ends = list(accumulate(columns for _, columns in above))
        rules = [rf"\cmidrule(lr){{{end - n + 1}-{end}}}" for (_, n), end in zip(above, ends, strict=True) if n > 1]
        lines += [line([spanning(*words) for words in above]), *rules]
    lines.append(line(header))
    for part in parts:
        lines += [r"\midrule", *map(line, part)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def spanning(cell: str, columns: int) -> str:
    """A LaTeX cell over so many columns, in their middle."""
    return cell if columns == 1 else rf"\multicolumn{{{columns}}}{{c}}{{{cell}}}"


def escape(text: str) -> str:
    """Text that LaTeX prints as it stands, in one line."""
    return "".join(SPECIAL.get(letter, letter) for letter in inline(text))


def sheet(lines: Sequence[Mapping[str, Any]]) -> str:
    """Lines (column -> value) as CSV, numbers with all their digits; a line without a column leaves its cell empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for line in lines for name in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: visible(cell) if isinstance(cell, str) else cell for name, cell in line.items()} for line in lines
    )
    return text.getvalue()


def _filled(align: str, columns: int) -> str:
    return (align + align[-1] * columns)[:columns]
