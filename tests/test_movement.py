"""What a face does over a clip, whose face it is, and the models on that."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import beyond, crossval, finetune, frames, landmarks, movement, networks, overtime, scoring, training
from helpers.landmarks import Track
from helpers.ravdess import CLASSES, find_clips
from helpers.workspace import SAMPLE, Run, UserError, write_table
from tests.test_frames import some_clips

ACTORS = range(1, 9)


@pytest.fixture(scope="module")
def tracks():
    """Two clips of each class and actor: a face of the actor's own that opens its mouth or lifts its brows by class."""
    rng = np.random.default_rng(0)
    base = rng.uniform(200, 400, (68, 2)) * [1, 0.8]
    found = {}
    for actor in ACTORS:
        face = base + rng.normal(0, 8, (68, 2))
        for label in range(5):
            for again in range(2):
                n = int(rng.integers(9, 14))
                points = np.repeat(face[None], n, axis=0) + rng.normal(0, 0.3, (n, 68, 2))
                rise = np.clip(np.arange(n) / 5 - 0.4, 0, 1)[:, None]
                points[:, 48 + 4 * label : 52 + 4 * label, 1] += 9 * rise
                clip = f"{label}{again}-{actor}"
                found[clip] = Track(0.07 + 0.2 * np.arange(n), points, np.ones(n, bool))
    return found


@pytest.fixture(scope="module")
def face(tracks):
    return movement.mean_face(list(tracks.values()))


@pytest.fixture(scope="module")
def moves(tracks, face):
    return {clip: movement.movement(track, face) for clip, track in tracks.items()}


@pytest.fixture(scope="module")
def labels(tracks):
    return np.array([int(clip[0]) for clip in tracks])


@pytest.fixture(scope="module")
def actors(tracks):
    return np.array([int(clip.split("-")[1]) for clip in tracks])


def test_the_shape_is_the_same_wherever_the_head_is(tracks, face):
    track = next(iter(tracks.values()))
    angle = 0.2
    turn = 1.3 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = Track(track.times, track.points @ turn.T + [40, -20], track.found)
    here, there = movement.movement(track, face), movement.movement(moved, face)
    np.testing.assert_allclose(here.shape, there.shape, atol=1e-9)
    np.testing.assert_allclose(there.head[:, 3] - here.head[:, 3], angle, atol=1e-9)
    np.testing.assert_allclose(there.head[:, 2] - here.head[:, 2], np.log(1.3), atol=1e-9)


def test_calm_is_the_first_half_second_and_a_part_is_a_part(moves):
    move = next(iter(moves.values()))
    assert np.array_equal(move.calm[0], np.median(move.shape[:3], axis=0))  # 0.07, 0.27 and 0.47 s
    assert len(move.until(0.5).times) == 3
    assert len(move.until(-1).times) == 1
    assert len(move.some(4).times) == 4
    assert np.array_equal(move.some(99).times, move.times)
    assert movement.summary({"one": move.until(0)}).notna().all(axis=None)


def test_a_summary_says_mean_range_spread_and_speed():
    shape = np.zeros((11, 136))
    shape[:, 0] = np.arange(11)
    row = movement.summary({"a": movement.Movement(np.arange(11) / 5, shape, np.zeros((11, 4)))}).iloc[0]
    assert row["mean_shape_0"] == 5
    assert (row["low_shape_0"], row["high_shape_0"], row["range_shape_0"]) == (1, 9, 8)
    assert row["spread_shape_0"] == pytest.approx(np.sqrt(10))
    assert row["speed_shape_0"] == 1
    assert row["change_0"] == 5 - 1  # the calm start is the median of 0, 1, 2
    assert not movement.plain(row.to_frame().T).filter(regex="^(low|high)").size
    assert not movement.calibrated(row.to_frame().T, [1]).filter(regex="^range").size


def test_measures_are_what_their_names_say():
    x, y = np.arange(68.0), 100 + np.arange(68.0)
    y[[61, 62, 63]], y[[65, 66, 67]] = 3, 7
    move = movement.Movement(np.zeros(1), np.concatenate([x, y])[None], np.array([[1.0, 2, 3, 4]]))
    of = dict(zip([*movement.MEASURES, *movement.HEAD], movement.measures(move)[0], strict=True))
    assert (of["inner brow, right"], of["width of the mouth"], of["between the lips"]) == (120.5, 54 - 48, 4)
    assert (of["chin"], of["head, x"], of["head, tilt"]) == (108, 1, 4)


