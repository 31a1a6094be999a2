"""Trees on what a network gives, and the two experiments."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import boosting, experiments, figures, networks, training
from helpers.features import Features
from helpers.frames import prepare
from helpers.ravdess import find_clips
from helpers.workspace import Run, UserError
from tests.test_frames import some_clips


def drawn(n=1000, seed=0):
    """Features (n, 6) of which two tell the class, labels, train, val."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 5
    x = rng.normal(size=(n, 6))
    x[:, 2] += 2 * labels
    x[:, 4] -= 2 * labels
    table = pd.DataFrame(x, columns=[f"f{i}" for i in range(6)])
    return table, labels, np.arange(0, 700), np.arange(700, n)


def test_what_a_network_gives_is_its_last_hidden_layer_and_its_scores():
    cnn = networks.report_cnn()
    pictures = Features(np.random.default_rng(0).integers(0, 255, (7, 3, 80, 80), dtype=np.uint8), np.arange(7), "x")
    gives = boosting.network_features(cnn, pictures)
    assert gives.shape == (7, 37) and list(gives.columns[31:33]) == ["hidden_31", "score_AngryFearful"]
    with torch.inference_mode():
        hidden = cnn[:-1](pictures[np.arange(7)])
        torch.testing.assert_close(torch.tensor(gives.iloc[:, :32].to_numpy()), hidden.cpu())
        torch.testing.assert_close(torch.tensor(gives.iloc[:, 32:].to_numpy()), cnn[-1](hidden).cpu())
    assert boosting.network_features(cnn, pictures).equals(gives)  # no hook is left behind


def test_clip_summaries_in_a_case_written_out():
    features = pd.DataFrame({"a": [1.0, 3.0, 5.0], "b": [2.0, 2.0, 0.0]})
    summaries = boosting.clip_summaries(features, ["x", "x", "y"])
    assert list(summaries.index) == ["x", "y"]
    assert summaries.loc["x", ["mean_of_a", "spread_of_a", "least_of_a", "most_of_a"]].tolist() == [2, 1, 1, 3]
    assert summaries.loc["y", ["mean_of_b", "spread_of_b", "least_of_b", "most_of_b"]].tolist() == [0, 0, 0, 0]


def test_trees_learn_stop_early_and_are_the_same_again(tmp_path):
    features, labels, train, val = drawn()
    trees = boosting.fit_trees(features, labels, train, val, tmp_path / "trees.txt")
    right = (trees.predict(features.iloc[val]).argmax(1) == labels[val]).mean()
    assert right > 0.6
    rounds, used, leaves = boosting.count(trees)
    assert 5 < rounds < boosting.ROUNDS and used == 5 * rounds and used <= leaves <= 15 * used
    again = boosting.fit_trees(features, labels, train, val)
    assert (trees.predict(features) == again.predict(features)).all()
    kept = boosting.lightgbm.Booster(model_file=tmp_path / "trees.txt")
    np.testing.assert_allclose(kept.predict(features), trees.predict(features))
    assert set(boosting.importance(trees).index[:2]) == {"f2", "f4"}
    assert boosting.importance(trees).sum() == pytest.approx(1)
    # the rounds are chosen on `val`: with other labels there, nothing is worth learning
    shuffled = labels.copy()
    shuffled[val] = np.random.default_rng(0).permutation(labels[val])
    assert boosting.count(boosting.fit_trees(features, shuffled, train, val))[0] < rounds / 2
    with pytest.raises(UserError, match="no frames of training or of validation actors"):
        boosting.fit_trees(features, labels, train, np.array([], int))


def test_leakage_is_seen_where_there_is_some_and_only_there(tmp_path):
    """Twelve actors of four clips; a clip's frames are alike and say nothing of its class."""
    rng, n = np.random.default_rng(0), 12 * 4 * 5
    clips = np.arange(n) // 5
    table = pd.DataFrame({"path": [f"{i}.jpg" for i in range(n)], "clip": clips, "actor": clips // 4, "split": "train"})
    table["label"] = rng.choice(training.CLASSES, n // 5)[clips]
    numbers = rng.normal(size=(n // 5, 25600))[clips] + 0.1 * rng.normal(size=(n, 25600))
    features = Features(numbers.astype(np.float16), np.arange(n), "drawn")
    leaks = experiments.leakage(features, table, tmp_path / "leakage.csv", repeats=1)
    by = leaks.groupby("split_by")["accuracy"].mean()
    assert by["frame"] > 0.8 and by["clip"] < 0.45 and by["actor"] < 0.45
    pd.testing.assert_frame_equal(experiments.leakage(features, table, tmp_path / "leakage.csv", repeats=1), leaks)
    figures.save(figures.leakage(leaks, "drawn"), tmp_path / "leakage.png")


def test_the_ablations_summary_in_a_case_written_out():
    trainings = pd.DataFrame({
        "what": ["whole", "without", "whole", "without", "other"],
        "seed": [1, 1, 2, 2, 2],
        "accuracy": [0.5, 0.4, 0.6, 0.5, 0.7],
    })  # fmt: skip
    table = experiments.summary(trainings)
    assert table.loc["without"].tolist() == pytest.approx([2, 0.45, 0.4, 0.5, -0.1])
    assert table.loc["other", "difference"] == pytest.approx(0.1)  # to the recipe with the same seed, which gave 0.6


def test_the_ablation_makes_each_training_once(tmp_path, monkeypatch):
    clips, _ = find_clips(some_clips(tmp_path / "clips", actors=(1, 15), each=2))
    run = Run(tmp_path / "clips", tmp_path / "run")
    prepare(clips, run.root)
    few = {what: experiments.CHANGES[what] for what in ("the recipe as it is", "trunk frozen", "no augmentation")}
    short, file = replace(experiments.FINE_TUNING, epochs=1), tmp_path / "ablation.csv"
    for name, value in {"CHANGES": few, "SEEDS": (1, 2), "FINE_TUNING": short, "ABLATION": file}.items():
        monkeypatch.setattr(experiments, name, value)
    table = experiments.ablation(run)
    assert table["what"].tolist() == 2 * list(few) and table["key"].nunique() == 6
    assert (table["data"] == "clips, random trunk").all() and table["accuracy"].between(0, 1).all()
    kept = file.read_text()

    fit, trained = experiments.fit, []
    monkeypatch.setattr(experiments, "fit", lambda *a: trained.append(a[-1]) or fit(*a))
    experiments.ablation(run)
    assert not trained and file.read_text() == kept

    # A row that lacks is made from its checkpoint, and one of other clips or another recipe makes way
    lines = kept.splitlines(keepends=True)
    file.write_text("".join([*lines[:3], *lines[4:]]) + lines[1].replace(table["key"][0], "0" * 8))
    experiments.ablation(run)
    assert trained == [1] and file.read_text() == kept
