"""Authors' checkpoints in and out: same tensors, options read off them, nothing lost in silence."""

import json
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file

from clare_cache.errors import HeadError
from clare_cache.heads import build_head
from clare_cache.heads.authors import export_head, import_head
from clare_cache.heads.authors.convert import frozen_tensors

N_CONTEXT = 5


def random_tensors(shapes, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def rine_shapes(*, depth, width, n_blocks=24, clip_width=1024):
    shapes = {"alpha": (1, n_blocks, width)}
    for part, n_in in (("proj1", clip_width), ("proj2", width)):
        for layer in range(depth):
            shapes[f"{part}.{1 + 3 * layer}.weight"] = (width, width if layer else n_in)
            shapes[f"{part}.{1 + 3 * layer}.bias"] = (width,)
    for layer, n_out in ((0, width), (3, width), (6, 1)):
        shapes[f"head.{layer}.weight"] = (n_out, width)
        shapes[f"head.{layer}.bias"] = (n_out,)
    return shapes


def save(tmp_path, content, name="theirs.pth"):
    torch.save(content, tmp_path / name)
    return tmp_path / name


@pytest.fixture
def tower(build_text_tower):
    return build_text_tower()


# RINE


@pytest.mark.parametrize(
    ("depth", "width", "n_blocks", "clip_width", "n_tensors"),
    [(4, 128, 24, 1024, 23), (2, 96, 24, 1024, 15), (1, 32, 12, 768, 11)],
)
def test_rine_s_options_follow_from_its_tensors(
    depth, width, n_blocks, clip_width, n_tensors, tmp_path
):
    shapes = rine_shapes(depth=depth, width=width, n_blocks=n_blocks, clip_width=clip_width)
    assert len(shapes) == n_tensors
    tensors = random_tensors(shapes)
    found = import_head(save(tmp_path, tensors), family="rine")
    assert found.head.family == "rine"
    assert (found.head.options["depth"], found.head.options["width"]) == (depth, width)
    assert found.head.shapes == {"clip_block_cls": (n_blocks, clip_width)}
    assert not found.head.training
    state = found.head.state_dict()
    assert state.keys() == tensors.keys()
    assert all(torch.equal(state[name], value) for name, value in tensors.items())
    assert found.ignored == ()
    assert found.remarks == (
        "contrastive_weight is not in the file: taken as 0.2",
        "dropout is not in the file: taken as 0.5",
    )


def test_rine_s_clip_tensors_are_left_aside_and_named(tmp_path):
    tensors = random_tensors(rine_shapes(depth=1, width=8, n_blocks=3, clip_width=16))
    path = save(tmp_path, tensors | {"clip.visual.proj": torch.zeros(2, 2)})
    assert import_head(path, family="rine").ignored == ("clip.visual.proj",)


def test_an_option_that_no_tensor_tells_is_the_user_s(tmp_path):
    tensors = random_tensors(rine_shapes(depth=1, width=8, n_blocks=3, clip_width=16))
    found = import_head(
        save(tmp_path, tensors), family="rine", contrastive_weight=0.4, aggregation="mean"
    )
    assert found.head.options["contrastive_weight"] == 0.4
    assert found.ignored == ("alpha",)
    assert found.remarks == ("dropout is not in the file: taken as 0.5",)


def test_an_option_against_the_tensors_is_refused(tmp_path):
    path = save(tmp_path, random_tensors(rine_shapes(depth=1, width=8)))
    with pytest.raises(HeadError, match="option depth: expected 1, as its tensors are, found 2"):
        import_head(path, family="rine", depth=2)


# UniversalFakeDetect

UFD = {"weight": (1, 768), "bias": (1,)}


def test_ufd_as_released(tmp_path):
    tensors = random_tensors(UFD)
    found = import_head(save(tmp_path, OrderedDict(tensors)), family="ufd")
    assert found.head.family == "linear"
    assert torch.equal(found.head.fc.weight, tensors["weight"])
    assert torch.equal(found.head.fc.bias, tensors["bias"])
    assert (found.ignored, found.remarks) == ((), ())


def test_ufd_as_saved_while_training(tmp_path):
    tensors = random_tensors(
        {"model.visual.proj": (4, 4), "model.logit_scale": (), "fc.weight": (1, 6), "fc.bias": (1,)}
    )
    optimiser = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))]).state_dict()
    path = save(tmp_path, {"model": tensors, "optimizer": optimiser, "total_steps": 7})
    found = import_head(path, family="ufd")
    assert torch.equal(found.head.fc.weight, tensors["fc.weight"])
    assert found.ignored == ("optimizer", "total_steps", "model.visual.proj", "model.logit_scale")