def test_the_course_of_a_clip_says_what_happens_when_and_but_in_its_mean_not_on_whose_face(moves):
    shape, times = np.zeros((11, 136)), np.arange(11) / 5
    shape[6:, 68 + 7 : 68 + 10] = 2.0  # the chin goes down, after more than half of the clip
    move = movement.Movement(times, shape, np.zeros((11, 4)))
    other = movement.Movement(times, shape + np.linspace(-1, 1, 136), np.zeros((11, 4)))
    rows = movement.course({"one": move, "other": other, "short": move.until(0)})
    one = rows.loc["one"]
    assert one["length"] == 2
    assert one["mean of chin"] == pytest.approx(10 / 11)
    assert (one["low of chin"], one["high of chin"]) == (0, 2)
    assert [round(one[f"part {k} of chin"], 1) for k in (1, 5, 10)] == [0, 0, 2]
    assert one["speed of chin"] == pytest.approx(np.log(0.2 + 1e-3))
    assert one["spread of chin"] > 3 + one["spread of upper lip"]
    means = rows.columns.str.startswith("mean of ")
    np.testing.assert_allclose(rows.loc["one", ~means], rows.loc["other", ~means], atol=1e-9)
    assert np.abs(rows.loc["one", means] - rows.loc["other", means]).max() > 0.2
    assert np.isfinite(rows).all(axis=None)
    faces = movement.course(moves)
    assert (faces.shape[0], faces.shape[1]) == (len(moves), 1 + 21 * (5 + movement.PARTS))


def test_on_every_face_each_clip_stands_once_and_the_means_are_the_actors(moves, actors):
    numbers = movement.plain(movement.summary(moves))
    everywhere, rows = movement.on_every_face(numbers, actors)
    assert len(everywhere) == len(numbers) * len(ACTORS)
    assert np.bincount(rows).tolist() == [len(ACTORS)] * len(numbers)
    first = everywhere.iloc[: len(numbers)]  # all of them on the first actor's face
    own = numbers[actors == ACTORS[0]].filter(regex="^mean_shape_").mean()
    for actor in ACTORS:
        there = first[actors == actor].filter(regex="^mean_shape_").mean()
        np.testing.assert_allclose(there, own, atol=1e-9)
    np.testing.assert_allclose(first[actors == ACTORS[0]], numbers[actors == ACTORS[0]], atol=1e-9)
    others = [name for name in numbers if not name.startswith("mean_shape_")]
    assert np.array_equal(first[others], numbers[others])


def test_calibrated_takes_each_actors_mean_off(moves, actors):
    numbers = movement.calibrated(movement.summary(moves), actors)
    assert np.abs(numbers.groupby(actors).mean()).max(axis=None) < 1e-9


@pytest.mark.parametrize("how", ["course", "on every face"])
def test_it_learns_what_an_unseen_face_does(moves, labels, actors, how):
    seen = actors < 7
    numbers = movement.course(moves) if how == "course" else movement.plain(movement.summary(moves))
    whose = None if how == "course" else actors[seen]
    p = movement.answers(movement.fit_clips(numbers[seen], labels[seen], whose), numbers[~seen])
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert (p.argmax(axis=1) == labels[~seen]).mean() > 0.8
    again = movement.answers(movement.fit_clips(numbers[seen], labels[seen], whose), numbers[~seen])
    assert np.array_equal(p, again)


def test_a_class_that_was_never_seen_has_no_probability_and_one_class_is_too_few(moves, labels):
    numbers = movement.plain(movement.summary(moves))
    some = labels < 2
    assert movement.answers(movement.fit_clips(numbers[some], labels[some]), numbers)[:, 2:].max() == 0
    with pytest.raises(UserError, match="two classes"):
        movement.fit_clips(numbers[labels == 1], labels[labels == 1])


