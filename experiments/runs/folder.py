"""One run on disk: what was asked, what happened, what came out."""

import logging
import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.console.errors import one_line
from experiments.files.disk import forget_unfinished, locked, now, seal
from experiments.runs import machine, provenance, record
from experiments.runs.identity import content, deciding, evaluation, fingerprint, modules
from prune import ranks

# Facts about the pruning itself: a later command that only evaluates keeps them.
KEPT = ("data", "model_commit", "pruned", "blocks", "retries")
SHORT = "out of memory"  # the stage of what attempts took that ended so
GENERATION = "data generation"  # the stage in which the model writes its calibration text
AGAIN = ("load", GENERATION, "prune", f"prune{record.AT_LEAST}")  # stages that the next attempt goes through once more
log = logging.getLogger("experiments")


@dataclass(frozen=True)
class Names:
    """What people call a run: the options chosen on the command line."""

    model: str
    method: str
    pattern: str
    command: str
    sweep: str | None = None


@dataclass
class Run:
    """The folder outputs/<model>/<method>-<pattern>-<sparsity>-<identity> and its manifest."""

    folder: Path
    manifest: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)  # by stage
    memory: dict[str, dict[str, int | None]] = field(default_factory=dict)  # peaks by stage, bytes
    saved: dict[str, float] = field(default_factory=dict)  # of the seconds: what others spent on what was there already
    given: dict[str, float] = field(default_factory=dict)  # of the seconds: those of the run whose masks are taken over
    counted: set[str] = field(default_factory=set)  # blocks, surveys and tasks whose making is in the seconds
    resident: int = 0  # bytes of the process when it began, whatever ran in it before; 0 where the system does not tell
    stems: dict[str, str] = field(default_factory=dict)  # of the steps that were asked for
    trackers: list[Any] = field(default_factory=list)  # of the first rank, from when they are known until the run ends

    @classmethod
    def open(cls, config: dict[str, Any], names: Names) -> "Run":
        """The run of this resolved configuration; nothing is written yet."""
        made_of = content(config)
        sparsity, identity = config["allocator"]["sparsity"], fingerprint(made_of)
        name = f"{names.method}-{names.pattern}-{sparsity:g}-{identity}"
        run = cls(Path(config["outputs"]) / names.model / name, {"name": name, "identity": identity})
        run.locate()
        run.manifest |= {"method": names.method, "pattern": names.pattern, "sparsity": sparsity}
        run.manifest |= {
            "model_content": made_of["model"]["path"],
            "content": made_of,
            "sources": modules(config),
            "command": names.command,
            "sweep": names.sweep,
            "config": config,
        }
        run.catch_up()
        return run

    def locate(self) -> None:
        """Chooses the folder: that of the same computation under another name, where there is one.

        metric=wanda and experiment=wanda are one, and so is a model by two paths.
        """
        outputs = self.folder.parents[1]
        same = outputs.glob(f"*/*-{self.manifest['identity']}")
        self.folder = min(same, key=lambda folder: (folder.parent != self.folder.parent, folder), default=self.folder)
        self.manifest["model"] = self.folder.parent.name

    @property
    def config(self) -> dict[str, Any]:
        """Its resolved configuration."""
        return self.manifest["config"]

    @property
    def steps(self) -> dict[str, Path]:
        """Where what each evaluation finds in the pruned model is kept, by its name."""
        return {name: self.step(name, settings) for name, settings in (self.config.get("eval") or {}).items()}

    def step(self, name: str, settings: dict[str, Any]) -> Path:
        """The same, for one evaluation or one of its tasks.

        It is named by its settings, files and code, as they were when this run was first asked.
        """
        question = fingerprint([name, settings])
        if question not in self.stems:
            self.stems[question] = evaluation(name, settings)
        return self.folder / "steps" / f"{self.stems[question]}.json"

    def catch_up(self) -> None:
        """Takes over what earlier commands noted of the pruning, as the process left it that was waited for."""
        stored = self.stored()
        self.manifest |= {fact: stored.get(fact) for fact in KEPT}

    @property
    def done(self) -> bool:
        """Whether a command finished this run."""
        return self.stored().get("status") == "done"

    def stored(self) -> dict[str, Any]:
        """The manifest on disk; empty if there is none that can be read."""
        if not self.folder.is_dir():
            self.locate()  # it may have been done meanwhile
        return _stored(self.folder)

    def say_done(self) -> None:
        """Say that nothing is computed, and what has changed since of what is not in the identity."""
        stored = self.stored()
        log.info("done on %s; nothing to compute, and nothing is logged again", stored.get("finished"))
        pruned, now = stored.get("pruned") or {}, provenance.versions() | machine.sums()
        before = pruned.get("versions", {}) | pruned.get("environment", {})
        known = [*before, *(machine.SUMS if "environment" in pruned else ())]
        changed = [
            f"{name} {before.get(name)}, now {now.get(name)}" for name in known if before.get(name) != now.get(name)
        ]
        if changed:
            line = "computed with %s; remove %s to compute it again"
            log.warning(line, "; ".join(dict.fromkeys(changed)), self.folder)

    def say_others(self) -> None:
        """Where this run is new, say which finished one was asked for in the same words, and what has changed since."""
        if self.stored():
            return
        settings = lambda config: [deciding(config), list(config.get("then") or ())]
        alike = self.folder.parent.glob(f"{self.folder.name.rpartition('-')[0]}-*")
        done = {}
        for folder in alike:
            manifest = _stored(folder)
            if manifest.get("status") == "done" and settings(manifest.get("config", {})) == settings(self.config):
                done[folder] = manifest
        if done:
            last = max(done, key=lambda folder: done[folder].get("finished") or "")
            changed = "; ".join(provenance.since(done[last], self.manifest))
            log.info("%s is of the same settings, but %s; computed anew", last, changed)

    @contextmanager
    def alone(self, wait: bool = False) -> Iterator[None]:
        """No other process is in this run meanwhile. Where one is: wait, or BlockingIOError naming it.

        A run of the same sweep is waited for: it is this very run, asked for in other words.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = f"outputs: {self.folder} cannot be made ({error.strerror}); choose another outputs=FOLDER"
            raise OSError(reason) from None
        sweep = self.manifest["sweep"]
        wait = wait or (sweep is not None and sweep == self.stored().get("sweep"))
        with ranks.entered(locked(self.folder / ".lock", wait, str(self.folder))):
            ranks.told(lambda: forget_unfinished(self.folder))
            yield

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Status running, then done or failed with the reason; manifest and trackers hear of it whatever happens.

        A run that was done stays done if a later command fails; the manifest then has that command's error.
        """
        before = "done" if self.done else "failed"
        self.manifest |= provenance.code() | {"versions": provenance.versions()}
        self.manifest |= machine.facts(self.config["device"])
        self.manifest |= {"ranks": ranks.world(), "status": "running", "started": now()}
        self.write()
        try:
            yield
            self.manifest |= {"status": "done", "stage": None}
        except BaseException as error:
            self.manifest |= {"status": before, "error": one_line(error), "traceback": traceback.format_exc()}
            raise
        finally:
            self.manifest["finished"] = now()
            self.write()
            while self.trackers:  # they mirror the folder, in which the manifest is final
                self.trackers.pop(0).finish(self.folder, "failed" if "error" in self.manifest else "done")

    def track(self, trackers: list[Any]) -> None:
        """Tells trackers of this run from now on; OSError if one of them cannot write."""
        for tracker in trackers if ranks.first() else ():
            tracker.start(self.folder, self.manifest)
            self.trackers.append(tracker)

    def log(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Tells the trackers."""
        for tracker in self.trackers:
            tracker.log(metrics, step)

    def write(self) -> None:
        """The manifest, as it stands."""
        if ranks.first():
            seal(self.folder / "manifest.json", self.manifest)

    def settle(self, fact: str, value: Any) -> None:
        """Note what is pruned, or with what: `data` (compared by its sha256) or `model_commit`.

        Blocks that an earlier command solved with another one are not mixed with these: an unfinished run is begun
        again, said in one line; ValueError for a finished one, whose results are there.
        """
        ranks.told(lambda: self._begin_again(fact, value))
        self.manifest[fact] = value
        self.write()

    def _begin_again(self, fact: str, value: Any) -> None:
        """Remove what was made with another value of this fact."""
        core = lambda fact: fact.get("sha256") if isinstance(fact, dict) else fact
        if (self.folder / "masks").exists() and core(before := self.stored().get(fact)) != core(value):
            changed = f"{fact} was {core(before)}, now {core(value)}"
            if (self.folder / "results.json").exists():
                raise ValueError(f"{self.folder} was pruned with other input ({changed}); remove it to prune again")
            log.warning("%s was begun with other input (%s); it is begun again", self.folder, changed)
            self._forget()

    def _forget(self) -> None:
        """Remove what pruning made, and what was measured if nothing of it is told in results yet."""
        measured = "steps/blocks" if (self.folder / "results.json").exists() else "steps"
        for made in ("blocks", "masks", "model", measured):
            shutil.rmtree(self.folder / made, ignore_errors=True)

    def refuse_changed(self) -> None:
        """ValueError where a file that names this run holds something else by now: what was made with it goes.

        Nobody knows which of the two was read.
        """
        now = content(self.config)
        if now != self.manifest["content"]:
            self._forget()
            changed = "; ".join(provenance.since(self.manifest, self.manifest | {"content": now}))
            raise ValueError(f"{changed}: changed while this run read it; run it again, for nothing of it is kept")

    def note_code(self, begun: bool) -> None:
        """Note which code prunes; where other code solved the first blocks (`begun`), both, the second under `also`."""
        facts = ("commit", "dirty", "diff", "command", "versions", "environment")
        now = {fact: self.manifest[fact] for fact in facts if fact in self.manifest} | {"ranks": ranks.world()}
        before = self.manifest["pruned"] if begun else None
        if before and any(before.get(fact) != now[fact] for fact in ("commit", "diff", "versions")):
            now = {**before, "also": [*before.get("also", []), now]}
        self.manifest["pruned"] = now
        self.write()

    def charge(
        self, stage: str, seconds: float | None, peaks: dict[str, int | None] | None = None, given: bool = False
    ) -> None:
        """Adds to a stage what it would have taken more, had nothing of it been there: its cost is that from nothing.

        `given`: it is that of the run whose masks are taken over. Where a cost is not known (None), what was measured
        is called the least that it is, whatever else is charged.
        """
        least = f"{stage}{record.AT_LEAST}"
        if seconds is None and least not in self.seconds:
            for costs in (self.seconds, self.memory):
                costs[least] = costs.pop(stage)
            for costs in (self.saved, self.given):
                costs.pop(stage, None)
        elif seconds is not None and least not in self.seconds:
            self.memory[stage] = machine.highest([self.memory.get(stage, {}), peaks or {}])
            if peaks and peaks.get("host_added") is None:  # an earlier version made it
                self.memory[stage]["host_added"] = None
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
            costs = self.given if given else self.saved
            costs[stage] = costs.get(stage, 0.0) + max(0.0, seconds)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Where this ends in an error, stages that the next attempt does AGAIN are told as they were before it.

        What was solved meanwhile is on disk, and charged when it is read back. The seconds are told as SHORT.
        """
        costs, counted = (self.seconds, self.saved, self.given), set(self.counted)
        before = [dict(cost) for cost in costs]
        try:
            yield
        except Exception:
            for stage in AGAIN:
                gone = [now.pop(stage, 0.0) - then.get(stage, 0.0) for now, then in zip(costs, before, strict=True)]
                self.seconds[SHORT] = self.seconds.get(SHORT, 0.0) + gone[0] - sum(gone[1:])
                for now, then in zip(costs, before, strict=True):
                    now.update({stage: then[stage]} if stage in then else {})
            self.counted.intersection_update(counted | set(self.stems.values()))  # tasks keep their seconds
            raise

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to the seconds of a stage, and notes its peak memory. Stages do not nest.

        What ends in an error is no stage's time, but SHORT: a run goes on behind a shortage of memory alone.
        """
        device, start = self.config["device"], time.perf_counter()
        machine.forget_peaks(device)
        self.manifest["stage"] = name
        self.write()
        spent_on = SHORT
        try:
            yield
            spent_on = name
        finally:
            self.seconds[spent_on] = self.seconds.get(spent_on, 0.0) + time.perf_counter() - start
            self.memory[name] = machine.highest([self.memory.get(name, {}), machine.peaks(device)])


def _stored(folder: Path) -> dict[str, Any]:
    """The manifest in a folder; empty if there is none that can be read."""
    try:
        return record.read_manifest(folder)
    except (OSError, ValueError):
        return {}
