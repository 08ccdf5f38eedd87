"""One pass, many heads: each gets the numbers that it would get alone, and its best epoch."""

import random
from itertools import chain

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score
from torch.nn import functional as F

from clare_cache.data import load
from clare_cache.errors import TrainError
from clare_cache.heads import build_head
from clare_cache.heads.linear import Linear
from clare_cache.metrics import choose_threshold
from clare_cache.seeds import generator_for
from clare_cache.train import loop, members
from clare_cache.train.checkpoint import Checkpoint
from clare_cache.train.config import OptimiserConfig
from clare_cache.train.loop import Member, time_steps, train_members
from clare_cache.train.masks import Masks
from clare_cache.train.score import probability, score
from clare_cache.train.stack import Stack
from clare_cache.train.teacher import Teacher
from tests.feature_data import EMBEDDING, SPECS, make_manifest, make_store

SHAPES = {name: spec.shape for name, spec in SPECS.items()}
NEEDS = list(SPECS)
N_TRAIN, BATCH_SIZE = 45, 10


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store"), range(80))


@pytest.fixture(scope="module")
def train(store):
    return load(store, make_manifest(range(N_TRAIN)), needs=NEEDS)


@pytest.fixture(scope="module")
def validation(store):
    return load(store, make_manifest(range(50, 75)), needs=NEEDS)


def linear(label="linear", seed=1, **settings):
    settings = {"lr": 0.05} | settings
    return Member(
        label, build_head("linear", shapes=SHAPES, seed=seed), OptimiserConfig(**settings)
    )


def rine(label="rine", seed=0, **settings):
    settings = {"lr": 0.02} | settings
    head = build_head("rine", shapes=SHAPES, seed=3, depth=1, width=8, dropout=0.5)
    return Member(label, head, OptimiserConfig(**settings), seed=seed)


def run(members, train, validation, **options):
    options = {"epochs": 4, "batch_size": BATCH_SIZE} | options
    found, lost = train_members(members, train, validation, **options)
    assert not lost
    return found


def assert_equal(one, other):
    """To the bit, in everything but the time it took."""
    for name in ("label", "history", "best_epoch", "threshold", "validation", "retired"):
        assert getattr(one, name) == getattr(other, name)
    left, right = one.head.state_dict(), other.head.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def assert_close(one, other):
    """As `assert_equal`, to rounding: what a stack promises."""
    assert (one.label, one.best_epoch, one.retired) == (
        other.label,
        other.best_epoch,
        other.retired,
    )
    assert one.threshold == pytest.approx(other.threshold, rel=1e-4)
    for line, expected in zip(one.history, other.history, strict=True):
        assert line == pytest.approx(expected, rel=1e-4)
    for name, value in one.head.state_dict().items():
        assert torch.allclose(value, other.head.state_dict()[name], rtol=1e-4, atol=1e-6)


# Nobody else's numbers


def make_members():
    return [
        rine("a"),
        linear("b"),
        rine("c", seed=5, optimiser="sgd", momentum=0.9, schedule="cosine", warmup_epochs=1),
        linear("d", seed=2, optimiser="adamw", weight_decay=0.1, clip_norm=0.5),
    ]


def test_heads_trained_together_are_the_heads_trained_alone(train, validation):
    together = run(make_members(), train, validation)
    for member, found in zip(make_members(), together, strict=True):
        (alone,) = run([member], train, validation)
        assert_close(found, alone)
    for member, found in zip(
        make_members()[::-1], run(make_members()[::-1], train, validation), strict=True
    ):
        assert found.label == member.label
        assert_close(found, together["abcd".index(found.label)])


def test_heads_of_other_shapes_change_not_a_bit(train, validation):
    together = run([rine(), linear()], train, validation)
    assert_equal(together[0], run([rine()], train, validation)[0])
    assert_equal(together[1], run([linear()], train, validation)[0])


def test_a_member_may_have_a_data_order_of_its_own(train, validation):
    shared, own = linear("shared"), linear("own")
    own.order = 9
    together = run([shared, own], train, validation)
    assert_equal(together[0], run([linear("shared")], train, validation)[0])
    assert_equal(together[1], run([linear("own")], train, validation, seed=9)[0])


