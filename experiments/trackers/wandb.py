"""Weights & Biases (wandb 0.31) as a mirror of the run's folder; when it fails, the run goes on after one line."""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import wandb

from experiments.console.errors import one_line
from experiments.files.disk import digest, seal, sealed
from experiments.runs.bits import flat
from experiments.runs.calibration import calibrations
from experiments.runs.identity import fingerprint
from experiments.runs.record import Record, joined_histograms, kind, load, with_histograms
from experiments.trackers.tracker import Tracker

log = logging.getLogger(__name__)
MODES = ("online", "offline", "disabled")
FORBIDDEN = "/\\#?%:"  # in a project's name, which is part of an address
MIRRORED = ("manifest.json", "results.json")  # what a W&B run tells of, and holds
NOTE = "wandb/mirrored.json"  # of a run's folder: which state of it W&B has, and where
COLUMNS = {
    "layers": ("layer", "block", "out", "in", "target", "sparsity", "bits", "zeros", "notes"),  # bits of a code
    "blocks": ("block", "error", "seconds"),  # the relative squared error of its output
    "stages": ("stage", "seconds", "host peak", "device peak"),  # bytes, None where they were not measured
    "histograms": ("matrix", "of", "from", "to", "removed", "kept"),  # shares of the matrices' weights
}


