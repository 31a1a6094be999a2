import subprocess

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers import sample
from helpers.frames import ffmpeg, prepare
from helpers.ravdess import Emotion, find_clips
from helpers.workspace import SAMPLE


def test_the_sample_is_whole_and_small():
    names = list(sample.clip_names())
    files = {path.relative_to(SAMPLE).as_posix() for path in SAMPLE.rglob("*.mp4")}
    assert files == {f"Actor_{name.actor:02d}/{name}.mp4" for name in names}
    assert len(names) == 24 * 8
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*")) < 6e6
    assert {name.intensity for name in names if name.emotion != Emotion.NEUTRAL} == {1, 2}
    clips, skipped = find_clips(SAMPLE)
    assert (len(clips), len(skipped)) == (24 * 7, 24)


@pytest.mark.parametrize("which", [0, 75, 140])
def test_committed_clips_are_what_the_code_draws(which):
    name = list(sample.clip_names())[which]
    clip = SAMPLE / f"Actor_{name.actor:02d}" / f"{name}.mp4"
    command = [ffmpeg(), "-v", "error", "-i", str(clip), "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    stored = np.frombuffer(raw, np.uint8).reshape(-1, sample.HEIGHT, sample.WIDTH, 3).astype(float)
    poses = sample.motion(name)
    assert len(stored) == len(poses)
    for k in (0, 20, 45, len(poses) - 1):
        drawn = sample.draw(sample.face_of(name.actor), poses[k])
        error = np.mean((stored[k] - drawn) ** 2)
        assert 10 * np.log10(255**2 / error) > 34  # decibels: the loss of H.264, no more
        elsewhere = sample.draw(sample.face_of(name.actor % 24 + 1), poses[k])
        assert np.mean((stored[k] - elsewhere) ** 2) > 10 * error


def test_the_same_clip_is_drawn_twice_alike(tmp_path):
    name = next(sample.clip_names())
    assert sample.draw_clip(name, tmp_path / "a").read_bytes() == sample.draw_clip(name, tmp_path / "b").read_bytes()


def test_the_sample_is_a_task_neither_hopeless_nor_trivial(tmp_path):
    """Histograms of gradient directions and logistic regression, from actors 1-14 to actors 20-24; chance is 0.2."""
    table, _ = prepare(find_clips(SAMPLE)[0], tmp_path)
    x, train, test = [], table["split"] == "train", table["split"] == "test"
    for path in table["path"]:
        face = np.asarray(Image.open(tmp_path / path).convert("L").crop((240, 60, 400, 300)), float)
        dy, dx = np.gradient(face)
        strength, direction = np.hypot(dx, dy), (np.arctan2(dy, dx) % np.pi / np.pi * 6).astype(int) % 6
        cells = [(strength * (direction == k)).reshape(15, 16, 10, 16).sum(axis=(1, 3)) for k in range(6)]
        x.append(np.sqrt(cells).ravel())
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    model.fit(np.array(x)[train], table["label"][train])
    recall = balanced_accuracy_score(table["label"][test], model.predict(np.array(x)[test]))
    assert 0.35 < recall < 0.8