def test_a_member_that_bursts_leaves_its_stack_and_the_others_go_on(train, validation):
    members = [rine("a", lr=0.01), rine("b", optimiser="sgd", lr=1e30), rine("c", momentum=0.5)]
    found, lost = train_members(members, train, validation, epochs=4, batch_size=BATCH_SIZE)
    assert set(lost) == {"b"}
    assert lost["b"].startswith(("loss became", "scores stopped being finite"))
    for result, member in zip(found, [rine("a", lr=0.01), rine("c", momentum=0.5)], strict=True):
        assert_close(result, run([member], train, validation)[0])


def test_the_same_call_gives_the_same_bits_whatever_the_global_seeds(train, validation):
    first = run([rine()], train, validation)
    torch.manual_seed(1234)
    random.seed(1234)
    assert_equal(first[0], run([rine()], train, validation)[0])


def test_training_leaves_the_global_generators_alone(train, validation):
    torch.manual_seed(7)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    run([rine(), linear()], train, validation)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert random.getstate() == before[2]


def test_the_member_s_seed_decides_dropout_and_the_run_s_seed_the_order(train, validation):
    base = run([rine(), linear()], train, validation)
    other_dropout = run([rine(seed=1), linear()], train, validation)
    assert base[0].history != other_dropout[0].history
    assert_equal(base[1], other_dropout[1])
    other_order = run([linear()], train, validation, seed=1)
    assert base[1].history != other_order[0].history


def test_streamed_data_train_too_the_same_way_every_time(store, train, validation):
    first, second = (
        load(store, make_manifest(range(N_TRAIN)), needs=NEEDS, resident=False) for _ in range(2)
    )
    (found,) = run([rine()], first, validation)
    assert_equal(found, run([rine()], second, validation)[0])
    assert found.history[0] != run([rine()], train, validation)[0].history[0]


def test_every_epoch_reads_every_image_once_in_another_order(train, validation, monkeypatch):
    read = []
    epoch = train._source.epoch

    def watch(*given):
        for positions, features in epoch(*given):
            read.append(positions.tolist())
            yield positions, features

    monkeypatch.setattr(train._source, "epoch", watch)
    run([linear("a"), linear("b"), rine()], train, validation, epochs=2)
    assert [len(indices) for indices in read] == 2 * [10, 10, 10, 10, 5]
    first, second = list(chain(*read[:5])), list(chain(*read[5:]))
    assert sorted(first) == sorted(second) == list(range(N_TRAIN))
    assert first != second != sorted(second)


# Cut off, and gone on with


class CutOff(Exception):
    pass


def cut_after(n_steps):
    def on_progress(progress):
        if progress.done == n_steps:
            raise CutOff

    return on_progress


def bursting():
    return rine("bursting", optimiser="sgd", lr=1e30)


@pytest.mark.parametrize("n_steps", [1, 3, 5, 7, 19])
def test_training_that_was_cut_off_goes_on_to_the_same_numbers(
    train, validation, tmp_path, n_steps
):
    """Steps 5 and 10 end epochs; one member has burst by then."""

    def some():
        return [*make_members(), Member("knn", build_head("knn", shapes=SHAPES), OptimiserConfig())]

    def go(members, **options):
        checkpoint = Checkpoint(tmp_path / "cut", every_seconds=0)
        return train_members(
            members, train, validation, epochs=4, batch_size=BATCH_SIZE,
            checkpoint=checkpoint, **options,
        )  # fmt: skip

    with pytest.raises(CutOff):
        go([*some(), bursting()], on_progress=cut_after(n_steps))
    steps = []
    found, lost = go([*some(), bursting()], on_progress=lambda p: steps.append(p.done))
    # The step that was cut off had no time to be written down.
    assert steps == list(range(n_steps, 21))
    assert set(lost) == {"bursting"}
    for result, expected in zip(found, run(some(), train, validation), strict=True):
        assert_close(result, expected)