@pytest.mark.parametrize("kind", ["pooling", "gru", "convolution"])
def test_a_network_over_time_does_not_see_past_a_clips_end(moves, kind):
    sequences = overtime.Sequences(list(moves.values()), range(len(moves)))
    x = sequences[np.arange(4)].cpu()
    network = overtime.OverTime(kind, x.shape[2] - 1).eval()
    longer = torch.cat([x, torch.zeros(4, 5, x.shape[2])], dim=1)
    torch.testing.assert_close(network(x), network(longer), rtol=1e-4, atol=1e-5)
    assert network(x).shape == (4, len(CLASSES))
    x[0, 1, :-1] += 1
    assert not torch.allclose(network(x)[0], network(longer)[0], atol=1e-5)


def test_a_kept_model_says_of_a_clip_what_the_model_said(moves, face, labels, tmp_path):
    model = movement.fit_clips(movement.course(moves), labels)
    movement.save(model, face, tmp_path / "beyond.npz")
    clip = next((SAMPLE / "Actor_20").glob("*.mp4"))
    table = movement.predict(clip, tmp_path / "beyond.npz")
    assert table["time_s"].is_monotonic_increasing
    np.testing.assert_allclose(table.filter(regex="^p_").sum(axis=1), 1)

    from helpers.landmarks import of_clip

    move = movement.movement(of_clip(clip, tmp_path), face)
    whole = movement.answers(model, movement.course({"clip": move}))
    np.testing.assert_allclose(table.filter(regex="^p_").iloc[-1], whole[0], atol=1e-9)


def test_what_cannot_be_predicted_is_one_sentence_and_nothing_is_executed(face, moves, labels, tmp_path):
    with pytest.raises(UserError, match="06_beyond_the_report"):
        movement.predict("clip.mp4", tmp_path / "none.npz")

    class Planted:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    np.savez(tmp_path / "planted.npz", face=np.array(Planted(), dtype=object))
    with pytest.raises(UserError, match="no model of ours"):
        movement.predict("clip.mp4", tmp_path / "planted.npz")
    assert not (tmp_path / "executed").exists()

    movement.save(movement.fit_clips(movement.course(moves), labels), face, tmp_path / "m.npz")
    (tmp_path / "clip.mp4").write_bytes(b"no clip")
    with pytest.raises(UserError, match="damaged"):
        movement.predict(tmp_path / "clip.mp4", tmp_path / "m.npz")


