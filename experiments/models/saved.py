"""Whether a model that a run saved is as it was written, each of its files: told without torch."""

import logging
from pathlib import Path

from experiments.files.disk import digest, read_json
from experiments.models.location import CERTIFICATE, files

log = logging.getLogger("experiments")


def intact(folder: Path, keep: Path | None = None) -> bool:
    """Whether the files that a run saved in a folder are as it wrote them; one line is logged if they are not."""
    if not folder.is_dir():
        return False
    wrong = altered(folder, keep)
    if wrong:
        log.warning("%s is not as it was written; the model is pruned again", folder / wrong[0])
    return not wrong


def altered(folder: Path, keep: Path | None = None) -> list[str]:
    """The files of a saved model that are not as they were written, that are gone or that came later."""
    try:
        written = dict(read_json(folder / CERTIFICATE, {}).get("sha256_by_file") or {})
    except (ValueError, AttributeError, TypeError):
        return [CERTIFICATE]
    there = hashes(folder, keep)
    return sorted(name for name in {*written, *there} if written.get(name) != there.get(name))


def hashes(folder: Path, keep: Path | None = None) -> dict[str, str]:
    """The sha256 of every file that loading could read, by its name in the folder."""
    return {str(file.relative_to(folder)): digest(file, keep) for file in files(folder)}