def test_names_of_data_parallel_training_are_understood(tmp_path):
    tensors = random_tensors({"module.fc.weight": (1, 6), "module.fc.bias": (1,)})
    found = import_head(save(tmp_path, {"state_dict": tensors}), family="ufd")
    assert torch.equal(found.head.fc.bias, tensors["module.fc.bias"])


# CLaRE and prompt tuning


def clare_tensors(golden_dir, tower, case):
    """Random tensors under the authors' names: their shapes, at this tower's widths."""
    published = json.loads((golden_dir / "state_dict_shapes.json").read_text())[f"clare-{case}"]
    n_context = published["prompt_learner.ctx"][0]
    sizes = {768: tower.width, 1024: 32, 3072: 96, 512: 16, 257: 10, 192: 6, 128: 4}
    sizes_map = {"attn_pool.projection_loss_map": {1024: 32}}
    tensors = {}
    for name, shape in published.items():
        small = sizes_map["attn_pool.projection_loss_map"] if "loss_map" in name else sizes
        tensors[name] = [small.get(size, size) for size in shape]
    tensors["image_proj.weight"][1] = 20
    tensors["text_proj.weight"][1] = tower.output_width
    tensors["channel_align.fc.0.weight"] = [4, 4]
    tensors["channel_align.fc.2.weight"] = [32, 4]
    tensors = random_tensors(tensors)
    for name, value in frozen_tensors(tower, n_context=n_context).items():
        key = name if name == "logit_scale" else f"prompt_learner.{name}"
        tensors[key] = value
    return tensors, n_context


CASES = [
    "coop-cross_attention",
    "coop-map_bias",
    "cocoop-cross_attention",
    "cocoop-map_bias",
    "cocoop-cross_attention-init",
]


@pytest.mark.parametrize("case", CASES)
def test_clare_s_tensors_reach_their_places(case, golden_dir, tower, tmp_path):
    tensors, n_context = clare_tensors(golden_dir, tower, case)
    tensors["visual.conv1.weight"] = torch.zeros(2, 3, 1, 1)
    found = import_head(save(tmp_path, {"state_dict": tensors}), family="clare", text=tower)
    prompts, attention, *_ = case.split("-")
    options = found.head.options
    assert (options["prompts"], options["attention"]) == (prompts, attention)
    assert options["n_context"] == n_context
    assert found.head.shapes == {
        "error_map": (4, 32, 32),
        "clip_patch_tokens": (9, 32),
        "clip_embedding": (20,),
    }
    assert found.ignored == ("conv_align.weight", "conv_align.bias", "visual.conv1.weight")
    assert found.remarks == (
        "the size of error maps is not in the file: taken as 32×32",
        "train is not in the file: taken as prompts",
        "dropout is not in the file: taken as 0.1",
        "class_position is not in the file: taken as end",
    )
    state = found.head.state_dict()
    assert torch.equal(state["map_proj.weight"], tensors["conv.weight"][:, :, 0, 0])
    assert torch.equal(state["prompt_learner.ctx"], tensors["prompt_learner.ctx"])
    if attention == "cross_attention":
        theirs = tensors["attn_pool.projection_loss_map_5.weight"][:, :, 0, 0]
        assert torch.equal(state["attn_pool.map_proj.4.weight"], theirs)
    held = sum(value.numel() for value in state.values())
    theirs = sum(
        value.numel()
        for name, value in tensors.items()
        if not name.endswith(("token_prefix", "token_suffix", "logit_scale"))
        and not name.startswith(("conv_align", "visual"))
    )
    assert held == theirs


