from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from helpers import crossval
from helpers.features import Features
from helpers.frames import prepare, read_frames
from helpers.movement import CALIBRATED
from helpers.ravdess import CLASSES, find_clips
from helpers.scoring import clip_accuracy, counts_by_actor, differing, read_all_predictions, write_predictions
from helpers.workspace import SAMPLE, Run, UserError
from tests.test_frames import some_clips

ACTORS = 10


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(crossval, "SHORT", replace(crossval.SHORT, epochs=2))
    return Run(SAMPLE, tmp_path / "sample")


@pytest.fixture
def frames():
    """Ten actors of six frames in three clips, all of one class: whoever knows the actor knows the class."""
    n = np.arange(6 * ACTORS)
    emotions = np.array(["angry", "disgust", "happy", "calm", "sad"])
    return pd.DataFrame({
        "path": [f"{i}.jpg" for i in n], "clip": [f"clip{i // 2}" for i in n], "actor": 1 + n // 6,
        "split": "train", "label": np.array(CLASSES)[n // 6 % 5], "emotion": emotions[n // 6 % 5],
    })  # fmt: skip


@pytest.fixture
def identities(frames):
    """Features that tell who it is and nothing else."""
    faces = np.random.default_rng(0).normal(0, 0.1, (ACTORS + 1, 25600)).astype(np.float16)
    return Features(faces, frames["actor"].to_numpy(), "identities")


def test_each_actor_is_tested_once_and_by_strangers(frames):
    dealt = crossval.folds(frames)
    assert len(dealt) == 5
    assert sorted(row for rows in dealt for row in rows["test"]) == list(range(len(frames)))
    for rows in dealt:
        learn, choose, test = (set(frames["actor"].iloc[rows[s]]) for s in ("train", "val", "test"))
        assert not learn & choose and not learn & test and not choose & test
        assert len(learn | choose | test) == ACTORS
    assert crossval.folds(frames[frames["actor"] < 3]) == []
    assert len(crossval.folds(frames[frames["actor"] < 5])) == 4


def test_what_only_knows_the_actor_fails_on_new_ones(frames, identities, run):
    found = crossval.head(identities, frames, run, "a note")["alexnet_2020"]
    assert set(found["split"]) == {"test"} and set(found["note"]) == {"a note; 5 folds"}
    assert list(found["path"]) == list(frames["path"])
    assert (found["predicted"] == found["label"]).mean() < 0.5
    leak = frames.assign(actor=np.arange(len(frames)))  # as if each frame were of an actor of its own
    found = crossval.head(identities, leak, Run(SAMPLE, run.root / "leak"))["alexnet_2020"]
    assert (found["predicted"] == found["label"]).mean() == 1


def test_it_goes_on_where_it_was_and_is_kept(frames, identities, run, monkeypatch):
    fit, calls = crossval.fit, []

    def fit_until_killed(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return fit(*args, **kwargs)

    monkeypatch.setattr(crossval, "fit", fit_until_killed)
    with pytest.raises(KeyboardInterrupt):
        crossval.head(identities, frames, run)
    assert not list((run.root / "crossval").glob("*.csv"))  # nothing looks finished
    assert len(list((run.root / "crossval").glob("*.pth"))) == 2
    found = crossval.head(identities, frames, run)
    assert not list((run.root / "crossval").glob("*.pth"))
    whole = crossval.head(identities, frames, Run(SAMPLE, run.root / "anew"))
    pd.testing.assert_frame_equal(found["alexnet_2020"], whole["alexnet_2020"])
    monkeypatch.setattr(crossval, "fit", lambda *args: pytest.fail("it is kept already"))
    again = crossval.head(identities, frames, run)
    pd.testing.assert_frame_equal(found["alexnet_2020"], again["alexnet_2020"])
    table = pd.read_csv(run.root / "crossval" / "alexnet_2020.csv")
    table.assign(key="12345678").to_csv(run.root / "crossval" / "alexnet_2020.csv", index=False)
    assert crossval._keys(run.root / "crossval" / "alexnet_2020.csv") == {"12345678"}  # text, not a number
    with pytest.raises(pytest.fail.Exception):  # other labels are another training
        crossval.head(identities, frames.assign(label="Sad"), run)
    assert list(read_all_predictions(run.root / "crossval")) == ["alexnet_2020"]


def test_counts_are_kept_by_data_and_the_runs_own_come_first(frames, run, monkeypatch, tmp_path):
    monkeypatch.setattr(crossval, "KEPT", tmp_path / "crossval.csv")
    p = np.random.default_rng(1).dirichlet(np.ones(5), len(frames))
    table = write_predictions(tmp_path / "m.csv", frames.assign(split="test"), p, "5 folds")
    counts = counts_by_actor({"m": table}, run.title)
    assert list(counts["frames"]) == [6] * ACTORS and list(counts["clips"]) == [3] * ACTORS
    assert counts["right"].sum() == (table["predicted"] == table["label"]).sum()
    assert counts["clips_right"].sum() == pytest.approx(3 * ACTORS * clip_accuracy(table, "test"))
    pd.testing.assert_frame_equal(crossval.counted({"m": table}, run.title), counts)  # nothing is kept yet
    crossval.keep({"m": table, "long": table}, run)
    crossval.keep({"m": table}, Run(tmp_path / "other-data", tmp_path / "other-data"))
    crossval.keep({"m": table.assign(predicted="Sad")}, run)  # what "long" was measured to be stays
    kept = pd.read_csv(crossval.KEPT, keep_default_na=False)
    assert dict(kept.groupby("data").size()) == {"drawn sample": 2 * ACTORS, "other data": ACTORS}
    merged = crossval.counted({"m": table}, run.title).groupby(["data", "model"], sort=False)["right"].sum()
    assert list(merged.index) == [("drawn sample", "m"), ("other data", "m"), ("drawn sample", "long")]
    assert kept.set_index(["data", "model"])["right"]["drawn sample", "long"].sum() == counts["right"].sum()
    assert merged["drawn sample", "m"] == counts["right"].sum()


def test_make_crossval_tests_every_model_on_every_actor(tmp_path, monkeypatch, capsys):
    clips, _ = find_clips(some_clips(tmp_path / "clips", actors=(1, 2, 3), each=3))
    run = Run(tmp_path / "clips", tmp_path / "runs" / "clips")
    prepare(clips, run.root)
    for name in ("SHORT", "SHORT_CNN", "FINE_TUNING"):
        monkeypatch.setattr(crossval, name, replace(getattr(crossval, name), epochs=1))
    monkeypatch.setattr(crossval, "KEPT", tmp_path / "crossval.csv")
    monkeypatch.setattr(crossval.beyond, "KEPT", tmp_path / "beyond.csv")
    steps = "step,note,split,of,accuracy,low,high\na step,,test,clips,0.5,0.4,0.6\n"  # as 06 leaves them
    run.path("beyond", "steps.csv").write_text(steps)
    monkeypatch.setenv("DATA", str(run.data))
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    crossval.main()
    models = ["alexnet", "alexnet_2020", "alexnet_lightgbm", "beyond", "beyond_calibrated", "clip_lightgbm"]
    models += ["cnn", "cnn_lightgbm"]
    found = read_all_predictions(run.root / "crossval")
    assert list(found) == models and not list((run.root / "crossval").glob("*.pth"))
    frames = read_frames(run.root / "frames.csv")
    for model, table in found.items():
        assert not differing(table, frames, split=False) and len(table) == len(frames)
        note = "3 folds" if model.startswith(("cnn", "beyond")) else "random trunk; 3 folds"
        note = f"{CALIBRATED}; 3 folds" if model == "beyond_calibrated" else note
        assert set(table["note"]) == {note}
        if model == "clip_lightgbm":
            assert table.groupby("clip")["predicted"].nunique().eq(1).all()
    kept = pd.read_csv(crossval.KEPT)
    assert sorted(set(kept["model"])) == models and set(kept["data"]) == {"clips"} and len(kept) == 24
    assert list(crossval.beyond.kept("drawn sample")) == ["clips"]
    assert "of 3 actors" in capsys.readouterr().out
    monkeypatch.setattr(crossval, "fit", lambda *args: pytest.fail("all is kept"))
    crossval.main()
    prepare({name: path for name, path in clips.items() if name.actor < 3}, run.root)
    with pytest.raises(UserError, match="clips has fewer than three actors"):
        crossval.main()
