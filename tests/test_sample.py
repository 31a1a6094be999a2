import subprocess

import numpy as np
import pytest

from helpers import sample
from helpers.frames import ffmpeg
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
