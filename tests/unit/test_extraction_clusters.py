"""The spellings of --cluster and --dask, and what each of them starts."""

import pytest

from clare_cache.errors import ExtractError
from clare_cache.extraction import InProcess, OnDask
from clare_cache.extraction.clusters import open_executor, read_slurm, slurm_cluster


def test_without_a_cluster_the_work_is_done_here():
    with open_executor() as executor:
        assert isinstance(executor, InProcess)


@pytest.mark.parametrize("cluster", ["local", "local:0", "local:x", "cuda:1", "slurm:", "k8s:3"])
def test_an_unknown_cluster_is_refused(cluster):
    with pytest.raises(ExtractError) as caught, open_executor(cluster=cluster):
        pass
    assert str(caught.value) == (
        f"extract: expected --cluster local:N, cuda or slurm:FILE, found {cluster}. Correct it."
    )


def test_two_places_at_once_are_refused():
    both = {"cluster": "local:1", "dask": "tcp://127.0.0.1:1"}
    with pytest.raises(ExtractError, match="found both"), open_executor(**both):
        pass


def test_cuda_without_a_gpu_says_so(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    refused = pytest.raises(ExtractError, match="expects a GPU, found none on this machine")
    with refused, open_executor(cluster="cuda"):
        pass


def test_a_running_scheduler_is_used():
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        open_executor(dask=cluster.scheduler_address) as executor,
    ):
        assert isinstance(executor, OnDask)
        assert executor.call(divmod, 7, 2) == (3, 1)


def test_a_slurm_file_passes_its_lines_through(tmp_path):
    file = tmp_path / "slurm.yaml"
    file.write_text(
        "jobs: 0\ncores: 8\nmemory: 64GB\nwalltime: '12:00:00'\n"
        "lines: ['--gres=gpu:1', '--account=vision']\nprologue: ['module load cuda']\n"
    )
    cluster = slurm_cluster(file)
    script = cluster.job_script()
    cluster.close()
    for line in ("#SBATCH --gres=gpu:1", "#SBATCH --account=vision", "module load cuda"):
        assert line in script.splitlines()
    assert "#SBATCH -t 12:00:00" in script


def test_every_fault_of_a_slurm_file_at_once(tmp_path):
    file = tmp_path / "slurm.yaml"
    file.write_text("cores: 8\npartition: gpu\n")
    with pytest.raises(ExtractError) as caught:
        read_slurm(file)
    assert str(caught.value) == (
        f"slurm file {file}: 4 faults\n"
        "  - partition: unknown key\n"
        "  - jobs: absent (number of jobs, one worker each)\n"
        '  - memory: absent (memory per job, e.g. "64GB")\n'
        '  - walltime: absent (time limit, e.g. "12:00:00")'
    )
