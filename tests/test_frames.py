import os
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers import frames
from helpers.ravdess import ClipName, find_clips
from helpers.workspace import SAMPLE, UserError

HOSTILE = """-v it's "quoted"; $(touch pwned) `touch pwned` %d 100% 人 ß é"""

PREPARE = """
import sys
from pathlib import Path
from helpers import frames, ravdess
frames.prepare(ravdess.find_clips(sys.argv[1])[0], Path(sys.argv[2]))
"""


def some_clips(folder, actors=(1, 15, 20), each=2):
    """Copies of a few clips of the sample, in Actor_NN folders."""
    for actor in actors:
        clips = [path for path in sorted((SAMPLE / f"Actor_{actor:02d}").glob("*.mp4")) if "-08-" not in path.name]
        for path in clips[:each]:
            target = folder / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return folder


def tree(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.suffix in (".jpg", ".csv")
    }


def every_frame(path):
    command = [frames.ffmpeg(), "-v", "error", "-i", f"file:{path}", "-pix_fmt", "gray", "-f", "rawvideo", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, 360, 640).astype(int)


def same_clip_at(rate, source, target):
    command = [
        frames.ffmpeg(),
        "-v",
        "error",
        "-i",
        f"file:{source}",
        "-r",
        rate,
        "-c:v",
        "libx264",
        "-crf",
        "12",
        f"file:{target}",
    ]
    subprocess.run(command, check=True)


@pytest.mark.parametrize("rate", ["30000/1001", "25", "12"])
def test_times_are_those_of_the_pictures(tmp_path, rate):
    name = ClipName.parse("01-01-03-01-02-02-01")
    clip = tmp_path / f"{name}.mp4"
    same_clip_at(rate, SAMPLE / "Actor_01" / clip.name, clip)
    table, failed = frames.prepare({name: clip}, tmp_path / "run")
    source = every_frame(clip)
    assert not failed
    assert len(table) == int(len(source) / Fraction(rate) * frames.FPS + Fraction(1, 2))
    for row in table.itertuples():
        picture = np.asarray(Image.open(tmp_path / "run" / row.path).convert("L"), int)
        assert picture.shape == (360, 640)
        nearest = np.abs(source - picture).mean(axis=(1, 2)).argmin()
        assert row.time_s == pytest.approx(float(nearest / Fraction(rate)), abs=1e-3)
    if rate == "30000/1001":
        assert list(table["time_s"][:3]) == [0.2669, 0.8675, 1.4681]


def test_the_table_says_what_the_names_say(tmp_path):
    clips, _ = find_clips(some_clips(tmp_path / "clips"))
    table, _ = frames.prepare(clips, tmp_path / "run")
    assert list(table.columns) == frames.COLUMNS
    pd.testing.assert_frame_equal(table, frames.read_frames(tmp_path / "run" / "frames.csv"))
    assert dict(table.groupby("actor")["split"].first()) == {1: "train", 15: "val", 20: "test"}
    assert table["path"].is_unique
    for row in table.itertuples():
        name = ClipName.parse(row.clip)
        assert row.path.startswith(f"frames/{row.split}/{name.label}/{name}_")
        assert (row.actor, row.sex, row.label, row.emotion) == (
            name.actor,
            name.sex,
            name.label,
            name.emotion.name.lower(),
        )
        assert (tmp_path / "run" / row.path).exists()


def test_hostile_folder_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clips, _ = find_clips(some_clips(tmp_path / HOSTILE / "clips"))
    table, failed = frames.prepare(clips, tmp_path / HOSTILE / "run")
    plain, _ = frames.prepare(find_clips(some_clips(tmp_path / "clips"))[0], tmp_path / "run")
    assert not failed
    assert tree(tmp_path / HOSTILE / "run") == tree(tmp_path / "run")
    assert not list(tmp_path.rglob("pwned"))


def test_killed_and_run_again_it_ends_with_the_same_tree(tmp_path):
    actors = range(1, 7)
    clips, _ = find_clips(some_clips(tmp_path / "clips", actors, each=7))
    frames.prepare(clips, tmp_path / "whole")
    command = [sys.executable, "-c", PREPARE, str(tmp_path / "clips"), str(tmp_path / "killed")]
    kills = 0
    for wait in (0.05, 0.4, 0.9, 1.5):  # seconds after the first picture appears
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        before = len(list(tmp_path.glob("killed/frames/*/*/*.jpg")))
        while process.poll() is None and len(list(tmp_path.glob("killed/frames/*/*/*.jpg"))) <= before:
            time.sleep(0.02)
        time.sleep(wait)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 2
    with open(tmp_path / "killed" / "frames.jsonl", "a") as journal:
        journal.write('{"clip": "01-01-')  # as a kill in the middle of a line leaves it
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")
    assert not (tmp_path / "killed" / ".drafts").exists()