def test_a_checkpoint_is_written_when_it_is_due_and_removed_at_the_end(train, validation, tmp_path):
    checkpoint = Checkpoint(tmp_path / "cut", every_seconds=1e6)
    run([linear()], train, validation, checkpoint=checkpoint)
    assert not (tmp_path / "cut").exists()
    eager = Checkpoint(tmp_path / "cut", every_seconds=0)
    run([linear()], train, validation, checkpoint=eager)
    assert [file.name for file in (tmp_path / "cut").iterdir()] == ["checkpoint.safetensors"]
    eager.remove()
    assert not (tmp_path / "cut").exists()


def test_a_damaged_checkpoint_is_named(train, validation, tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"torn")
    with pytest.raises(TrainError, match="Delete it to train from the start"):
        run([linear()], train, validation, checkpoint=Checkpoint(tmp_path))


def test_a_deadline_ends_training_with_what_there_is(train, validation):
    found = run([linear(), rine()], train, validation, deadline=0.0)
    for result in found:
        assert result.retired == "the time budget ended in epoch 1, step 1"
        assert result.best_epoch == len(result.history) == 1


def test_who_hears_of_epochs_may_stop_a_member(train, validation):
    heard = []

    def on_epoch(label, line):
        heard.append((label, line["epoch"]))
        return "enough" if (label, line["epoch"]) == ("a", 2) else None

    found = run([rine("a"), rine("b", seed=2)], train, validation, on_epoch=on_epoch)
    assert heard == [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("b", 3), ("b", 4)]
    assert [result.retired for result in found] == ["enough", ""]
    assert_close(found[1], run([rine("b", seed=2)], train, validation)[0])


# What is kept


@pytest.mark.parametrize("select", ["val_auc", "val_ap", "val_loss", "last"])
def test_the_best_epoch_is_the_one_selected_by_validation(train, validation, select):
    members = [rine("a", lr=0.2), linear("b", lr=0.5)]
    for found in run(members, train, validation, epochs=6, select=select):
        assert [line["epoch"] for line in found.history] == [1, 2, 3, 4, 5, 6]
        values = {
            "val_auc": [line["val_auc"] for line in found.history],
            "val_ap": [line["val_ap"] for line in found.history],
            "val_accuracy": [line["val_accuracy"] for line in found.history],
            "val_loss": [-line["val_loss"] for line in found.history],
            "last": list(range(6)),
        }[select]
        ranked = [
            (value, -line["val_loss"]) for value, line in zip(values, found.history, strict=True)
        ]
        assert found.best_epoch == 1 + ranked.index(max(ranked))
        best = found.history[found.best_epoch - 1]
        names = ("val_auc", "val_ap", "val_loss", "val_accuracy")
        assert found.validation == {name: best[name] for name in names}
        assert found.retired == ""


@pytest.mark.parametrize("tied", [1.0, 0.5])
def test_epochs_that_are_equally_good_are_told_apart_by_their_loss(
    train, validation, monkeypatch, tied
):
    monkeypatch.setattr(members, "roc_auc", lambda labels, scores: tied)
    (found,) = run([rine(lr=0.2)], train, validation, epochs=6, select="val_auc")
    losses = [line["val_loss"] for line in found.history]
    assert found.best_epoch == 1 + int(np.argmin(losses))
    assert found.validation["val_auc"] == tied


def test_the_weights_are_those_of_the_best_epoch(train, validation):
    (found,) = run([rine(lr=0.2)], train, validation, epochs=6, select="val_loss")
    assert found.best_epoch < 6
    (stopped,) = run([rine(lr=0.2)], train, validation, epochs=found.best_epoch, select="last")
    for name, value in stopped.head.state_dict().items():
        assert torch.equal(found.head.state_dict()[name], value)
    assert found.threshold == stopped.threshold
    assert not found.head.training


def test_validation_numbers_are_those_of_the_kept_head(train, validation):
    (found,) = run([rine()], train, validation)
    (log_odds,) = score([found.head], validation)
    labels = validation.labels.numpy()
    assert found.validation["val_auc"] == pytest.approx(roc_auc_score(labels, log_odds))
    assert found.validation["val_ap"] == pytest.approx(average_precision_score(labels, log_odds))
    assert found.validation["val_loss"] == pytest.approx(log_loss(labels, probability(log_odds)))


