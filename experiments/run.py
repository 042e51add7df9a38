"""Prune a model and measure what is left:  python -m experiments.run experiment=wanda sparsity=0.6  (see --help)."""

import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from experiments import command
from experiments.record import Run, one_line


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def task(cfg: DictConfig) -> None:
    """One job, in whatever process Hydra's launcher put it. A failure is recorded and told, and its siblings go on."""
    from experiments import job, table  # noqa: PLC0415 - torch and transformers take seconds that --help need not wait

    asked = HydraConfig.get()
    names = command.named(cfg, asked.runtime.choices, list(asked.overrides.task))
    try:
        cfg.device = job.device(cfg.device)
        config = command.resolved(cfg)
        print(OmegaConf.to_yaml(config))
        print(table.single(job.run(config, names).folder), flush=True)
    except Exception as error:
        print(f"failed: {one_line(error)}", file=sys.stderr, flush=True)


def main() -> int:
    """The command line; exit code 0 if every run it asks for is done, 1 if one is not, 2 for a mistake in it."""
    try:
        jobs = command.jobs(sys.argv[1:])
        if jobs and (sweep := command.sweep(sys.argv[1:])):
            sys.argv.append(f"sweep={sweep}")
        task()
        runs = [Run.open(job.config, job.names) for job in jobs or []]
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    failed = [run for run in runs if not run.done]
    if failed and len(runs) > 1:
        print(f"{len(runs) - len(failed)} of {len(runs)} runs are done; failed:", file=sys.stderr)
    for run in failed:
        print(f"  {run.manifest['name']}, see {run.folder / 'manifest.json'}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
