"""What this machine can do, and what is missing, with the cure. Looks, and changes nothing.

Each check is a function of what it is told, so that every sentence can be tested; `examine` asks
the machine. Libraries are imported by name: a broken one must become a finding, not a traceback.
"""

import importlib
import os
import resource
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal

import psutil
from packaging.requirements import Requirement

State = Literal["ok", "note", "warning", "broken"]

GIB = 2**30
DISK_GIB, SHM_GIB, GPU_GIB = 20, 1, 8
"""Below these a warning. On a GPU, Stable Diffusion 2.1 in float32 is 3.7 GB before any image."""
OPEN_FILES = 4096

OURS = "clare-cache"
NETWORK_LIBRARIES = ("torchvision", "diffusers", "transformers", "open_clip_torch")
IMPORTED = {
    "torch": "",
    "torchvision": "",
    "transformers": "CLIPTextModel",
    "diffusers": "UNet2DConditionModel",
    "open_clip": "create_model",
    "zarr": "",
    "distributed": "",
}
"""Library → a name in it that is used here: some load their parts only when asked for them."""
NOT_IMPORTABLE = (ImportError, OSError, RuntimeError, AttributeError, TypeError, ValueError)
"""What a library that does not fit the others raises while it is imported."""

WHY = {
    "diffusers": "other releases load the same weights into other modules",
    "transformers": "its CLIP text encoder changed in 5.6, and diffusers 0.42 expects the new one",
    "open_clip_torch": "4 has another attention module and no longer loads OpenAI's files",
    "zarr": "2 knows no Zarr v3",
}
TORCHVISION_CURE = (
    "torch and torchvision come from different indexes, for example one with CUDA and one without: "
    "install both again in one command, from one index"
)


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `broken` when something that is needed does not work.

    `cure` says what to do about it.
    """

    check: str
    state: State
    found: str
    cure: str = ""


def examine(folder: Path = Path()) -> list[Finding]:
    """Every finding on this machine; `folder` is where stores are to lie."""
    python = ".".join(map(str, sys.version_info[:3]))
    return [
        Finding("python", "ok", python),
        *check_versions({name: requirements_of(name) for name in (OURS, *NETWORK_LIBRARIES)}),
        *(check_import(name, part) for name, part in IMPORTED.items()),
        *devices(),
        check_memory(psutil.virtual_memory().total, os.cpu_count() or 1),
        check_disk(folder, shutil.disk_usage(folder).free),
        check_open_files(*resource.getrlimit(resource.RLIMIT_NOFILE)),
        *shared_memory(),
        *check_extras({name: _installed(name) for name in EXTRAS}),
        weights_cache(os.environ),
    ]


def is_broken(findings: Sequence[Finding]) -> bool:
    """Whether something that is needed does not work."""
    return any(finding.state == "broken" for finding in findings)


def requirements_of(package: str) -> list[Requirement] | None:
    """What a package needs without its extras, or None where it is not installed."""
    try:
        found = [Requirement(text) for text in requires(package) or []]
    except PackageNotFoundError:
        return None
    return [r for r in found if r.marker is None or r.marker.evaluate({"extra": ""})]


def check_versions(needed: Mapping[str, Sequence[Requirement] | None]) -> Iterator[Finding]:
    """Whether each package finds the releases that it needs: package → its requirements."""
    for package, requirements in needed.items():
        if requirements is None:
            yield Finding(package, "broken", "not installed", f"pip install {package}")
            continue
        unmet = [
            (requirement, found)
            for requirement in requirements
            if not requirement.specifier.contains(
                found := _installed(requirement.name) or "", prereleases=True
            )
            or not found
        ]
        for requirement, found in unmet:
            wanted = f"{requirement.name}{requirement.specifier}"
            why = f": {WHY[requirement.name]}" if requirement.name in WHY else ""
            yield Finding(
                package,
                "broken",
                f"needs {wanted}, found {found or 'none'}{why}",
                f"pip install '{wanted}'",
            )
        if not unmet:
            yield Finding(package, "ok", f"{_installed(package)}, and all that it needs")


def check_import(name: str, part: str = "") -> Finding:
    """Whether a library can be imported, with a part of it, and what it says if not."""
    try:
        module = importlib.import_module(name)
        if part:
            getattr(module, part)
    except NOT_IMPORTABLE as error:
        first = (str(error).splitlines() or [""])[0]
        cure = f"pip install --force-reinstall {name}"
        return Finding(
            f"import {name}",
            "broken",
            f"{type(error).__name__}: {first}",
            TORCHVISION_CURE if "torchvision" in f"{name} {error}" else cure,
        )
    return Finding(f"import {name}", "ok", str(getattr(module, "__version__", "imported")))


def devices() -> Iterator[Finding]:
    """The processor and every GPU that PyTorch can use; nothing where torch cannot be imported."""
    try:
        torch = importlib.import_module("torch")
    except NOT_IMPORTABLE:
        return  # `check_import` says so
    yield Finding("processor", "ok", f"{torch.backends.cpu.get_cpu_capability()} instructions")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        yield check_no_gpu(shutil.which("nvidia-smi") is not None, torch.version.cuda)
    for index in range(count):
        free, total = torch.cuda.mem_get_info(index)
        yield check_gpu(
            index,
            torch.cuda.get_device_name(index),
            free=free,
            total=total,
            bfloat16=torch.cuda.is_bf16_supported(including_emulation=False),
            failure=_gpu_failure(torch, index),
        )


def _gpu_failure(torch: Any, index: int) -> str:
    """What a small multiplication on the GPU fails with, or nothing."""
    try:
        ones = torch.ones(64, 64, device=f"cuda:{index}")
        total = float((ones @ ones).sum())
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return "" if total == 64**3 else f"64³ added up to {total}"


def check_no_gpu(has_driver: bool, built_for: str | None) -> Finding:
    """`has_driver`: nvidia-smi is there; `built_for`: the CUDA release that torch was built for."""
    if not has_driver:
        return Finding(
            "gpu", "note", "none: Stable Diffusion takes seconds an image on a processor"
        )
    if built_for is None:
        return Finding(
            "gpu",
            "warning",
            "there is an NVIDIA driver, but torch was built without CUDA",
            "install torch and torchvision for CUDA, both from one index",
        )
    return Finding(
        "gpu",
        "warning",
        f"there is an NVIDIA driver, but torch (CUDA {built_for}) sees no GPU",
        "look at CUDA_VISIBLE_DEVICES and at the driver's CUDA release in `nvidia-smi`: it must "
        "not be older than torch's",
    )


def check_gpu(
    index: int, name: str, *, free: int, total: int, bfloat16: bool, failure: str
) -> Finding:
    """One GPU: memory in bytes, and what a small multiplication failed with, if it did."""
    check = f"gpu {index}"
    found = (
        f"{name}, {free / GIB:.0f} of {total / GIB:.0f} GiB free, "
        f"bfloat16 {'yes' if bfloat16 else 'no'}"
    )
    if failure:
        return Finding(
            check, "broken", f"{name}: {failure}", "install a torch that is built for this GPU"
        )
    if free < GPU_GIB * GIB:
        return Finding(
            check, "warning", found, "free it, or use --dtype float16 and a small --batch-size"
        )
    return Finding(check, "ok", found)


def check_memory(total: int, cores: int) -> Finding:
    """RAM in bytes and processor cores."""
    found = f"{total / GIB:.0f} GiB, {cores} processor cores"
    if total < 8 * GIB:
        return Finding("memory", "warning", found, "use a smaller --batch-size and --block-rows")
    return Finding("memory", "ok", found)


def check_disk(folder: Path, free: int) -> Finding:
    """Free bytes where stores are to lie."""
    found = f"{free / GIB:,.0f} GiB free at {folder.resolve()}"
    if free < DISK_GIB * GIB:
        return Finding(
            "disk", "warning", found, "`clare-cache estimate` says what a store will need"
        )
    return Finding("disk", "ok", found)


def check_open_files(soft: int, hard: int) -> Finding:
    """The limits of files that a process may have open, −1 for none."""
    found = "no limit" if soft == resource.RLIM_INFINITY else f"{soft:,}"
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES:
        reachable = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
        return Finding("open files", "warning", found, f"ulimit -n {reachable}")
    return Finding("open files", "ok", found)


def shared_memory() -> Iterator[Finding]:
    """/dev/shm, where the system has one."""
    folder = Path("/dev/shm")  # asked for its size alone
    if folder.is_dir():
        yield check_shared_memory(shutil.disk_usage(folder).total)


def check_shared_memory(total: int) -> Finding:
    """Bytes of /dev/shm, through which worker processes hand each other tensors."""
    if total < SHM_GIB * GIB:
        return Finding(
            "shared memory",
            "warning",
            f"{total / 2**20:,.0f} MiB in /dev/shm",
            "start the container with --shm-size=8g or --ipc=host",
        )
    return Finding("shared memory", "ok", f"{total / GIB:.0f} GiB in /dev/shm")


EXTRAS = {
    "dask-jobqueue": ("--cluster slurm:FILE", "clare-cache[slurm]"),
    "obstore": ("stores at s3://, gs:// and az:// addresses", "clare-cache[s3]"),
}
"""Package that may be absent → what needs it, and what to install."""


def check_extras(installed: Mapping[str, str | None]) -> Iterator[Finding]:
    """Packages that only some commands need: name → release, or None."""
    for name, found in installed.items():
        use, package = EXTRAS[name]
        if found is None:
            yield Finding(name, "note", f"absent: only {use} needs it", f"pip install '{package}'")
        else:
            yield Finding(name, "ok", found)


def weights_cache(environment: Mapping[str, str]) -> Finding:
    """Whether weights may be downloaded, and which repositories are here already."""
    home = Path(environment.get("HF_HOME") or Path.home() / ".cache/huggingface")
    folder = Path(environment.get("HF_HUB_CACHE") or home / "hub")
    here = sorted(path.name for path in folder.glob("models--*"))
    offline = environment.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    names = ", ".join(name.removeprefix("models--").replace("--", "/") for name in here) or "none"
    found = f"{'offline' if offline else 'downloads allowed'}, in {folder}: {names}"
    if offline and not here:
        return Finding(
            "weights",
            "warning",
            found,
            "name folders and files (--sd FOLDER, --clip MODEL:FILE); `clare-cache weights fetch` "
            "gets them where there is a network",
        )
    return Finding("weights", "ok", found)


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