def test_the_threshold_is_chosen_on_validation_alone(train, validation):
    (found,) = run([linear()], train, validation)
    labels = validation.labels.numpy()
    (log_odds,) = score([found.head], validation)
    assert found.threshold == choose_threshold(labels, probability(log_odds))
    (on_training,) = score([found.head], train)
    assert found.threshold != choose_threshold(train.labels.numpy(), probability(on_training))


def test_training_lowers_the_loss_and_moves_every_parameter(train, validation):
    members = [rine(), linear()]
    before = [{n: p.clone() for n, p in m.head.named_parameters()} for m in members]
    for found, weights in zip(run(members, train, validation, epochs=8), before, strict=True):
        assert found.history[-1]["train_loss"] < found.history[0]["train_loss"]
        assert found.validation["val_auc"] > 0.6
        for name, parameter in found.head.named_parameters():
            assert not torch.equal(parameter, weights[name])


def test_the_history_has_each_epoch_s_learning_rate(train, validation):
    member = linear(lr=2e-3, schedule="cosine", warmup_epochs=1)
    (found,) = run([member], train, validation, epochs=5)
    rates = [line["lr"] for line in found.history]
    assert rates == pytest.approx([1e-5, 2e-3, 1.809e-3, 1.309e-3, 6.910e-4], abs=5e-7)


def test_one_epoch_of_plain_gradient_descent_by_hand(train, validation):
    (found,) = run(
        [linear(optimiser="sgd", lr=0.1)], train, validation, epochs=1, batch_size=N_TRAIN
    )
    head = build_head("linear", shapes=SHAPES, seed=1)
    features, labels = train.batch(np.arange(N_TRAIN))
    scores = head.fc(features["clip_embedding"].float()).squeeze(1)
    loss = F.binary_cross_entropy_with_logits(scores, labels.float())
    loss.backward()
    assert found.history[0]["train_loss"] == pytest.approx(loss.item(), rel=1e-5)
    expected = head.fc.weight - 0.1 * head.fc.weight.grad
    assert torch.allclose(found.head.fc.weight, expected, atol=1e-6)


@pytest.mark.parametrize(("clip_norm", "expected"), [(1e-3, 1e-3), (None, None)])
def test_gradients_are_clipped_to_the_norm_asked_for(train, validation, clip_norm, expected):
    before = build_head("linear", shapes=SHAPES, seed=1).state_dict()
    member = linear(optimiser="sgd", lr=1.0, clip_norm=clip_norm)
    (found,) = run([member], train, validation, epochs=1, batch_size=N_TRAIN)
    moved = torch.cat([(found.head.state_dict()[n] - before[n]).ravel() for n in before]).norm()
    if expected is None:
        assert moved > 0.05
    else:
        assert moved == pytest.approx(expected, rel=1e-3)


# Members that fail


class Bursting(Linear):
    """Its loss is not finite from the n-th step on, counted from 0."""

    def __init__(self, n: int, value: float = float("nan")) -> None:
        super().__init__(SHAPES)
        self.n, self.value = n, value

    def loss(self, output, labels):
        self.n -= 1
        return super().loss(output, labels) * (1.0 if self.n >= 0 else self.value)


class BlindAlley(Linear):
    """Its loss is finite and the gradient of it is not."""

    def loss(self, output, labels):
        return super().loss(output, labels) + (0 * self.fc.weight.sum()).sqrt()


def burst(label, n, value=float("nan")):
    return Member(label, Bursting(n, value), OptimiserConfig(lr=0.05))


def test_a_member_that_bursts_is_retired_with_its_best_epoch_and_the_others_go_on(
    train, validation
):
    members = [burst("burst", 12), rine(), linear()]
    found = run(members, train, validation)
    assert [result.label for result in found] == ["burst", "rine", "linear"]
    assert found[0].retired == "loss became nan in epoch 3, step 3"
    assert [line["epoch"] for line in found[0].history] == [1, 2]
    assert found[0].best_epoch in (1, 2)
    assert all(torch.isfinite(value).all() for value in found[0].head.state_dict().values())
    for result, alone in zip(found[1:], (rine(), linear()), strict=True):
        assert result.retired == ""
        assert_equal(result, run([alone], train, validation)[0])


