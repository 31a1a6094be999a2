"""Faces found, points put on them, and kept."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

from helpers import frames, landmarks
from helpers.ravdess import Emotion, find_clips
from helpers.sample import stranger
from helpers.workspace import Run
from tests.test_frames import some_clips


@pytest.fixture
def run(tmp_path):
    data = some_clips(tmp_path / "a clip's folder, größer", actors=(1, 15), each=2)
    return Run(data, tmp_path / "run")


@pytest.fixture
def clips(run):
    return find_clips(run.data)[0]


@pytest.fixture
def table(run, clips):
    return frames.prepare(clips, run.root, jobs=2)[0]


def test_the_points_turn_and_move_with_the_picture():
    picture = stranger(Emotion.HAPPY)
    still = landmarks.track([picture], [0.0])
    assert still.found.all()
    assert still.points.shape == (1, 68, 2)
    angle, middle = np.deg2rad(8), np.array([320, 180])
    turned = picture.rotate(-8, Image.Resampling.BILINEAR, translate=(20, 10), fillcolor="white")
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    expected = (still.points[0] - middle) @ turn.T + middle + [20, 10]
    found = landmarks.track([turned], [0.0]).points[0]
    assert np.median(np.linalg.norm(found - expected, axis=1)) < 5  # pixels; the face is 150 wide
    left, right = still.points[0, 36:42].mean(axis=0), still.points[0, 42:48].mean(axis=0)
    assert 30 < right[0] - left[0] < 110
    assert still.points[0, 48:68, 1].mean() > left[1] + 30  # the mouth is below the eyes


def test_an_upright_face_has_level_eyes_in_their_place():
    points = np.zeros((68, 2))
    points[36:42], points[42:48] = (200, 150), (280, 190)
    picture = Image.new("RGB", (640, 360))
    pen = ImageDraw.Draw(picture)
    for x, y in points[[36, 42]]:
        pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill="white")
    seen = np.asarray(landmarks.upright(picture, points, side=100).convert("L"))
    ys, xs = np.nonzero(seen > 128)
    for half, x in ((xs < 50, 31), (xs >= 50, 69)):  # 38 apart, around the middle
        assert (xs[half].mean(), ys[half].mean()) == pytest.approx((x, 36), abs=1)


def test_without_a_face_the_middle_is_taken_and_said():
    blank = Image.new("RGB", (640, 360), "white")
    nothing = landmarks.track([blank, blank], [0.0, 0.2])
    assert not nothing.found.any()
    assert np.isfinite(nothing.points).all()
    face = stranger(Emotion.CALM)
    between = landmarks.track([face, blank, face], [0.0, 0.2, 0.4])
    assert between.found.tolist() == [True, False, True]
    assert np.abs(between.points[1].mean(axis=0) - between.points[0].mean(axis=0)).max() < 30


def test_five_pictures_a_second_and_the_frames_of_01_are_among_them(run, clips, table):
    found = landmarks.tracks(table, clips, run, jobs=1)
    assert list(found) == list(dict.fromkeys(table["clip"]))
    for clip, part in table.groupby("clip"):
        track = found[clip]
        assert np.allclose(np.diff(track.times), 0.2, atol=0.035)
        assert np.allclose(track.times[landmarks.nearest(track, part["time_s"])], part["time_s"], atol=1e-3)
        assert track.found.mean() > 0.5


def test_kept_ones_are_read_and_what_was_cut_off_or_changed_is_made_again(run, clips, table, monkeypatch):
    first = landmarks.tracks(table, clips, run, jobs=1)
    made = []
    whole = landmarks.track
    monkeypatch.setattr(landmarks, "track", lambda *given: made.append(1) or whole(*given))
    again = landmarks.tracks(table, clips, run, jobs=1)
    assert not made
    assert all(np.array_equal(first[clip].points, again[clip].points) for clip in first)

    files = sorted((run.root / "features" / "landmarks").glob("*.npz"))
    assert [file.stem for file in files] == sorted(first)
    files[0].write_bytes(files[0].read_bytes()[:1000])
    os.utime(next(path for name, path in clips.items() if str(name) == files[1].stem), (1, 1))
    third = landmarks.tracks(table, clips, run, jobs=1)
    assert len(made) == 2
    assert all(np.array_equal(first[clip].points, third[clip].points) for clip in first)


def test_a_pickle_in_place_of_kept_landmarks_is_not_executed(run, clips, table, tmp_path):
    landmarks.tracks(table, clips, run, jobs=1)
    file = next((run.root / "features" / "landmarks").glob("*.npz"))

    class Planted:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    np.savez(file, made_of=np.array(Planted(), dtype=object))
    assert landmarks.tracks(table, clips, run, jobs=1)[file.stem].points.shape[1:] == (68, 2)
    assert not (tmp_path / "executed").exists()


def test_where_a_clip_is_gone_or_broken_its_kept_frames_are_taken(run, clips, table):
    gone, broken, *_ = clips.values()
    gone.unlink()
    broken.write_bytes(b"no clip")
    found = landmarks.tracks(table, clips, run, jobs=1)
    for path in (gone, broken):
        part = table[table["clip"] == path.stem]
        assert found[path.stem].times.tolist() == part["time_s"].tolist()
    assert landmarks.of_clip(broken, run.root) is None


def test_upright_pictures_are_made_once_and_again_where_a_frame_is_newer(run, clips, table):
    found = landmarks.tracks(table, clips, run, jobs=1)
    paths = landmarks.upright_pictures(table, found, run)
    assert len(set(paths)) == len(table)
    assert Image.open(paths[0]).size == (176, 176)
    before = pd.Series([path.stat().st_mtime_ns for path in paths])
    assert landmarks.upright_pictures(table, found, run) == paths
    assert before.equals(pd.Series([path.stat().st_mtime_ns for path in paths]))
    os.utime(run.root / table["path"][1])  # a frame that was cut again
    landmarks.upright_pictures(table, found, run)
    assert [path.stat().st_mtime_ns != then for path, then in zip(paths, before, strict=True)].index(True) == 1
