"""Weights & Biases as a mirror of the run's folder (wandb 0.31); when it fails, the run goes on after one line.

This module, `mirror` and `upload` are the only ones that import wandb, and only when there is something for it.
"""

import importlib.util
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from experiments.trackers.mirror import mirror
from experiments.trackers.tracker import Tracker

log = logging.getLogger(__name__)
REACH = 2.0  # seconds
MODES = ("online", "offline", "disabled")
FORBIDDEN = "/\\#?%:"  # in a project's name, which is part of an address


@dataclass
class Wandb(Tracker):
    """One W&B run per pruning run, under the run's own identity: uploading it twice gives one run.

    mode: online | offline | disabled; None follows WANDB_MODE, else is online where there is an API key, else offline.
    project, entity: where it appears; entity None is the account's default.
    group: runs shown together; None is the name of the multirun.
    folder: where wandb/ goes; None is the run's folder.
    timeout: seconds to wait for the server at the start and at the end.
    """

    mode: str | None = None
    project: str = "pruning"
    entity: str | None = None
    group: str | None = None
    folder: str | None = None
    timeout: float = 60
    run: Any = field(default=None, init=False, repr=False)

    def check(self) -> None:
        """Raises ValueError for a setting that cannot work, a folder that cannot be written, or wandb missing."""
        if self.mode not in (None, *MODES):
            expected = f"expected {', '.join(MODES)} or null (online where an API key is configured, else offline)"
            raise ValueError(f"tracker.wandb.mode={self.mode}: {expected}")
        if not self.project or set(self.project) & set(FORBIDDEN):
            raise ValueError(f"tracker.wandb.project={self.project}: expected a name without any of {FORBIDDEN}")
        if self.timeout <= 0:
            raise ValueError(f"tracker.wandb.timeout={self.timeout}: expected more than 0 seconds")
        if self.mode != "disabled" and importlib.util.find_spec("wandb") is None:
            raise ValueError(
                "W&B needs the package wandb, which is not installed: install it, or do without (tracker=[jsonl])"
            )
        if self.folder is not None:
            _writable(Path(self.folder))

    def reach(self) -> None:
        """Say early that what is to be online will be recorded offline: no key, or no answer in REACH seconds."""
        if self.mode != "online" or self._mode() != "online":  # which says why
            return
        import wandb  # noqa: PLC0415

        host = urlsplit(wandb.setup().settings.base_url)
        port = host.port or {"http": 80}.get(host.scheme, 443)
        try:
            socket.create_connection((host.hostname, port), REACH).close()
        except OSError as error:
            log.warning("W&B: %s does not answer (%s): this run will be recorded offline", host.netloc, said(error))

    def start(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Opens the run: online if asked and possible, else offline, below `folder`."""
        self.run = None
        if self.mode == "disabled":
            return
        place = Path(self.folder or folder).absolute()
        with _forgiving("could not start; this run is not mirrored"), staged(place):
            self.run = self.open(place, self._described(manifest))
            if self.run is not None:
                # W&B's own step may not go back, a restarted run's does.
                self.run.define_metric("*", step_metric="step")
                if not self.run.offline:
                    log.info("W&B: %s", self.run.url)

    def open(self, place: Path, described: dict[str, Any]) -> Any:
        """A W&B run with its files below `place` and this about itself; None where W&B is disabled.

        Online if asked and possible, else offline. Raises what wandb raises when offline fails, too.
        """
        mode = self._mode()
        if mode == "disabled":
            return None
        import wandb  # noqa: PLC0415

        settings = wandb.Settings(
            console="off",
            silent=True,
            init_timeout=self.timeout,
            finish_timeout=self.timeout,
            finish_timeout_raises=True,
        )
        where = {"project": self.project, "entity": self.entity, "dir": str(place), "settings": settings}
        # every job of a multirun is its own run
        return _open(mode, {**where, "resume": "allow", "reinit": "create_new", **described})

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
        run, self.run = self.run, None
        place = Path(self.folder or folder).absolute()
        with _forgiving(f"could not mirror all of {folder}"), staged(place):
            mirror(run, folder)
        with _forgiving(f"upload not finished; later: wandb sync --yes {run.settings.sync_dir}"):
            run.finish(exit_code=0 if status == "done" else 1)
            if run.offline:
                log.info("W&B: recorded offline; to upload: wandb sync --yes %s", run.settings.sync_dir)

    def _mode(self) -> str:
        """The mode to use: what is asked for, but never online without a key, because wandb would then ask for one."""
        import wandb  # noqa: PLC0415 - takes a second

        settings = wandb.setup(settings=wandb.Settings(silent=True)).settings
        mode = self.mode or {"dryrun": "offline"}.get(settings.mode, settings.mode)
        if mode not in ("offline", "disabled"):
            mode = "online" if _has_key(settings) else "offline"
            if self.mode == "online" and mode == "offline":
                log.warning(
                    "W&B: no API key for %s (WANDB_API_KEY, `wandb login`): recording offline", settings.base_url
                )
        return mode

    def _described(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """What wandb.init is told about the run."""
        return {
            "group": self.group or manifest.get("sweep"),
            "id": manifest["identity"],
            "name": manifest["name"],
            "job_type": "dense" if manifest["method"] == "dense" else "prune",
            # 64 is W&B's limit
            "tags": [manifest[key][:64] for key in ("method", "pattern", "model") if manifest.get(key)],
            "config": manifest["config"],
        }


def _has_key(settings: Any) -> bool:
    """Whether wandb finds credentials: by its own search, which knows under which names servers were stored earlier."""
    from wandb.sdk.lib.wbauth.wbnetrc import read_netrc_auth  # noqa: PLC0415

    try:
        return bool(settings.api_key or settings.identity_token_file or read_netrc_auth(host=settings.base_url))
    except Exception:  # a malformed key: wandb.init says what is wrong with it
        return True


def _open(mode: Any, options: dict[str, Any]) -> Any:
    """The W&B run, offline where online fails. Raises what wandb raises when offline fails, too."""
    import wandb  # noqa: PLC0415

    try:
        return wandb.init(mode=mode, **options)
    except Exception as error:  # network, key, rights, server: whatever it is, it must not stop the pruning
        if mode == "offline":
            raise
        log.warning("W&B: online failed (%s): recording offline", said(error))
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it would report the same failure again
    wandb.teardown()  # until then the identity counts as in use
    wandb.setup(settings=wandb.Settings(silent=True))
    return wandb.init(mode="offline", **options)


@contextmanager
def staged(place: Path) -> Iterator[None]:
    """Keeps wandb's copies of artifacts with the run until they are uploaded; there is no setting for that, so for the
    duration of the call the environment says it. A place the user has chosen in the environment is left alone."""
    places = {"WANDB_DATA_DIR": place / "wandb", "WANDB_CACHE_DIR": place / "wandb" / "cache"}
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
        log.warning("W&B: %s (%s)", failure, said(error))


def said(error: Exception) -> str:
    """What a library says, in one line of at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(
            f"tracker.wandb.folder={folder} cannot be written ({reason}); null is the run's own folder"
        ) from error
