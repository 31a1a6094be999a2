"""Clips that are broken, strange or meant to harm: none stops the others, each is used or named at the end.

Everything goes the way of 01: `find_clips`, then `prepare`, in a process of its own whose ffmpegs' memory is measured.
"""

import contextlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from helpers import frames
from helpers.workspace import REPOSITORY, SAMPLE

CLIP = SAMPLE / "Actor_01" / "01-01-03-01-02-02-01.mp4"
GOOD = "01-01-04-01-01-01-01"
MEMORY = 1000  # MB that an ffmpeg may take
NAMES = [f"01-01-0{e}-0{i}-0{s}-0{r}-{a:02d}" for a in range(2, 25) for e in range(2, 8) for i in (1, 2)
         for s in (1, 2) for r in (1, 2)]  # fmt: skip
PREPARE = """
import json, resource, sys
from pathlib import Path
from helpers import frames, ravdess
clips, skipped = ravdess.find_clips(sys.argv[1])
table, failed = frames.prepare(clips, Path(sys.argv[2]))
kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1000 if sys.platform == "darwin" else 1)
named = {str(path): reason for path, reason in skipped + failed}
print(json.dumps([sorted(set(table["clip"])), named, kilobytes / 1000]))
"""


def prepared(folder, run, seconds=300):
    """What becomes of a folder of clips: (names of those used, {name: reason} of the others)."""
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, folder, run], cwd=REPOSITORY, capture_output=True, timeout=seconds
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    used, named, megabytes = json.loads(done.stdout.splitlines()[-1])
    assert megabytes < MEMORY
    assert all(0 < len(reason) < 300 and "\n" not in reason for reason in named.values()), named
    assert not (run / ".drafts").exists() and not list(run.rglob("*.part"))
    table = frames.read_frames(run / "frames.csv")
    assert set(table["path"]) == {path.relative_to(run).as_posix() for path in run.rglob("*.jpg")}
    for path in table["path"]:
        with Image.open(run / path) as picture:
            assert np.asarray(picture).shape == (360, 640, 3)
    for _, times in table.groupby("clip")["time_s"]:
        assert times.is_monotonic_increasing and times.min() >= 0 and times.max() < frames.LONGEST
    return used, {os.path.relpath(path, folder): reason for path, reason in named.items()}


@pytest.fixture
def folder(tmp_path):
    """A folder of clips with one that is good."""
    (tmp_path / "clips" / "Actor_01").mkdir(parents=True)
    shutil.copyfile(CLIP, tmp_path / "clips" / "Actor_01" / f"{GOOD}.mp4")
    return tmp_path / "clips"


def film(target, source, *options):
    command = [frames.ffmpeg(), "-v", "error", "-y", "-f", "lavfi", "-i", source, "-c:v", "libx264"]
    subprocess.run([*command, "-preset", "ultrafast", *options, f"file:{target}"], check=True)


def remade(target, *options, before=()):
    subprocess.run([frames.ffmpeg(), "-v", "error", "-y", *before, "-i", CLIP, *options, f"file:{target}"], check=True)


def stretched(content):
    """(old, new) for the entry of an MP4's index that says how many pictures last how long."""
    place = content.index(b"stts") + 12
    count, ticks = struct.unpack(">II", content[place : place + 8])
    return struct.pack(">II", count, ticks), struct.pack(">II", count, 2**30 + ticks)


