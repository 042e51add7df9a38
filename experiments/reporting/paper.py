"""The table as LaTeX to paste into a paper: booktabs, a tabular for each model and kind of metric."""

import math
import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from experiments.console.text import inline
from experiments.reporting.findings import Bold, Findings
from experiments.runs.identity import fingerprint
from experiments.summary.rows import Table, digits
from experiments.summary.seeds import Group

KINDS = {"ppl": ("ppl",), "acc": ("acc", "acc_norm")}  # label -> families of metrics that share a tabular
TITLES = {"ppl": r"Perplexity $\downarrow$", "acc": r"Accuracy (\%) $\uparrow$"}
SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"}
SPECIAL |= {">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$"}
SPECIAL |= {letter: f"\\{letter}" for letter in "&%$#_{}"}


def latex(found: Findings) -> str:
    r"""Tables that need `\usepackage{booktabs}`; runs that differ in the seed alone share a row.

    Values are means with half widths of 95 % intervals; the best are bold where they are better by more than the noise.
    Comments say which code made the runs, when the newest ended, and what else a reader must know.
    """
    parts = ["\n".join(_comments(found.table))]
    for model, members in groupby(found.groups, key=lambda group: group.model):
        rows = list(members)
        for kind, families in KINDS.items():
            known = [m for m in found.metrics if m.partition("/")[0] in families and any(m in g.means for g in rows)]
            if known:
                parts.append(_float(model, kind, rows, known, found.bold))
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text that LaTeX prints as it stands, in one line."""
    return "".join(SPECIAL.get(letter, letter) for letter in inline(text))


def _comments(table: Table) -> Iterator[str]:
    runs = [row.record for row in table.rows]
    ended = max((record.manifest.get("finished") or "" for record in runs), default="")
    yield rf"% needs \usepackage{{booktabs}}{f'; newest run of {ended}' * bool(ended)}"
    said = [f"code: {code}" for code in sorted({record.code for record in runs})]
    yield from (f"% {inline(line)}" for line in [*said, *(f"note: {note}" for note in table.notes)])


def _float(model: str, kind: str, groups: list[Group], metrics: list[str], bold: Bold) -> str:
    """A table environment with caption and label."""
    several = any(len(group.rows) > 1 for group in groups)
    words = ["Method", "Pattern", "Sparsity", *["Seeds"] * several]
    body = list(_body(groups, metrics, several, bold))
    said = r"$\pm$: half width of the 95\,\% interval, over the evaluation data" + " and the seeds" * several
    said += "; norm.: by the length of the answers" * any(metric.startswith("acc_norm/") for metric in metrics)
    said += "; bold: significantly better than the runner-up" * any(r"\mathbf" in line for line in body)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(model)}, pruned and dense ({said}).}}",
        rf"\label{{tab:{_label(model)}-{kind}}}",
        rf"\begin{{tabular}}{{{'llr' + 'r' * several + 'r' * len(metrics)}}}",
        r"\toprule",
        _line([""] * len(words) + [rf"\multicolumn{{{len(metrics)}}}{{c}}{{{TITLES[kind]}}}"]),
        rf"\cmidrule(lr){{{len(words) + 1}-{len(words) + len(metrics)}}}",
        _line([*words, *map(_title, metrics)]),
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _label(model: str) -> str:
    """A name in letters that a label takes; six digits of its hash follow where it has others, for no two are one."""
    plain = re.sub("[^A-Za-z0-9.-]+", "-", model)
    return plain if plain == model else f"{plain}-{fingerprint(model)[:6]}"


def _title(metric: str) -> str:
    """A column's title below that of its kind."""
    family, _, what = metric.partition("/")
    return escape(what) + " (norm.)" * (family == "acc_norm")


def _body(groups: list[Group], metrics: list[str], several: bool, bold: Bold) -> Iterator[str]:
    """The rows, a rule before each pattern and sparsity."""
    key = lambda group: (not group.dense, group.pattern, None if group.sparsity is None else round(group.sparsity, 2))
    for _, members in groupby(groups, key=key):
        yield r"\midrule"
        for group in members:
            share = "" if group.sparsity is None or group.dense else f"{group.sparsity:.3f}"
            words = [escape(group.method), escape(group.pattern), share, *[str(len(group.rows))] * several]
            yield _line([*words, *(_cell(group, metric, bold) for metric in metrics)])


def _cell(group: Group, metric: str, bold: Bold) -> str:
    """A mean and its interval in math; empty where there is none."""
    if metric not in group.means:
        return ""
    mean = group.means[metric]
    value = _number(metric, mean.value)
    if not group.dense and (group.rows[0].record.folder, metric) in bold:
        value = rf"\mathbf{{{value}}}"
    around = "" if mean.half is None else rf" \pm {_number(metric, mean.half)}"
    return f"${value}{around}$"


def _number(metric: str, value: float) -> str:
    if not math.isfinite(value):
        return r"\mathrm{NaN}" if math.isnan(value) else r"\infty"
    return re.sub(r"e\+?(-?)0*(\d+)", r" \\times 10^{\1\2}", digits(metric, value))


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