def frames_of(moves):
    """A `frames.csv` of these clips, two frames each."""
    rows = [
        {"path": f"{clip}_{k}.jpg", "clip": clip, "actor": int(clip.split("-")[1]), "label": CLASSES[int(clip[0])],
         "time_s": [0.3, 1.1][k], "split": "test" if int(clip.split("-")[1]) > 6 else "train"}
        for clip in moves for k in range(2)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_steps_are_kept_and_measured(moves, labels, actors, tmp_path, monkeypatch):
    table, run = frames_of(moves), Run(tmp_path / "some clips", tmp_path / "run")
    steps = beyond.Steps(run, table)
    _, clip_labels, rows = beyond.sequences(table, moves)
    assert np.array_equal(clip_labels, labels)
    numbers = movement.plain(movement.summary(moves))
    p = beyond.clip_answers(numbers, labels, rows, actors)
    steps.add_clips("all of a clip", p, "a note")
    steps.add_frames("of a frame", beyond.frame_answers(beyond.of_frames(table, moves), table))
    found = steps.measured()
    assert set(found["split"]) == {"test"}
    right = (p.to_numpy().argmax(axis=1) == labels)[rows["test"]].mean()
    assert found.query("step == 'all of a clip' and of == 'clips'")["accuracy"].item() == pytest.approx(right)
    assert steps.table("test").index.tolist() == ["all of a clip", "of a frame"]
    text = beyond.steps_markdown(found)
    assert "a note" in text and "Gain" not in text  # there are no validation actors
    monkeypatch.setattr(beyond, "KEPT", tmp_path / "beyond.csv")
    beyond.keep(run)
    assert beyond.kept("other data") == {}  # the notebook has not written its measure
    write_table(tmp_path / "run" / "beyond" / "steps.csv", found)
    for title in ("some clips", "other data", "some clips"):
        beyond.keep(Run(tmp_path / title, tmp_path / "run"))
    assert list(beyond.kept("some clips")) == ["other data"] and list(beyond.kept("other data")) == ["some clips"]
    assert beyond.steps_markdown(beyond.kept("other data")["some clips"]) == text
    kept = scoring.read_predictions(tmp_path / "run" / "beyond" / "00_all_of_a_clip.csv")
    assert len(kept) == len(table)


def test_a_steps_gain_is_over_the_best_before_it_and_calibrated_ones_are_apart():
    steps = ("a", 0.5, ""), ("b", 0.4, ""), ("c", 0.45, "x"), ("d", 0.7, movement.CALIBRATED), ("e", 0.62, "")
    rows = [[step, note, "val", "clips", share, 0.1, 0.9] for step, share, note in steps]
    columns = ["step", "note", "split", "of", "accuracy", "low", "high"]
    lines = beyond.steps_markdown(pd.DataFrame(rows, columns=columns)).splitlines()
    assert [line.split(" | ")[2].strip() for line in lines] == ["Gain", "-", "", "none", "none", "", "+12.0"]


def test_frames_that_show_more_count_more(moves):
    table = frames_of(moves)
    distance = beyond.distances(table, moves)
    late = table["time_s"] == 1.1
    assert distance[late].mean() > 2 * distance[~late].mean()
    p = np.tile([[1.0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0]], (len(moves), 1))
    predictions = table.assign(**dict(zip(scoring.PROBABILITIES, p.T, strict=True)))
    even, weighed = beyond.pooled(predictions), beyond.pooled(predictions, late.astype(float))
    assert np.allclose(even.iloc[:, :2], 0.5)
    assert np.allclose(weighed.iloc[:, 1], 1)
    both = beyond.together(even, weighed)
    np.testing.assert_allclose(both.sum(axis=1), 1)
    assert (both.iloc[:, 1] > 0.9).all()
    less = beyond.less_actor(weighed, table.groupby("clip", sort=False)["actor"].first().to_numpy())
    assert np.allclose(less, 0.2)  # all of an actor's clips alike: nothing is left


def test_in_turn_no_actor_is_named_by_a_model_that_saw_them(tracks, moves, tmp_path, monkeypatch):
    table, seen = frames_of(moves).assign(split="train"), []
    whole = movement.fit_clips
    monkeypatch.setattr(movement, "fit_clips", lambda x, *given: seen.append(set(x.index)) or whole(x, *given))
    found = crossval.of_movement(tracks, table, Run(tmp_path, tmp_path / "run"))
    assert set(found) == {"beyond", "beyond_calibrated"}
    dealt = crossval.folds(table)
    for rows, clips in zip([rows for rows in dealt for _ in range(3)], seen, strict=True):
        tested = {clip.split("-")[1] for clip in table["clip"].iloc[rows["test"]]}
        assert not tested & {clip.split("-")[1] for clip in clips}
    assert (found["beyond"]["split"] == "test").all()
    assert "other clips" in found["beyond_calibrated"]["note"].iloc[0]
    assert (found["beyond_calibrated"]["predicted"] == table["label"]).mean() > 0.8


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_any_backbone_of_torchvision_by_name(name):
    network = networks.backbone(name, "none")
    assert network.note == f"{name}'s weights are random"
    features = network(torch.zeros(2, 3, 64, 64))
    assert features.ndim == 2
    assert features.shape[1] > 100
    assert networks.fingerprint(network) == networks.fingerprint(networks.backbone(name, "none"))


def test_a_backbone_that_is_none():
    with pytest.raises(UserError, match="torchvision has no network"):
        networks.backbone("resnet_of_my_own", "none")


def test_another_backbone_is_fine_tuned_by_name(tmp_path, monkeypatch):
    run = Run(some_clips(tmp_path / "clips", actors=(1, 15, 20), each=2), tmp_path / "runs" / "clips")
    monkeypatch.setenv("DATA", str(run.data))
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(finetune, "FINE_TUNING", replace(training.FINE_TUNING, epochs=1))
    clips, _ = find_clips(run.data)
    table, _ = frames.prepare(clips, run.root, jobs=1)
    with pytest.raises(UserError, match="run 06_beyond_the_report first"):
        finetune.another("mobilenet_v3_small")
    landmarks.upright_pictures(table, landmarks.tracks(table, clips, run, jobs=1), run)
    finetune.another("mobilenet_v3_small")
    kept = scoring.read_predictions(run.root / "predictions" / "mobilenet_v3_small_upright.csv")
    assert len(kept) == len(table)
    assert kept["note"].iloc[0] == "mobilenet_v3_small's weights are random"
