"""Which machines: this process, local worker processes, this node's GPUs, SLURM jobs, or a running
scheduler. The only module that starts dask.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clare_cache.errors import ExtractError, raise_faults
from clare_cache.extraction.executors import Executor, InProcess, OnDask
from clare_cache.yaml_files import read_yaml

THREADS = 2
"""Per worker: one writes a block while the other computes the next; `BlockWork` never lets two
compute at once."""

INTERRUPTS = "clare_cache.extraction.interrupts"
"""What worker processes of this machine load first."""

WORKERS_ARE_DAEMONS = "distributed.worker.daemon"
"""Dask's name for it. A daemon may start no processes, and `--decode-in processes` asks for some;
workers end with the one who started them either way."""

MAY_START_PROCESSES = "export DASK_DISTRIBUTED__WORKER__DAEMON=False"
"""The same for the job of a worker."""

SLURM_KEYS = {
    "jobs": "number of jobs, one worker each",
    "cores": "cores per job",
    "memory": 'memory per job, e.g. "64GB"',
    "walltime": 'time limit, e.g. "12:00:00"',
    "lines": 'further lines of the job script after #SBATCH, verbatim, e.g. "--gres=gpu:1"',
    "prologue": "shell lines before the worker starts, verbatim",
}
"""What a SLURM settings file may hold."""


@contextmanager
def open_executor(*, cluster: str | None = None, dask: str | None = None) -> Iterator[Executor]:
    """The executor for `--cluster local:N | cuda | slurm:FILE` or `--dask ADDRESS`; neither: here.

    Workers that were started for it are stopped at the end. Raises ExtractError for anything
    else, for a machine without GPU, and for a scheduler that does not answer.
    """
    if cluster is not None and dask is not None:
        raise ExtractError("extract: expected --cluster or --dask, found both. Leave one out.")
    if cluster is None and dask is None:
        yield InProcess()
        return
    from dask import config
    from distributed import Client

    if dask is not None:
        try:
            client = Client(dask, timeout="30s")
        except (OSError, ValueError) as error:
            raise ExtractError(
                f"extract: no dask scheduler answers at {dask} ({error}). Start one with "
                "`dask scheduler`, or correct --dask."
            ) from error
        with client:
            yield OnDask(client)
    else:
        settings = config.set({WORKERS_ARE_DAEMONS: False})  # also of workers that replace others
        with settings, start_cluster(str(cluster)) as started, Client(started) as client:
            client.wait_for_workers(1)
            yield OnDask(client)


def start_cluster(cluster: str) -> Any:
    """A dask cluster from `local:N`, `cuda` or `slurm:FILE`; one worker per GPU keeps it busy."""
    kind, _, detail = cluster.partition(":")
    if kind == "local" and detail.isdecimal() and int(detail) > 0:
        return _local(int(detail))
    if kind == "cuda" and not detail:
        return _cuda()
    if kind == "slurm" and detail:
        return slurm_cluster(Path(detail))
    raise ExtractError(
        f"extract: expected --cluster local:N, cuda or slurm:FILE, found {cluster}. Correct it."
    )


def _local(n_workers: int) -> Any:
    from distributed import LocalCluster

    threads = max((os.cpu_count() or 1) // n_workers, 1)
    return LocalCluster(
        n_workers=n_workers,
        threads_per_worker=THREADS,
        processes=True,
        dashboard_address="127.0.0.1:0",
        env={"OMP_NUM_THREADS": str(threads)},
        preload=[INTERRUPTS],
    )


def _cuda() -> Any:
    import torch
    from distributed import Nanny, Scheduler, SpecCluster

    n_gpus = torch.cuda.device_count()
    if not n_gpus:
        raise ExtractError(
            "extract: --cluster cuda expects a GPU, found none on this machine. Use local:N."
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = visible.split(",") if visible else [str(n) for n in range(n_gpus)]
    workers = {
        number: {
            "cls": Nanny,
            "options": {
                "nthreads": THREADS,
                "env": {"CUDA_VISIBLE_DEVICES": names[number]},
                "preload": [INTERRUPTS],
            },
        }
        for number in range(n_gpus)
    }
    return SpecCluster(
        workers=workers,
        scheduler={"cls": Scheduler, "options": {"dashboard_address": "127.0.0.1:0"}},
    )


def slurm_cluster(file: Path) -> Any:
    """A dask-jobqueue cluster from a YAML file with SLURM_KEYS; its jobs are submitted."""
    settings = read_slurm(file)
    cluster = _slurm(settings)
    cluster.scale(jobs=settings["jobs"])
    return cluster


def job_script(cluster: str | None) -> str:
    """The script that `slurm:FILE` would submit for each job; nothing is submitted.

    Raises ExtractError for another cluster.
    """
    kind, _, file = (cluster or "").partition(":")
    if kind != "slurm" or not file:
        raise ExtractError(
            f"extract: --print-job-script expects --cluster slurm:FILE, found {cluster or 'none'}."
        )
    with _slurm(read_slurm(Path(file))) as started:
        return str(started.job_script())


def _slurm(settings: Mapping[str, Any]) -> Any:
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise ExtractError(
            "extract: --cluster slurm needs dask-jobqueue. Say: pip install 'clare-cache[slurm]'"
        ) from error
    return SLURMCluster(
        # Its default port is another run's, on a login node.
        scheduler_options={"dashboard_address": "127.0.0.1:0"},
        cores=settings["cores"],
        processes=1,
        worker_extra_args=["--nthreads", str(THREADS)],
        memory=settings["memory"],
        walltime=settings["walltime"],
        job_extra_directives=list(settings.get("lines", [])),
        job_script_prologue=[MAY_START_PROCESSES, *settings.get("prologue", [])],
    )


def read_slurm(file: Path) -> Mapping[str, Any]:
    """The settings in a SLURM file. Raises ExtractError with every fault at once."""
    import yaml

    try:
        settings = read_yaml(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ExtractError(f"slurm file {file}: expected YAML, found {error}.") from error
    if not isinstance(settings, Mapping):
        raise ExtractError(f"slurm file {file}: expected {', '.join(SLURM_KEYS)}, found no keys.")
    required = ("jobs", "cores", "memory", "walltime")
    faults = [f"{key}: unknown key" for key in settings if key not in SLURM_KEYS]
    faults += [f"{k}: absent ({SLURM_KEYS[k]})" for k in required if k not in settings]
    raise_faults(ExtractError, f"slurm file {file}", faults)
    return settings
