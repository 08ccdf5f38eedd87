"""The spellings of --cluster and --dask, and what each of them starts."""

import os
import pickle
import signal

import pytest

from clare_cache.backbones import DEFAULT_FEATURES, ClipConfig, ErrorMapConfig
from clare_cache.errors import ExtractError
from clare_cache.extraction import BackboneSpec, BlockReport, InProcess, OnDask
from clare_cache.extraction.clusters import (
    THREADS,
    open_executor,
    read_slurm,
    slurm_cluster,
)
from clare_cache.extraction.work import BlockWork
from clare_cache.store import open_place


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


def test_ctrl_c_in_the_terminal_does_not_reach_local_workers():
    with open_executor(cluster="local:1") as executor:
        assert executor.call(signal.getsignal, signal.SIGINT) == signal.SIG_IGN


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
    assert "export DASK_DISTRIBUTED__WORKER__DAEMON=False" in script.splitlines()
    assert "#SBATCH -t 12:00:00" in script


def test_the_job_script_is_printed_and_nothing_submitted(tmp_path, command, monkeypatch):
    (tmp_path / "slurm.yaml").write_text(
        "jobs: 40\ncores: 8\nmemory: 64GB\nwalltime: '12:00:00'\nlines: ['--gres=gpu:1']\n"
    )
    monkeypatch.setenv("PATH", "")  # no sbatch
    asked = ("extract", "m.csv", "store", "--print-job-script")
    done = command(*asked, "--cluster", "slurm:slurm.yaml", folder=tmp_path)
    assert done.status == 0
    assert "#SBATCH --gres=gpu:1" in done.out.splitlines()
    assert f"--nthreads {THREADS}" in done.out
    assert not (tmp_path / "store").exists()
    done = command(*asked, "--cluster", "local:2", folder=tmp_path)
    assert (done.status, done.err) == (
        1,
        "error: extract: --print-job-script expects --cluster slurm:FILE, found local:2.\n",
    )


@pytest.mark.parametrize(
    ("visible", "pinned"), [("5,GPU-8f2e", {"5", "GPU-8f2e"}), ("", {"0", "1"})]
)
def test_each_gpu_has_one_process_that_sees_no_other(visible, pinned, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with open_executor(cluster="cuda") as executor:
        executor.client.wait_for_workers(2)
        seen = executor.client.run(lambda: (os.environ["CUDA_VISIBLE_DEVICES"], os.getpid()))
        assert {device for device, _ in seen.values()} == pinned
        assert len({process for _, process in seen.values()} - {os.getpid()}) == 2
        assert set(executor.client.nthreads().values()) == {THREADS}


def test_local_workers_are_processes():
    with open_executor(cluster="local:2") as executor:
        executor.client.wait_for_workers(2)
        processes = set(executor.client.run(os.getpid).values())
        assert len(processes - {os.getpid()}) == 2
        assert set(executor.client.nthreads().values()) == {THREADS}


def test_what_travels_for_a_block_is_small_whatever_the_number_of_images(tmp_path):
    spec = BackboneSpec(
        sd="weights/stable-diffusion-2-1@bb2154823665391b4fb29b0b9cf82a198964ee05",
        clip="ViT-L-14-quickgelu:weights/open_clip_model.safetensors",
        features=DEFAULT_FEATURES,
        error_map=ErrorMapConfig(),
        image_tower=ClipConfig(),
    )
    work = BlockWork(
        store=open_place(tmp_path),
        request="requests/0123456789abcdef.parquet",
        root=tmp_path,
        views=("clean", "jpeg-q50"),
        features=DEFAULT_FEATURES,
        backbones=spec,
        batch_size=16,
        workers=2,
    )
    report = BlockReport(39_062, 256, 256, {"decode": 1.5, "error_map": 2.5, "write": 0.5})
    assert len(pickle.dumps((work, 39_062))) < 2_000
    assert len(pickle.dumps(report)) < 500


def test_networks_are_loaded_once_in_a_process(monkeypatch):
    loads = []
    monkeypatch.setattr(
        "clare_cache.extraction.work.load_backbones", lambda **asked: loads.append(asked) or []
    )
    for timestep in (250, 250, 260):
        spec = BackboneSpec(
            sd="tiny",
            clip=None,
            features=("error_map",),
            error_map=ErrorMapConfig(timestep=timestep),
            image_tower=ClipConfig(),
        )
        spec.load()
    assert [asked["error_map"].timestep for asked in loads] == [250, 260]


@pytest.mark.parametrize("text", [b"jobs: \xff", b"jobs: 2\njobs: 3\n", b"jobs: [\n"])
def test_a_slurm_file_that_is_no_yaml(tmp_path, text):
    (tmp_path / "slurm.yaml").write_bytes(text)
    with pytest.raises(ExtractError, match="expected YAML, found"):
        read_slurm(tmp_path / "slurm.yaml")


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