def test_strange_clips(folder, tmp_path):
    names = iter(NAMES)
    put = {}

    def clip(what):
        put[what] = name = next(names)
        return folder / f"{name}.mp4"

    film(clip("8K"), "testsrc=size=7680x4320:rate=30:duration=0.4")
    film(clip("4K"), "testsrc=size=4096x2304:rate=30:duration=0.7", "-refs", "16")
    film(clip("10,000 a second"), "color=size=64x36:rate=10000:duration=6")
    film(clip("two hours"), "color=size=64x36:rate=1/20:duration=7200")
    remade(clip("1 frame"), "-frames:v", "1")
    remade(clip("0 frames"), "-frames:v", "0")
    try:
        remade(path := clip("rotated"), "-c", "copy", before=("-display_rotation", "90"))
    except subprocess.CalledProcessError:  # an older ffmpeg
        remade(path, "-c", "copy", "-metadata:s:v", "rotate=90")
    remade(clip("variable"), "-vf", r"select=not(mod(n\,3))+lt(random(0)\,0.3)")
    remade(clip("title"), "-c", "copy", "-metadata", "title=x: No space left on device; not on whitelist")
    leap = CLIP.read_bytes()  # each picture of it is shown for ten hours
    clip("hours a picture").write_bytes(leap.replace(*stretched(leap)))
    remade(clip("another container"), "-c", "copy", "-f", "matroska")
    subprocess.run([frames.ffmpeg(), "-v", "error", "-f", "lavfi", "-i", "sine=duration=2", clip("audio")], check=True)
    clip("empty").touch()
    clip("text").write_text("not a film\n" * 1000)
    with zipfile.ZipFile(clip("zip"), "w") as zipped:
        zipped.write(CLIP, CLIP.name)
    clip("script").write_text(f"ffconcat version 1.0\nfile '{CLIP}'\n")  # ffmpeg's own, which names another file
    clip("playlist").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{CLIP}\n#EXT-X-ENDLIST\n")
    clip("folder").mkdir()
    clip("broken link").symlink_to(folder / "nowhere.mp4")
    clip("link out").symlink_to(CLIP)
    clip("link inside").symlink_to(folder / "Actor_01" / f"{GOOD}.mp4")
    clip("device").symlink_to("/dev/zero")
    os.mkfifo(clip("pipe"))
    (folder / ("x" * 251 + ".mp4")).touch()
    no_text = folder / os.fsdecode(b"\xff\xfe.mp4")
    with contextlib.suppress(OSError):  # some file systems do not have such names
        no_text.touch()
    (folder / "Actor_02").symlink_to(CLIP.parent)
    used, named = prepared(folder, tmp_path / "run")

    assert set(used) == {
        GOOD,
        *(put[w] for w in ("4K", "rotated", "variable", "title", "another container", "link inside")),
    }
    reasons = {what: named.get(f"{name}.mp4", "") for what, name in put.items()}
    for what, reason in {
        "8K": "larger than a clip's may be",
        "10,000 a second": "longer than a clip may be",
        "two hours": "longer than a clip may be",
        "hours a picture": "longer than a clip may be",
        "1 frame": "too short for a frame",
        "0 frames": "no video stream",
        "audio": "no video stream",
        "empty": "empty file",
        "text": "not a video",
        "zip": "not a video",
        "script": "not a video, or of a kind that is not read",  # and so not opened at all
        "playlist": "not a video",
        "folder": "not a file",
        "broken link": "a link to nothing",
        "link out": "a link that leads out of the folder",
        "device": "not a file",
        "pipe": "not a file",
    }.items():
        assert reason in reasons[what], (what, reasons[what])
    assert named["Actor_02"] == "a link to a folder: not followed"
    assert sum(reason.startswith("wrong name") for reason in named.values()) == 1 + no_text.exists()
    assert len(named) == len(put) - 6 + 2 + no_text.exists()


def test_cut_short_at_every_tenth(folder, tmp_path):
    content = CLIP.read_bytes()
    for tenth, name in zip(range(10), NAMES, strict=False):
        (folder / f"{name}.mp4").write_bytes(content[: len(content) * tenth // 10])
    used, named = prepared(folder, tmp_path / "run")
    assert used == [GOOD] and len(named) == 10
    assert all(re.search("empty|cut short", reason) for reason in named.values()), named


@pytest.mark.parametrize("seeds", [range(200), pytest.param(range(200, 1200), marks=pytest.mark.torture)])
def test_flipped_bits(folder, tmp_path, seeds):
    """In the whole file, or in its index alone, where each bit counts more."""
    content = CLIP.read_bytes()
    index = content.index(b"moov"), content.index(b"mdat")
    for seed, name in zip(seeds, NAMES, strict=False):
        rng, flipped = np.random.default_rng(seed), bytearray(content)
        where = rng.integers(*(index if seed % 2 else (0, len(content))), rng.integers(1, 30))
        for place in where:
            flipped[place] ^= 1 << rng.integers(8)
        (folder / f"{name}.mp4").write_bytes(flipped)
    used, named = prepared(folder, tmp_path / "run")
    assert GOOD in used and len(used) + len(named) == len(seeds) + 1
    assert len(named) > len(seeds) / 2  # a flipped bit within a picture may go unnoticed
    print(f"\n{len(used) - 1} of {len(seeds)} were read all the same; {len(set(named.values()))} different reasons")


def test_a_clip_that_takes_too_long_is_given_up(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(frames, "TIME_LIMIT", 4)
    film(tmp_path / "short.mp4", "testsrc=size=4096x2304:rate=30:duration=1")
    again = [frames.ffmpeg(), "-v", "error", "-stream_loop", "200", "-i", tmp_path / "short.mp4", "-c", "copy"]
    subprocess.run([*again, folder / f"{NAMES[0]}.mp4"], check=True)
    clips = {frames.ClipName.parse(path.name): path for path in folder.rglob("*.mp4")}
    table, failed = frames.prepare(clips, tmp_path / "run")
    assert set(table["clip"]) == {GOOD} and [reason for _, reason in failed] == ["took longer than 4 s"]
    assert not (tmp_path / "run" / ".drafts").exists()
