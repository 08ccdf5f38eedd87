"""Every epoch of every member reaches the trackers that were asked for, and no others."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from clare_cache.errors import TrainError
from clare_cache.train.tracking import track

SETTINGS = {"a": {"lr": 0.1}, "b": {"lr": 0.2}}
LINES = [
    ("a", {"epoch": 1, "val_auc": 0.5, "train_loss": 1.0}),
    ("b", {"epoch": 1, "val_auc": 0.6}),
    ("a", {"epoch": 2, "val_auc": 0.7, "note": "text is left out"}),
]


def tell_all(name, out):
    with track([name], out=out, settings=SETTINGS) as tell:
        for label, line in LINES:
            tell(label, line)


@pytest.fixture
def wandb(monkeypatch):
    """What wandb was told, by run."""
    runs = {}

    def init(*, name, **given):
        runs[name] = SimpleNamespace(given=given, lines=[], is_finished=False)

        def finish():
            runs[name].is_finished = True

        return SimpleNamespace(
            log=lambda values, step: runs[name].lines.append((step, values)), finish=finish
        )

    module = ModuleType("wandb")
    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    for variable in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(variable, raising=False)
    return runs


def test_wandb_works_offline_unless_the_user_has_a_key(wandb, tmp_path, monkeypatch):
    tell_all("wandb", tmp_path)
    assert wandb["a"].given["mode"] == "offline"
    assert wandb["a"].given["config"] == {"lr": 0.1}
    assert wandb["a"].given["dir"] == str(tmp_path)
    assert wandb["a"].lines == [(1, {"val_auc": 0.5, "train_loss": 1.0}), (2, {"val_auc": 0.7})]
    assert wandb["b"].lines == [(1, {"val_auc": 0.6})]
    assert all(run.is_finished for run in wandb.values())
    monkeypatch.setenv("WANDB_API_KEY", "x")
    tell_all("wandb", tmp_path)
    assert wandb["a"].given["mode"] is None


def test_runs_are_finished_when_training_fails(wandb, tmp_path):
    def train():
        with track(["wandb"], out=tmp_path, settings={}) as tell:
            tell(*LINES[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    assert wandb["a"].is_finished


def test_mlflow_has_one_run_per_member(monkeypatch, tmp_path):
    told = []

    class MlflowClient:
        def get_experiment_by_name(self, name):
            told.append(("experiment", name))

        def create_experiment(self, name):
            return "7"

        def create_run(self, experiment, *, run_name, tags):
            told.append(("run", experiment, run_name, tags["out"]))
            return SimpleNamespace(info=SimpleNamespace(run_id=f"id {run_name}"))

        def log_param(self, *given):
            told.append(("param", *given))

        def log_metric(self, run, key, value, *, step):
            told.append(("metric", run, key, value, step))

        def set_terminated(self, run):
            told.append(("end", run))

    tracking = ModuleType("mlflow.tracking")
    tracking.MlflowClient = MlflowClient
    monkeypatch.setitem(sys.modules, "mlflow", ModuleType("mlflow"))
    monkeypatch.setitem(sys.modules, "mlflow.tracking", tracking)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    tell_all("mlflow", tmp_path)
    assert told[0] == ("experiment", "clare-cache")
    assert ("run", "7", "a", str(tmp_path)) in told
    assert ("param", "id b", "lr", 0.2) in told
    assert ("metric", "id a", "val_auc", 0.7, 2) in told
    assert [entry for entry in told if entry[0] == "end"] == [("end", "id a"), ("end", "id b")]


def test_tensorboard_writes_one_folder_per_member(monkeypatch, tmp_path):
    told = []

    class SummaryWriter:
        def __init__(self, folder):
            self.folder = folder

        def add_text(self, name, text):
            told.append((self.folder, name, text))

        def add_scalar(self, *given):
            told.append((self.folder, *given))

        def close(self):
            told.append((self.folder, "closed"))

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    tell_all("tensorboard", tmp_path)
    folder = str(tmp_path / "tensorboard/a")
    assert (folder, "settings", "lr 0.1") in told
    assert (folder, "val_auc", 0.7, 2) in told
    assert told[-2:] == [(folder, "closed"), (str(tmp_path / "tensorboard/b"), "closed")]


def test_no_tracker_is_no_trouble(tmp_path):
    with track([], out=tmp_path, settings={}) as tell:
        tell(*LINES[0])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_an_absent_package_is_named_with_its_extra(name, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, f"{name}.tracking", None)
    with pytest.raises(TrainError) as error:
        tell_all(name, tmp_path)
    assert str(error.value) == (
        f"tracking with {name}: it is not installed. Say: pip install 'clare-cache[{name}]'"
    )


def test_unknown_trackers_are_refused(tmp_path):
    with pytest.raises(TrainError) as error:
        tell_all("neptune", tmp_path)
    assert str(error.value) == (
        "tracking: expected tensorboard, wandb, mlflow, found neptune. Correct --track."
    )