def test_infinite_loss_is_not_finite_either(train, validation):
    (found,) = run([burst("burst", 5, float("inf"))], train, validation)
    assert found.retired == "loss became inf in epoch 2, step 1"
    assert found.best_epoch == 1


def test_weights_that_are_not_finite_are_noticed_at_validation(train, validation):
    blind = Member("blind", BlindAlley(SHAPES), OptimiserConfig())
    found, lost = train_members([blind, linear()], train, validation, epochs=2, batch_size=N_TRAIN)
    assert [result.label for result in found] == ["linear"]
    assert lost == {"blind": "scores stopped being finite after epoch 1"}


def test_members_without_a_finished_epoch_are_named_and_the_others_are_kept(train, validation):
    found, lost = train_members(
        [burst("a", 0), linear(), burst("b", 0)], train, validation, epochs=2, batch_size=8
    )
    assert lost == dict.fromkeys("ab", "loss became nan in epoch 1, step 1")
    assert_equal(found[0], run([linear()], train, validation, epochs=2, batch_size=8)[0])


@pytest.mark.parametrize("numbers", [range(50, 74, 2), range(51, 75, 2), []])
def test_each_split_needs_both_classes(store, train, numbers):
    one_class = load(store, make_manifest(numbers), needs=NEEDS)
    with pytest.raises(TrainError, match="validation data: expected real and fake images"):
        run([linear()], train, one_class)
    with pytest.raises(TrainError, match="training data: expected real and fake images"):
        run([linear()], one_class, train)


def test_progress_counts_the_batches_of_all_epochs(train, validation):
    seen = []
    run([linear()], train, validation, epochs=2, on_progress=seen.append)
    assert [(p.what, p.done, p.total, p.unit) for p in seen] == [
        ("train", n, 10, "step") for n in range(1, 11)
    ]
    assert [seen[0].note, seen[-1].note] == ["epoch 1/2", "epoch 2/2"]


def test_heads_need_only_their_own_arrays(store, train, validation):
    rows = load(store, make_manifest(range(N_TRAIN)), needs=[EMBEDDING.name])
    assert_equal(run([linear()], rows, validation)[0], run([linear()], train, validation)[0])


# Settings of the literature


def test_label_smoothing_moves_its_share_of_each_label(train, validation):
    """Beside torch's own, whose share is spread over both classes: 2 x ours."""
    features, labels = train.batch(np.arange(20))
    head = build_head("linear_probe", shapes=SHAPES, seed=1)
    stack = Stack([head])
    (found,) = stack.losses(features, labels, seeds=[0], masks=Masks("0/0"), smoothing=[0.1])
    logits = head(features).class_logits
    assert torch.allclose(found, F.cross_entropy(logits, labels, label_smoothing=0.2))


def test_members_of_a_stack_have_their_own_smoothing(train, validation):
    features, labels = train.batch(np.arange(20))
    features = {name: tensor.float() for name, tensor in features.items()}
    shares = [0.0, 0.1, 0.3]
    heads = [build_head("rine", shapes=SHAPES, seed=n, depth=1, width=8) for n in range(3)]
    alone = [
        Stack([head]).losses(features, labels, seeds=[5], masks=Masks("0/0"), smoothing=[share])
        for head, share in zip(heads, shares, strict=True)
    ]
    found = Stack(heads).losses(
        features, labels, seeds=[5] * 3, masks=Masks("0/0"), smoothing=shares
    )
    assert torch.allclose(found, torch.cat(alone), rtol=1e-5)
    assert not torch.allclose(found, Stack(heads).losses(
        features, labels, seeds=[5] * 3, masks=Masks("0/0")
    ))  # fmt: skip


def test_a_cosine_stepped_every_step_ends_at_zero(train, validation):
    member = linear(schedule="cosine", update_lr="step", warmup_epochs=1)
    (found,) = run([member], train, validation, epochs=3)
    assert [line["lr"] for line in found.history][-1] == pytest.approx(0, abs=1e-12)
    assert found.history[0]["lr"] < 0.05


