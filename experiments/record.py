"""One run on disk: what was asked, what happened, what came out."""

import json
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from experiments import provenance
from experiments.hints import one_line
from experiments.identity import fingerprint, identity, model


@dataclass(frozen=True)
class Names:
    """What people call a run: the options chosen on the command line."""

    model: str
    method: str
    pattern: str
    command: str
    sweep: str | None = None


def write_json(path: Path, value: Any) -> None:
    """A JSON file that is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_text(json.dumps(value, indent=1, default=str), encoding="utf-8")
    temporary.replace(path)


def now() -> str:
    """The time, for people."""
    return datetime.now(UTC).astimezone().isoformat(timespec="seconds")


# Facts about the pruning itself: a later command that only evaluates keeps them.
KEPT = (
    "data",
    "model_commit",
    "pruned",
)


@dataclass
class Run:
    """The folder outputs/<model>/<method>-<pattern>-<sparsity>-<identity> and its manifest."""

    folder: Path
    manifest: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def open(cls, config: dict[str, Any], names: Names) -> "Run":
        """The run of this resolved configuration; nothing is written yet."""
        sparsity, who = config["allocator"]["sparsity"], identity(config)
        name = f"{names.method}-{names.pattern}-{sparsity:g}-{who}"
        place = Path(config["outputs"]) / names.model
        same = sorted(
            place.glob(f"*-{who}")
        )  # the same computation under another name, as metric=wanda and experiment=wanda
        run = cls(same[0] if same else place / name, {"name": name, "identity": who, "model": names.model})
        run.manifest |= {"method": names.method, "pattern": names.pattern, "sparsity": sparsity}
        run.manifest |= {
            "model_content": model(config)["path"],
            "command": names.command,
            "sweep": names.sweep,
            "config": config,
        }
        run.manifest |= {fact: run.told().get(fact) for fact in KEPT}
        return run

    @property
    def done(self) -> bool:
        """Whether a command finished this run."""
        return self.told().get("status") == "done"

    def told(self) -> dict[str, Any]:
        """The manifest on disk; empty if there is none that can be read."""
        try:
            return read_json(self.folder / "manifest.json", {})
        except (OSError, ValueError):
            return {}

    @contextmanager
    def recorded(self) -> Iterator["Listeners"]:
        """Status running, then done or failed with the reason; manifest and trackers hear of it whatever happens.

        A run that was done stays done if a later command fails; the manifest then has that command's error.
        """
        before = "done" if self.done else "failed"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            said = f"outputs: {self.folder} cannot be made ({error.strerror}); choose another outputs=FOLDER"
            raise OSError(said) from None
        machine = provenance.machine(self.manifest["config"]["device"])
        self.manifest |= provenance.code() | {"versions": provenance.versions(), **machine}
        self.manifest |= {"status": "running", "started": now()}
        self.write()
        listeners = Listeners(self)
        try:
            yield listeners
            self.manifest["status"] = "done"
        except BaseException as error:
            self.manifest |= {"status": before, "error": one_line(error), "traceback": traceback.format_exc()}
            raise
        finally:
            self.manifest["finished"] = now()
            self.write()
            listeners.finish()

    def write(self) -> None:
        """The manifest, as it stands."""
        write_json(self.folder / "manifest.json", self.manifest)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to the seconds of a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def step(self, name: str, config: Any) -> Path:
        """Where the result of a step with these settings is kept."""
        return self.folder / "steps" / f"{name}-{fingerprint(config)}.json"


@dataclass
class Listeners:
    """The trackers of a run, from when they are known until it ends."""

    run: Run
    trackers: list[Any] = field(default_factory=list)

    def start(self, trackers: list[Any]) -> None:
        """Begin; OSError if one of them cannot write."""
        for tracker in trackers:
            tracker.start(self.run.folder, self.run.manifest)
            self.trackers.append(tracker)

    def log(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Tell all of them."""
        for tracker in self.trackers:
            tracker.log(metrics, step)

    def finish(self) -> None:
        """The manifest is final: let them mirror the folder."""
        for tracker in self.trackers:
            tracker.finish(self.run.folder, "failed" if "error" in self.run.manifest else "done")


def read_json(path: Path, default: Any = None) -> Any:
    """A JSON value from disk, or the default where there is none; ValueError naming a file that is broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else default
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); remove it to compute it again") from None


def once(path: Path, compute: Callable[[], Any]) -> Any:
    """The stored result of a step; computed, and stored, if it is not there."""
    if not path.exists():
        write_json(path, compute())
    return read_json(path)