def test_a_second_run_cuts_nothing_and_a_changed_clip_is_cut_again(tmp_path, monkeypatch):
    folder = some_clips(tmp_path / "clips")
    clips, _ = find_clips(folder)
    table, _ = frames.prepare(clips, tmp_path / "run")
    cut = []
    run_ffmpeg = frames.cut_pictures
    monkeypatch.setattr(frames, "cut_pictures", lambda path, *rest: (cut.append(path.name), run_ffmpeg(path, *rest))[1])
    again, _ = frames.prepare(clips, tmp_path / "run")
    assert not cut
    pd.testing.assert_frame_equal(table, again)

    first, *others = clips.values()
    shutil.copyfile(others[0], first)
    others[-1].unlink()
    table, _ = frames.prepare(find_clips(folder)[0], tmp_path / "run")
    assert cut == [first.name]
    assert others[-1].stem not in set(table["clip"])
    assert not list((tmp_path / "run").rglob(f"{others[-1].stem}*.jpg"))


def test_broken_clips_are_named_and_the_others_done(tmp_path):
    folder = some_clips(tmp_path / "clips", actors=(1,), each=7)
    good, cut_a, cut_b, empty, text, sound, flipped = sorted(folder.rglob("*.mp4"))
    content = cut_a.read_bytes()
    cut_a.write_bytes(content[: len(content) * 6 // 10])
    command = [
        frames.ffmpeg(),
        "-v",
        "error",
        "-i",
        str(cut_b),
        "-c",
        "copy",
        "-movflags",
        "0",
        str(tmp_path / "b.mp4"),
    ]
    subprocess.run(command, check=True)  # its index at the end, as cameras write it
    cut_b.write_bytes((tmp_path / "b.mp4").read_bytes()[:-300])
    empty.write_bytes(b"")
    text.write_text("not a film")
    sine = ["-f", "lavfi", "-i", "sine=duration=1", "-y", str(sound)]
    subprocess.run([frames.ffmpeg(), "-v", "error", *sine], check=True)
    broken = bytearray(flipped.read_bytes())
    broken[len(broken) // 2 : len(broken) // 2 + 400] = b"\xff" * 400
    flipped.write_bytes(broken)

    clips, _ = find_clips(folder)
    table, failed = frames.prepare(clips, tmp_path / "run")
    assert set(table["clip"]) == {good.stem}
    reasons = {path.name: reason for path, reason in failed}
    assert set(reasons) == {path.name for path in (cut_a, cut_b, empty, text, sound, flipped)}
    assert reasons[empty.name] == "empty file"
    assert reasons[sound.name] == "no video stream"
    assert all("cut short" in reasons[path.name] for path in (cut_a, cut_b, text, flipped))
    assert {path.stem.rsplit("_", 1)[0] for path in (tmp_path / "run").rglob("*.jpg")} == {good.stem}


@pytest.mark.parametrize("path", [os.environ["PATH"], ""])  # the system's ffmpeg, then imageio's
def test_a_clip_cut_between_two_packets_is_noticed(tmp_path, monkeypatch, path):
    """Newer versions of ffmpeg read such a clip without an error: only its own statement of its length tells."""
    monkeypatch.setenv("PATH", path)
    name = ClipName.parse("01-01-03-01-02-02-01")
    clip = tmp_path / f"{name}.mp4"
    content = (SAMPLE / "Actor_01" / clip.name).read_bytes()
    clip.write_bytes(content)
    command = [frames.ffmpeg(), "-v", "error", "-i", str(clip), "-c", "copy", "-f", "framecrc", "-"]
    listed = subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()
    packets = [int(line.split(",")[4]) for line in listed if line[0] == "0"]
    clip.write_bytes(content[: content.index(b"mdat") + 4 + sum(packets[: len(packets) // 2])])
    with pytest.raises(UserError, match="None of the 1 clips could be read; .*: cut short"):
        frames.prepare({name: clip}, tmp_path / "run")


def test_no_actor_and_no_picture_in_two_splits(tmp_path):
    clips, _ = find_clips(some_clips(tmp_path / "clips"))
    table, _ = frames.prepare(clips, tmp_path / "run")
    assert frames.check_no_leak(table, tmp_path / "run") == {"actors": 3, "pictures": len(table)}
    one, other = (tmp_path / "run" / table.loc[table["split"] == split, "path"].iloc[0] for split in ("train", "test"))
    shutil.copyfile(one, other)
    with pytest.raises(UserError, match="One picture is in two splits"):
        frames.check_no_leak(table, tmp_path / "run")
    with pytest.raises(UserError, match="One actor is in two splits"):
        frames.check_no_leak(table.assign(actor=1), tmp_path / "run")


def test_without_a_system_ffmpeg_the_one_of_imageio_is_used(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert "imageio_ffmpeg" in frames.ffmpeg()
    assert frames.ffmpeg_version()