def test_a_variant_that_no_tensor_tells_can_be_named(golden_dir, tower, tmp_path):
    tensors, _ = clare_tensors(golden_dir, tower, "coop-cross_attention")
    found = import_head(
        save(tmp_path, tensors), family="clare", text=tower,
        attention="cross_attention_tokens", class_position="front",
    )  # fmt: skip
    assert found.head.options["attention"] == "cross_attention_tokens"
    assert found.head.options["class_position"] == "front"


def test_a_checkpoint_of_another_text_tower_is_refused(golden_dir, tower, tmp_path):
    tensors, _ = clare_tensors(golden_dir, tower, "coop-map_bias")
    tensors["logit_scale"] += 0.1
    tensors["prompt_learner.token_suffix"] = tensors["prompt_learner.token_suffix"].flip(0)
    with pytest.raises(HeadError) as caught:
        import_head(save(tmp_path, tensors), family="clare", text=tower)
    assert (
        "2 faults\n"
        "  - logit_scale: expected the text tower's, its logit scale, found other numbers\n"
        "  - token_suffix: expected the text tower's, its embeddings of the classes, found other "
        "numbers\n"
    ) in str(caught.value)


def test_half_precision_prompts_of_coop(tower, tmp_path):
    tensors = random_tensors({"ctx": (N_CONTEXT, tower.width)})
    frozen = frozen_tensors(tower, n_context=N_CONTEXT)
    content = {
        name: value.half()
        for name, value in (tensors | {k: frozen[k] for k in ("token_prefix", "token_suffix")})
        .items()
    }  # fmt: skip
    path = save(tmp_path, {"state_dict": content, "epoch": 50, "optimizer": {}, "val_result": None})
    found = import_head(path, family="prompt_tuning", text=tower, class_position="front")
    assert found.head.options["class_position"] == "front"
    assert found.head.prompt_learner.ctx.dtype == torch.float32
    assert torch.equal(found.head.prompt_learner.ctx, content["ctx"].float())
    assert found.head.shapes == {"clip_embedding": (tower.output_width,)}
    assert found.ignored == ("epoch", "optimizer", "val_result")
    assert found.remarks == ()


