"""What runs on a GPU, on a pretended one: nothing is left behind, and the host waits for little."""

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import tests.contracts.test_head_contract as contract
from clare_cache.backbones import ClipConfig, ErrorMapConfig, load_backbones, load_text_tower
from clare_cache.data import load
from clare_cache.data.residence import Residence
from clare_cache.heads import build_head
from clare_cache.train import loop, recording, stack
from clare_cache.train.config import OptimiserConfig
from clare_cache.train.loop import Member, train_members
from clare_cache.train.masks import Masks
from clare_cache.train.members import State
from clare_cache.train.numerics import numerics
from clare_cache.train.score import score, to_device
from clare_cache.train.teacher import Teacher
from tests.feature_data import make_manifest, make_store
from tests.pretend_gpu import CARD, PretendGenerator, PretendGpu

TRAINED = sorted(contract.HeadContract.__subclasses__(), key=lambda kind: kind.__name__)
SETTINGS = {
    "adam": OptimiserConfig(lr=1e-3),
    "adamw": OptimiserConfig(optimiser="adamw", weight_decay=0.1, clip_norm=0.5, average=0.9),
    "sgd": OptimiserConfig(optimiser="sgd", momentum=0.9, label_smoothing=0.1),
}
IDS = [f"{number:064x}" for number in range(3)]


class FakeEvent:
    """What `Stopwatch` asks of `torch.cuda.Event`."""

    def __init__(self, *, enable_timing: bool) -> None:
        self.at = None

    def record(self, stream: object) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        assert self.at is not None

    def elapsed_time(self, end: "FakeEvent") -> float:
        return 1000 * (end.at - self.at)


@pytest.fixture
def gpu(monkeypatch):
    """A pretended GPU with 8 GB, not yet entered."""
    plain_empty = torch.empty

    def empty(*shape, pin_memory=False, **given):
        return plain_empty(*shape, **given)

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch, "Generator", PretendGenerator)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8 * 10**9, 8 * 10**9))
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace())
    card = PretendGpu()
    for kind in (stack._StackedDropout, stack._StackedLinear):
        monkeypatch.setattr(kind, "vmap", staticmethod(card.within(kind.vmap)))
    return card


def on_card(gpu, tensors):
    return all(gpu.holds(tensor) for tensor in tensors)


class TestThePretendedGpu:
    """What the other tests rely on."""

    def test_refuses_what_a_gpu_refuses(self, gpu):
        with gpu:
            here, there = torch.ones(2, 3), torch.ones(2, 3, device="cuda")
            assert (here.device.type, there.device, there.is_cuda) == ("cpu", CARD, True)
            with pytest.raises(RuntimeError, match="mm: expected all tensors on the same device"):
                here @ there.T
            with pytest.raises(TypeError, match="copy it with"):
                there.numpy()
            with pytest.raises(RuntimeError, match="expected a cuda:0 generator"):
                there.normal_(generator=torch.Generator())
            weight = torch.ones(3, requires_grad=True)
            with pytest.raises(RuntimeError, match="expected all tensors"):
                (there.T * weight.to("cuda")[:, None] + here.T).sum().backward()

    def test_marks_follow_views_gradients_and_stacks(self, gpu):
        with gpu:
            weight = torch.ones(2, 3, device="cuda", requires_grad=True)
            found = torch.vmap(lambda row: (row * 2).sum())(weight)
            found.sum().backward()
            assert on_card(gpu, [weight.grad, found, weight.T[1:], torch.zeros_like(weight)])
            assert not gpu.holds(weight.detach().cpu())

    def test_notes_what_the_host_waits_for(self, gpu):
        with gpu:
            there = torch.ones(3).to("cuda", non_blocking=True)
            assert gpu.waits == []
            there.sum().item()
            there[there > 0]
            there[torch.tensor([0])]
            torch.ones(3).to("cuda")
            torch.tensor([1.0], device="cuda")
            there.cpu()
        assert gpu.waits == [
            "_local_scalar_dense", "index", "index with indices on cpu", "copy to cuda:0",
            "tensor with device=cuda:0", "copy to cpu",
        ]  # fmt: skip