@dataclass
class Wandb(Tracker):
    """One W&B run per pruning run, under the run's own identity: uploading it twice gives one run.

    mode: online | offline | disabled; None follows WANDB_MODE, else is online where there is an API key, else offline.
    project, entity: where it appears; entity None is the account's default.
    group: runs shown together; None is the name of the multirun.
    timeout: seconds to wait for the server at the start and at the end.
    """

    mode: str | None = None
    project: str = "pruning"
    entity: str | None = None
    group: str | None = None
    timeout: float = 60
    run: Any = field(default=None, init=False, repr=False)
    resume: str | None = field(default="allow", init=False)  # None: a W&B run of this identity is begun anew

    def check(self) -> None:
        """Raises ValueError for a setting that cannot work."""
        if self.mode not in (None, *MODES):
            expected = f"expected {', '.join(MODES)} or null (online where an API key is configured, else offline)"
            raise ValueError(f"tracker.wandb.mode={self.mode}: {expected}")
        if not self.project or set(self.project) & set(FORBIDDEN):
            raise ValueError(f"tracker.wandb.project={self.project}: expected a name without any of {FORBIDDEN}")

    def start(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Opens the run: online if that is wanted and possible, else offline, below `folder`."""
        with _forgiving("could not start; this run is not mirrored"), staged(folder):
            self.run = self.open(folder, self._described(manifest) | {"resume": self.resume})
            if self.run is not None:
                # W&B's own step may not go back, a restarted run's does.
                self.run.define_metric("*", step_metric="step")
                if not self.run.offline:
                    log.info("W&B: %s", self.run.url)

    def _described(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """What wandb.init is told about the run."""
        return {
            "group": self.group or manifest.get("sweep"),
            "id": manifest["identity"],
            "name": manifest["name"],
            "job_type": "dense" if manifest["method"] == "dense" else "prune",
            # 64 is W&B's limit
            "tags": [manifest[key][:64] for key in ("method", "pattern", "model") if manifest.get(key)],
            "config": configuration(Record(Path(), manifest, {}, "running")),
        }

    def open(self, folder: Path, described: dict[str, Any]) -> Any:
        """A W&B run with its files below `folder` and this about itself; None where W&B is disabled.

        Offline where online is not wanted or not possible. Raises what wandb raises when offline fails, too.
        """
        mode = self.wanted()
        if mode == "disabled":
            return None
        waiting = {"init_timeout": self.timeout, "finish_timeout": self.timeout, "finish_timeout_raises": True}
        options = {
            "project": self.project,
            "entity": self.entity,
            "dir": str(folder.absolute()),
            "settings": wandb.Settings(console="off", silent=True, **waiting),
            "reinit": "create_new",  # every job of a multirun is its own run
            **described,
        }
        online = self._online(options) if mode == "online" else None
        return online or wandb.init(mode="offline", **options)

    def wanted(self) -> str:
        """online, offline or disabled: as is set here, else as the environment says (WANDB_MODE)."""
        chosen = {"mode": self.mode} if self.mode else {}
        return wandb.setup(settings=wandb.Settings(silent=True, **chosen)).settings.mode

    def _online(self, options: dict[str, Any]) -> Any:
        """The W&B run; None where that fails, or where there is no key, for which wandb would ask."""
        try:
            if wandb.login(prompt=False, verify=False):
                return wandb.init(mode="online", **options)
            if self.mode:
                log.warning("W&B: no API key (WANDB_API_KEY, `wandb login`): recording offline")
        except Exception as error:  # network, key, rights, server: whatever it is, it must not stop the pruning
            log.warning("W&B: online failed (%s): recording offline", one_line(error))
            logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it would report the same failure again
            wandb.teardown()  # until then the identity counts as in use
            wandb.setup(settings=wandb.Settings(silent=True))
        return None

    def log(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Adds one point to the curves."""
        if self.run is None:
            return
        run, self.run = self.run, None  # after a failure: one line, not one per call
        with _forgiving("could not log; the rest of this run is not mirrored"):
            run.log(metrics if step is None else {**metrics, "step": step})
            self.run = run

    def finish(self, folder: Path, status: str) -> None:
        """Mirrors what the folder holds and closes the run, as failed unless `status` is "done"."""
        if self.run is None:
            return
        note = None
        with _forgiving(f"could not mirror all of {folder}"), staged(folder):
            mirror(self.run, folder)
            note = {"state": self._state(folder), "place": self.run.url or os.path.relpath(self._recording, folder)}
        with _forgiving(f"upload not finished; later: wandb sync --yes {self._recording}"):
            self.run.finish(exit_code=0 if status == "done" else 1)
            if self.run.offline:
                log.info("W&B: recorded offline; to upload: wandb sync --yes %s", self._recording)
            if note:
                seal(folder / NOTE, note)

    @property
    def _recording(self) -> str:
        """The folder in which wandb keeps its run."""
        return self.run.settings.sync_dir

    def mirrored(self, folder: Path) -> str:
        """Where W&B has a run as it is now: an address, or the folder of a recording; empty where it has not."""
        note = sealed(folder / NOTE) or {}
        if note.get("state") != self._state(folder):
            return ""
        place = note["place"]
        return place if "://" in place else str(folder / place) if (folder / place).is_dir() else ""

    def _state(self, folder: Path) -> str:
        """Stands for what a run's folder holds now, and for where it appears."""
        files = [digest(folder / name) for name in MIRRORED if (folder / name).is_file()]
        return fingerprint([self.project, self.entity, *files])


@contextmanager
def staged(folder: Path) -> Iterator[None]:
    """Keeps wandb's copies of artifacts in a folder until they are uploaded.

    There is no setting for that, so for the duration of the call the environment says it. A place the user has chosen
    in the environment is left alone.
    """
    place = folder.absolute() / "wandb"
    places = {"WANDB_DATA_DIR": place, "WANDB_CACHE_DIR": place / "cache"}
    added = {name: str(path) for name, path in places.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _forgiving(failure: str) -> Iterator[None]:
    """Turns any error into one line: a mirror must never stop what it mirrors."""
    try:
        yield
    except Exception as error:
        log.warning("W&B: %s (%s)", failure, one_line(error))


def configuration(record: Record) -> dict[str, Any]:
    """What charts group by, under plain names, and every setting of a run under `settings`.

    `calibration` is known when a run is over; what a run does not have (the dense model a metric) has no key.
    """
    manifest, config = record.manifest, record.manifest["config"]
    facts = {name: manifest.get(name) for name in ("method", "model", "pattern", "sparsity")} | record.parts
    facts |= {"given": ((config.get("given") or {}).get("names") or {}).get("method")}
    facts |= {"calibration": calibrations([record])[0], "commit": record.commit}
    facts |= {name: (config.get("quantizer") or {}).get(name) for name in ("bits", "group")}  # nothing without codes
    facts |= {"seed": config.get("seed"), "data_seed": (config.get("data") or {}).get("seed")}
    return {name: value for name, value in facts.items() if value is not None} | {"settings": config}


def mirror(run: Any, folder: Path) -> None:
    """Logs numbers, tables and the JSON files of a run that is over; the last numbers are W&B's summary."""
    record = load(folder)
    results = record.results
    run.config.update(configuration(record), allow_val_change=True)
    if results:
        run.log(scalars(results) | flat(results, record.manifest["config"]))
    artifact = wandb.Artifact(f"manifest-{run.id}", type="manifest")
    for name in MIRRORED:
        if (folder / name).is_file():
            artifact.add_file(str(folder / name))
    run.log_artifact(artifact)
    for name, rows in (tables(results) | {"histograms": bins(with_histograms(folder))}).items():
        if rows:
            run.log({name: wandb.Table(columns=list(COLUMNS[name]), data=rows)})


def scalars(results: dict[str, Any]) -> dict[str, float]:
    """Every number of a results.json under a flat key: metrics as they are, the rest behind the name of its section."""
    metrics, dense = results.get("metrics", {}), results.get("dense", {})
    change = {key: value - dense[key] for key, value in metrics.items() if key in dense and "_stderr/" not in key}
    sections = {"dense": dense, "difference": change}
    sections |= {name: results.get(name, {}) for name in ("seconds", "saved", "given", "memory", "notes")}
    sections |= {f"memory/{stage}": peaks for stage, peaks in results.get("stage_memory", {}).items()}
    flat = {f"{name}/{key}": value for name, section in sections.items() for key, value in section.items()}
    return {key: value for key, value in (metrics | flat).items() if isinstance(value, int | float)}


def tables(results: dict[str, Any]) -> dict[str, list[list[Any]]]:
    """Rows in the order of `COLUMNS`, by table; none where the results do not tell."""
    memory = results.get("stage_memory", {})
    shares = lambda row: [row["target"], row["sparsity"], row.get("bits"), row.get("zeros")]  # the last two of codes
    peaks = lambda stage: [memory.get(stage, {}).get(kind) for kind in ("host_peak", "device_peak")]
    return {
        "layers": [
            [row["name"], row["block"], *row["shape"], *shares(row), json.dumps(row["notes"])]
            for row in results.get("layers", [])
        ],
        "blocks": [[row["block"], row["error"], row["seconds"]] for row in results.get("blocks", [])],
        "stages": [[stage, seconds, *peaks(stage)] for stage, seconds in results.get("seconds", {}).items()],
    }


def bins(layers: Sequence[dict[str, Any]]) -> list[list[Any]]:
    """One row per bin of each kind of matrix, of the weights and, where there are, of the scores.

    Edges are in root mean squares of each dense matrix; the first bin begins at 0, the last has no end.
    """
    rows = []
    for name in dict.fromkeys(map(kind, layers)):
        for what, shares in joined_histograms([layer for layer in layers if kind(layer) == name]).items():
            edges = [0.0, *shares.edges[1:-1], None]
            for place, counts in enumerate(zip(shares.removed, shares.kept, strict=True)):
                rows.append([name, what, edges[place], edges[place + 1], *counts])
    return rows