@pytest.mark.parametrize("prompts", ["coop", "cocoop"])
@pytest.mark.parametrize("class_specific", [False, True])
def test_prompts_inside_a_whole_model(prompts, class_specific, tower, tmp_path):
    n_classes = (2,) if class_specific else ()
    shapes = {"ctx": (*n_classes, N_CONTEXT, tower.width)}
    if prompts == "cocoop":
        hidden = max(tower.output_width // 16, 1)
        shapes |= {
            "meta_net.linear1.weight": (hidden, tower.output_width),
            "meta_net.linear1.bias": (hidden,),
            "meta_net.linear2.weight": (tower.width, hidden),
            "meta_net.linear2.bias": (tower.width,),
        }
    tensors = {f"prompt_learner.{n}": v for n, v in random_tensors(shapes).items()}
    tensors |= {"image_encoder.proj": torch.zeros(2), "logit_scale": torch.tensor(14.0).log()}
    found = import_head(save(tmp_path, tensors), family="prompt_tuning", text=tower)
    assert found.head.options["prompts"] == prompts
    assert found.head.options["class_specific"] is class_specific
    assert found.ignored == ("image_encoder.proj",)
    state = found.head.state_dict()
    for name in shapes:
        assert torch.equal(state[f"prompt_learner.{name}"], tensors[f"prompt_learner.{name}"])


# Out again


def exportable_heads(tower):
    clare = {"error_map": (4, 32, 32), "clip_patch_tokens": (9, 32), "clip_embedding": (20,)}
    joint = {"clip_embedding": (tower.output_width,)}
    few = {"text": tower, "n_context": 3}
    return {
        "rine": build_head("rine", shapes={"clip_block_cls": (3, 16)}, depth=2, width=8),
        "ufd": build_head("linear", shapes={"clip_embedding": (20,)}),
        "clare": build_head("clare", shapes=clare, prompts="cocoop", **few),
        "clare map_bias": build_head("clare", shapes=clare, attention="map_bias", **few),
        "prompt_tuning": build_head("prompt_tuning", shapes=joint, prompts="cocoop", **few),
        "prompt_tuning specific": build_head(
            "prompt_tuning", shapes=joint, class_specific=True, class_position="front", **few
        ),
    }


@pytest.mark.parametrize(
    "name",
    ["rine", "ufd", "clare", "clare map_bias", "prompt_tuning", "prompt_tuning specific"],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_import_export_import_is_the_identity(name, suffix, tower, tmp_path):
    head = exportable_heads(tower)[name].eval()
    family = name.split()[0]
    told = {"class_position": "front"} if "specific" in name else {}
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
    export_head(head, first)
    imported = import_head(first, family=family, text=tower, **told)
    export_head(imported.head, second)
    assert first.read_bytes() == second.read_bytes()
    again = import_head(second, family=family, text=tower, **told).head
    assert imported.head.options == again.options == head.options
    for state in (imported.head.state_dict(), again.state_dict()):
        assert state.keys() == head.state_dict().keys()
        assert all(torch.equal(state[n], value) for n, value in head.state_dict().items())
    rows = {n: torch.rand(2, *shape) for n, shape in head.shapes.items()}
    assert torch.equal(again(rows).class_logits, head(rows).class_logits)


def test_exports_bear_the_authors_names_and_shapes(golden_dir, tower, tmp_path):
    published = json.loads((golden_dir / "state_dict_shapes.json").read_text())
    heads = exportable_heads(tower)
    cases = {"clare": "clare-cocoop-cross_attention", "clare map_bias": "clare-coop-map_bias"}
    for name, key in cases.items():
        remarks = export_head(heads[name], tmp_path / "theirs.pth")
        written = torch.load(tmp_path / "theirs.pth", weights_only=True)
        unused = {"conv_align.weight", "conv_align.bias"}
        assert written.keys() == published[key].keys() - unused
        assert {n: t.ndim for n, t in written.items()} == {
            n: len(s) for n, s in published[key].items() if n not in unused
        }
        assert len(remarks) == 1
        assert "strict=False" in remarks[0]
    export_head(heads["prompt_tuning"], tmp_path / "prompts.pth.tar")
    written = torch.load(tmp_path / "prompts.pth.tar", weights_only=True)
    shapes = published["prompt_tuning-cocoop"]
    theirs = {n.removeprefix("prompt_learner.") for n in shapes if n != "logit_scale"}
    assert written["state_dict"].keys() == theirs


def test_a_golden_suffix_is_as_long_as_the_published_one(golden_dir, build_text_tower):
    published = json.loads((golden_dir / "state_dict_shapes.json").read_text())
    tower = build_text_tower(width=768)
    for case, n_context in (("clare-coop-map_bias", 16), ("clare-cocoop-cross_attention-init", 4)):
        frozen = frozen_tensors(tower, n_context=n_context)
        for name in ("token_prefix", "token_suffix"):
            assert list(frozen[name].shape) == published[case][f"prompt_learner.{name}"]


# Files


class Malice:
    """What a pickle could hold."""


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (Malice(), "a pickle of more than tensors"),
        ({}, "an empty dictionary"),
        (torch.zeros(2), "Tensor"),
        ([torch.zeros(2)], "list"),
    ],
)
def test_other_contents_are_refused(content, found, tmp_path):
    with pytest.raises(HeadError, match=f"expected named tensors, found {found}"):
        import_head(save(tmp_path, content), family="rine")


@pytest.mark.parametrize("name", ["theirs.pth", "theirs.safetensors"])
def test_torn_and_absent_files_are_refused(name, tmp_path):
    path = tmp_path / name
    with pytest.raises(HeadError, match=r"expected a file, found none\. Check the path\."):
        import_head(path, family="ufd")
    tensors = random_tensors(UFD)
    save_file(tensors, path) if name.endswith("safetensors") else torch.save(tensors, path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(HeadError, match=r"found a (file that cannot be read|pickle of more)"):
        import_head(path, family="ufd")
