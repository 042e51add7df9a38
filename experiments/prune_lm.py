"""All commands in one, anywhere:  prune-lm run experiment=wanda  for  python -m experiments.run experiment=wanda"""

import sys
from importlib import import_module
from pathlib import Path

from experiments.console.arguments import CONSOLE
from experiments.console.errors import ending, nearest

COMMANDS = ("run", "plan", "table", "report", "upload", "compare", "status", "verify", "cache", "bench")
SETTINGS = ("run", "plan")  # commands of whose words settings are completed
QUOTES = '."'
# For bash, and zsh with bashcompinit. bash takes what stands behind the last = for the word; a reply is that alone.
SCRIPT = r"""_prune_lm() {
  local IFS=$'\n' line=${COMP_LINE:0:$COMP_POINT} typed=${COMP_WORDS[COMP_CWORD]}
  local word=${line##* }
  [[ $typed == = ]] && typed=
  COMPREPLY=($("${COMP_WORDS[0]/#\~/$HOME}" complete "$line" 2>/dev/null))
  COMPREPLY=("${COMPREPLY[@]#"${word%"$typed"}"}")
  [[ ${COMPREPLY[0]} == *[=./,] ]] && compopt -o nospace 2>/dev/null
}
complete -o default -F _prune_lm prune-lm"""


def main() -> int:
    """The exit code of the command that is named."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in COMMANDS:
        return answer(name)
    sys.argv[:2] = [f"{CONSOLE}{name}"]
    return import_module(f"experiments.{name}").main()


@ending()
def answer(name: str) -> int:
    """Prints the list of commands or what a shell asks for; 0, or 2 after a line for what is no command."""
    if name in ("", "-h", "--help"):
        print(overview())
    elif name == "completion":
        print(SCRIPT)
    elif name == "complete":
        print("\n".join(completed(" ".join(sys.argv[2:]))))
    else:
        meant = f", did you mean prune-lm run {name}?" if "=" in name else nearest(name, COMMANDS)
        raise ValueError(f"{name}: no such command{meant}; there are {', '.join(COMMANDS)}, completion")
    return 0


def overview() -> str:
    """A line for each command: the first of its file."""
    lines = ["usage: prune-lm COMMAND ...      (each has --help)", ""]
    for name in COMMANDS:
        first, *_ = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8").splitlines()
        lines.append(f"  {name:<12}{first.partition(':')[0].strip(QUOTES)}")
    return "\n".join([*lines, '  completion  For ~/.bashrc or ~/.zshrc:  eval "$(prune-lm completion)"'])


def completed(line: str) -> list[str]:
    """The words that the last of a line, up to the cursor, can become; none where those of files do."""
    words = [*line.split(), *([""] if line.endswith(" ") else [])][1:]
    if len(words) < 2:
        return [name for name in COMMANDS if name.startswith("".join(words))]
    if words[0] == "table" and len(words) == 2:
        tables = sorted(file.stem for file in Path(__file__).with_name("tables").glob("*.yaml"))
        return [name for name in tables if name.startswith(words[1])]
    if words[0] not in SETTINGS:
        return []
    from experiments.composing.completion import completions  # noqa: PLC0415 - Hydra, which --help need not wait for

    return completions(words[1:])


if __name__ == "__main__":
    sys.exit(main())