def take_steps(teacher, batch, labels):
    teacher.start_epoch(0, 1, n_steps=2)
    for number in range(2):
        teacher.step(batch, labels, masks=Masks(f"0/{number}"), number=number)


def train_members_of(kind, tower, n_members, device):
    """A stack of the contract's heads and a batch: heads, teacher, features, labels."""
    name = list(SETTINGS)[TRAINED.index(kind) % len(SETTINGS)]
    rows = contract.make_features(6, torch.float16)
    rows["region_boxes"] = rows["region_boxes"].clamp(0, 1).sort(dim=-1).values
    heads = [kind().build(tower, seed).to(device).train() for seed in range(n_members)]
    teacher = Teacher(heads, [SETTINGS[name]] * n_members, range(n_members))
    batch = to_device(rows, device)
    return heads, teacher, batch, (torch.arange(6) % 2).to(device, non_blocking=True)


@pytest.mark.parametrize("kind", TRAINED, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(("n_members", "record_at"), [(1, 0), (2, 0), (2, 1)])
def test_heads_train_on_a_gpu_without_waiting_for_it(
    gpu, build_text_tower, monkeypatch, kind, n_members, record_at
):
    monkeypatch.setattr(recording, "RECORD_AT", record_at)
    tower = build_text_tower(output_width=contract.SHAPES["clip_embedding"][0])
    heads, *given = train_members_of(kind, tower, n_members, "cpu")
    take_steps(*given)
    expected = [dict(head.state_dict()) for head in heads]
    with gpu:
        heads, teacher, *batch = train_members_of(kind, tower, n_members, "cuda")
        del gpu.waits[:]
        take_steps(teacher, *batch)
        assert gpu.waits == []
        recorders = teacher.stack._recorders.values()
        assert [r.is_recorded for r in recorders] == [record_at > 0] * (n_members > 1)
        for head in heads:
            assert on_card(gpu, [*head.parameters(), *head.buffers()])
        assert all(np.isfinite(lesson.train_loss) for lesson in teacher.end_epoch())
        found = [{n: v.cpu() for n, v in head.state_dict().items()} for head in heads]
    for one, other in zip(found, expected, strict=True):
        for key, value in other.items():
            assert torch.allclose(one[key], value, rtol=1e-4, atol=1e-6), key


@pytest.mark.gpu
@pytest.mark.parametrize("kind", TRAINED, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_heads_train_on_a_card(build_text_tower, monkeypatch, kind, precision):
    monkeypatch.setattr(recording, "RECORD_AT", 1)
    tower = build_text_tower(output_width=contract.SHAPES["clip_embedding"][0])
    with numerics(precision, deterministic=False, device="cuda"):
        _, teacher, *batch = train_members_of(kind, tower, 2, "cuda")
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            take_steps(teacher, *batch)
        finally:
            torch.cuda.set_sync_debug_mode(before)
        assert all(np.isfinite(lesson.train_loss) for lesson in teacher.end_epoch())


def test_prompts_train_through_the_real_text_tower_on_a_gpu(gpu):
    with gpu:
        tower = load_text_tower("tiny", device="cuda")
        shapes = {**contract.SHAPES, "clip_embedding": (tower.output_width,)}
        rows = {name: torch.rand(4, *shape, device="cuda") for name, shape in shapes.items()}
        labels = (torch.arange(4) % 2).to("cuda")
        heads = [
            build_head("clare", shapes=shapes, text=tower, prompts=prompts, seed=seed).to("cuda")
            for prompts in ("coop", "cocoop")
            for seed in (0, 1)
        ]
        adapter = build_head("adapter", shapes=shapes, text=tower).to("cuda")
        for group in (heads[:2], heads[2:], heads[2:3], [adapter]):
            teacher = Teacher(group, [OptimiserConfig()] * len(group), range(len(group)))
            del gpu.waits[:]
            take_steps(teacher, rows, labels)
            assert gpu.waits == []


def test_an_optimisers_memory_comes_back_to_where_it_was(gpu):
    rows = contract.make_features(6)
    with gpu:
        batch, labels = to_device(rows, "cuda"), (torch.arange(6) % 2).to("cuda")
        heads = [build_head("linear", shapes=contract.SHAPES, seed=s).to("cuda") for s in (0, 1)]
        teacher = Teacher(heads, [OptimiserConfig()] * 2, (0, 1))
        take_steps(teacher, batch, labels)
        memory = [{n: v.cpu() for n, v in teacher.optimiser_state(m).items()} for m in (0, 1)]
        lessons = [teacher.lesson_state(m).cpu() for m in (0, 1)]
        again = Teacher(heads, [OptimiserConfig()] * 2, (0, 1))
        again.restore_optimiser(memory)
        again.start_epoch(0, 1)
        again.restore_lessons(lessons)
        del gpu.waits[:]
        again.step(batch, labels, masks=Masks("0/2"))
        # Adam's count of steps stays with the host, which reads it at every step.
        assert gpu.waits == []


RESIDENCES = {
    "gpu": lambda device: Residence("gpu", "test", device),
    "ram": lambda device: Residence("ram", "test", device),
    "streamed": lambda device: Residence("streamed", "test", device, pool_rows=16),
}


@pytest.mark.parametrize("kind", RESIDENCES)
def test_training_on_a_gpu_gives_the_numbers_of_a_cpu(gpu, tmp_path, monkeypatch, kind):
    store = make_store(tmp_path / "store", range(64))
    shapes = {"clip_embedding": (6,), "clip_block_cls": (3, 5)}

    def train(device):
        needs = ["clip_embedding", "clip_block_cls"]
        data, validation = (
            load(store, make_manifest(numbers), needs=needs, device=device)
            for numbers in (range(48), range(48, 64))
        )
        heads = [
            *(build_head("rine", shapes=shapes, width=8, seed=seed) for seed in (0, 1)),
            build_head("linear", shapes=shapes),
            build_head("knn", shapes=shapes),
        ]
        members = [Member(f"{n}", head, OptimiserConfig()) for n, head in enumerate(heads)]
        trained, lost = train_members(
            members, data, validation, epochs=2, batch_size=16, device=device
        )
        assert not lost
        return data, trained

    def choose(*, device, **told):
        # As on a card, so that the order of images is the same.
        there = replace(RESIDENCES[kind](device), pinned=device.type == "cuda" and kind != "gpu")
        return replace(there, kind="ram") if device.type == "cpu" and kind == "gpu" else there

    monkeypatch.setattr("clare_cache.data.features.choose_residence", choose)
    expected = [one.validation["val_loss"] for one in train("cpu")[1]]
    with gpu:
        data, trained = train("cuda")
        tensors = list(data.batch(np.arange(3))[0].values())
        assert on_card(gpu, tensors) is (kind == "gpu")
        assert all(on_card(gpu, one.head.state_dict().values()) for one in trained)
    assert [one.validation["val_loss"] for one in trained] == pytest.approx(expected, rel=1e-4)


def test_an_epoch_from_a_gpu_waits_for_nothing_but_its_end(gpu, tmp_path):
    store = make_store(tmp_path / "store", range(64))
    with gpu:
        data = load(store, make_manifest(range(64)), needs=["clip_embedding"], device="cuda")
        assert data.residence.kind == "gpu"
        states = [State(Member("", build_head("linear", shapes=data.shapes), OptimiserConfig()))]
        cohorts = loop._gather(states, seed=0, device="cuda")
        cohorts[0].teacher.start_epoch(0, 1)
        del gpu.waits[:]
        for step, batches in loop._read(cohorts, data, 16, epoch=0, skip=0):
            for batch in batches.values():
                cohorts[0].teacher.step(*loop._on("cuda", *batch), masks=Masks(f"0/{step}"))
        assert step == 3
        assert gpu.waits == []
        score([states[0].member.head], data, device="cuda", batch_size=16)
        assert gpu.waits == ["copy to cpu"]


def test_the_nearest_neighbours_are_searched_on_a_gpu(gpu):
    rows, labels = contract.make_features(12), torch.arange(12) % 2

    def fit(device):
        head = build_head("knn", shapes=contract.SHAPES, k=3).to(device)
        head.remember([(rows, labels), (rows, labels)])
        queries = to_device(contract.make_features(5, seed=7), device)
        return head, head(queries).score, head.vote(queries)

    _, expected, votes = fit("cpu")
    with gpu:
        head, found, voted = fit("cuda")
        assert on_card(gpu, [head.real, head.fake, found, voted])
        assert torch.allclose(found.cpu(), expected)
        assert torch.equal(voted.cpu(), votes)


def pictures(size_px: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (3, size_px, size_px, 3), dtype=np.uint8)


LOOKS = ("error_map", "error_map_signed-t280-n6", "error_map-n2", "vae_latent")


@pytest.mark.parametrize("dtype", ["float32", "tf32", "float16", "bfloat16"])
@pytest.mark.parametrize("latent_dtype", ["float32", "float16"])
def test_error_maps_are_made_on_a_gpu(gpu, dtype, latent_dtype):
    config = ErrorMapConfig(dtype=dtype, latent_dtype=latent_dtype)
    exact = ErrorMapConfig(latent_dtype=latent_dtype)

    def look(config, device):
        (backbone,) = load_backbones(
            sd="tiny", clip=None, features=LOOKS, error_map=config, device=device
        )
        return backbone, backbone(pictures(256), IDS, LOOKS)

    _, expected = look(exact, "cpu")
    with gpu:
        backbone, found = look(config, "cuda")
        held = [*backbone._unet.parameters(), *backbone._vae.parameters(), backbone._prompt]
        assert on_card(gpu, held)
        del gpu.waits[:]
        backbone(pictures(256), IDS, LOOKS)
        # The pictures in, and four arrays out.
        assert gpu.waits.count("copy to cpu") == len(LOOKS)
        assert len(gpu.waits) <= len(LOOKS) + 1
        assert set(backbone.take_seconds()) == {"vae", "unet"}
    tolerance = {"float16": 5e-3, "bfloat16": 5e-2}.get(dtype, 1e-4)
    for name in LOOKS:
        apart = np.linalg.norm(found[name] - expected[name]) / np.linalg.norm(expected[name])
        assert apart < tolerance, name


def test_error_maps_are_made_of_latents_on_a_gpu(gpu):
    names = ["error_map-t280", "error_map-n2"]
    with gpu:
        (backbone,) = load_backbones(
            sd="tiny", clip=None, features=names, device="cuda", from_latents=True,
            error_map=ErrorMapConfig(latent_dtype="float16"),
        )  # fmt: skip
        latents = np.random.default_rng(0).standard_normal((3, 4, 32, 32)).astype(np.float16)
        found = backbone(latents, IDS, names)
    assert {name: found[name].shape for name in names} == dict.fromkeys(names, (3, 4, 32, 32))


@pytest.mark.parametrize("clip", ["tiny", "random:SmallResNet"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_clip_looks_on_a_gpu(gpu, clip, dtype):
    from open_clip import factory

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(factory._MODEL_CONFIGS, "SmallResNet", {
            "embed_dim": 8,
            "vision_cfg": {"image_size": 64, "layers": [1] * 4, "width": 16, "patch_size": None},
            "text_cfg": {"width": 16, "heads": 2, "layers": 1},
        })  # fmt: skip
        feature = "clip_block_cls" if clip == "tiny" else "clip_layer3_map"

        def look(dtype, device):
            (backbone,) = load_backbones(
                sd=None, clip=clip, features=[feature], device=device,
                clip_config=ClipConfig(dtype=dtype, stored_dtype="float32"),
            )  # fmt: skip
            wanted = [spec.name for spec in backbone.arrays]
            size_px = backbone.preprocess(pictures(300)[0]).shape[0]
            return backbone, backbone(pictures(size_px), IDS, wanted)

        _, expected = look("float32", "cpu")
        with gpu:
            backbone, found = look(dtype, "cuda")
            assert on_card(gpu, backbone._visual.parameters())
        tolerance = {"float16": 1e-2, "bfloat16": 1e-1}.get(dtype, 1e-4)
        for name, values in expected.items():
            apart = np.linalg.norm(found[name] - values) / np.linalg.norm(values)
            assert apart < tolerance, name