def test_early_stopping_lowers_each_members_rate_and_ends_it(train, validation):
    # A rate that changes nothing: no epoch is progress after the first.
    still = [linear("a", lr=2e-6, early_stopping="ufd"), linear("b", lr=3e-5, early_stopping="ufd")]
    going = linear("c", lr=2e-6)
    a, b, c = run([*still, going], train, validation, epochs=14)
    assert a.retired == "its validation accuracy stopped improving by epoch 6"
    assert len(a.history) == 6
    assert [line["lr"] for line in b.history] == pytest.approx([3e-5] * 6 + [3e-6] * 6)
    assert b.retired == "its validation accuracy stopped improving by epoch 12"
    assert (c.retired, len(c.history)) == ("", 14)


def test_the_average_of_the_weights_is_what_is_validated_and_kept(train, validation):
    plain, averaged = (
        run([linear(average=decay)], train, validation, epochs=1, select="last")[0]
        for decay in (None, 0.8)
    )
    # By hand: the weights after each step, one step more at a time.
    order = generator_for(0, "train", "order/0")
    head = build_head("linear", shapes=SHAPES, seed=1)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.05)
    average = None
    for features, labels in train.epoch(order, BATCH_SIZE):
        optimiser.zero_grad()
        head.loss(head(features), labels).backward()
        optimiser.step()
        weights = head.fc.weight.detach().clone()
        average = weights if average is None else 0.8 * average + 0.2 * weights
    assert torch.allclose(plain.head.fc.weight, weights, atol=1e-6)
    assert torch.allclose(averaged.head.fc.weight, average, atol=1e-6)
    assert not torch.allclose(average, weights, atol=1e-3)
    scores = score([averaged.head], validation)[0]
    expected = roc_auc_score(validation.labels, scores)
    assert averaged.validation["val_auc"] == pytest.approx(expected)


def test_members_that_average_train_together_as_alone(train, validation):
    def members():
        # Not Adam, which makes steps of noise where a gradient is all but 0.
        sgd = {"optimiser": "sgd", "momentum": 0.9}
        return [rine("a", average=0.9, **sgd), rine("b", seed=4, **sgd),
                rine("c", seed=7, average=0.5, **sgd)]  # fmt: skip

    together = run(members(), train, validation, select="last")
    for member, found in zip(members(), together, strict=True):
        (alone,) = run([member], train, validation, select="last")
        for name, value in found.head.state_dict().items():
            assert torch.allclose(value, alone.head.state_dict()[name], rtol=1e-4, atol=1e-4)


def test_a_prompt_of_averaged_weights_is_encoded_anew(build_text_tower):
    """The text that is kept at evaluation is that of the average, and not kept in training."""
    head = build_head(
        "prompt_tuning", shapes={"clip_embedding": (10,)}, text=build_text_tower(), n_context=2
    )
    teacher = Teacher([head.train()], [OptimiserConfig(lr=0.5, average=0.5)], [0])
    rows = {"clip_embedding": torch.randn(6, 10)}
    labels = torch.arange(6) % 2
    teacher.start_epoch(0, 1, n_steps=3)
    for number in range(3):
        teacher.step(rows, labels, masks=Masks(f"0/{number}"), number=number)

    def scores():
        with torch.inference_mode():
            return head.eval()(rows).score.clone()

    before = scores()
    with teacher.averaged():
        during = scores()
    assert not torch.allclose(during, before, atol=1e-4)
    assert torch.equal(scores(), before)


def test_timed_steps_are_replayed_ones_unless_they_are_long(monkeypatch):
    made = []
    plain = Stack.learn

    def learn(stack, *given, **options):
        found = plain(stack, *given, **options)
        made.append([recorder.is_recorded for recorder in stack._recorders.values()])
        return found

    monkeypatch.setattr(Stack, "learn", learn)

    def time_them(**options):
        del made[:]
        members = [Member(str(n), build_head("linear", shapes=SHAPES, seed=n), OptimiserConfig())
                   for n in range(2)]  # fmt: skip
        return time_steps(members, SHAPES, batch_size=4, **options)

    assert time_them().n_stacks == 1
    assert made == [[False]] * 4
    time_them(replayed=True)
    assert made[-4:] == [[True]] * 4
    monkeypatch.setattr(loop, "LONG_STEP", 0.0)
    time_them(replayed=True)
    assert made == [[False]] * 4
