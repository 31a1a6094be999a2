"""A disk that is full, cannot be written, or belongs to somebody else: one sentence, and the rerun goes on.

The disks are real ones of a few hundred kilobytes (tmpfs), so whoever runs this must be allowed to mount them.
"""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import features, frames, images, scoring, zenodo
from helpers.ravdess import CLASSES, find_clips
from helpers.workspace import REPOSITORY, Run, UserError
from tests import training_script
from tests.test_frames import some_clips, tree
from tests.test_zenodo import served  # noqa: F401

FULL = r"cannot be written \(No space left on device\): see that the disk has room .* run this again, and it goes on\.$"
REPORT = [sys.executable, "-m", "helpers.report"]


@pytest.fixture
def disk(tmp_path):
    """A small disk at `disk / "…"`, and a function that mounts it again with other options."""
    (tmp_path / "disk").mkdir()

    def mount(*options):
        return subprocess.run([shutil.which("mount"), *options, tmp_path / "disk"], capture_output=True).returncode

    if not shutil.which("mount") or mount("-t", "tmpfs", "-o", "size=100k", "none"):
        pytest.skip("may not mount a small disk here")

    def remount(options):
        assert mount("-o", f"remount,{options}") == 0

    yield tmp_path / "disk", remount
    subprocess.run([shutil.which("umount"), "-l", tmp_path / "disk"], check=True)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return some_clips(tmp_path_factory.mktemp("some") / "clips", each=4)


@pytest.fixture(scope="module")
def whole(clips, tmp_path_factory):
    """A run whose frames were cut on a large disk: its root."""
    root = tmp_path_factory.mktemp("large") / "clips"
    frames.prepare(find_clips(clips)[0], root)
    return root


def paths(run):
    return [run / path for path in frames.read_frames(run / "frames.csv")["path"]]


def test_frames(disk, clips, whole):
    folder, remount = disk
    for size in (100, 200, 300):
        remount(f"size={size}k")
        with pytest.raises(UserError, match=FULL):
            frames.prepare(find_clips(clips)[0], folder / "clips")
        assert not (folder / "clips" / "frames.csv").exists()
    remount("size=10m")
    _, failed = frames.prepare(find_clips(clips)[0], folder / "clips")
    assert not failed and tree(folder / "clips") == tree(whole)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_journal_that_cannot_even_be_closed(clips, tmp_path, monkeypatch):
    (tmp_path / "frames.jsonl").symlink_to("/dev/full")
    monkeypatch.setattr(frames, "_read_journal", lambda journal: {})
    monkeypatch.setattr(frames, "replacing", lambda path: contextlib.nullcontext(io.StringIO()))
    with pytest.raises(UserError, match=FULL):
        frames.prepare(find_clips(clips)[0], tmp_path)


def test_what_is_kept_of_pictures(disk, whole):
    folder, remount = disk
    for size in ("100k", "2m", "4m"):
        remount(f"size={size}")
        with pytest.raises(UserError, match=FULL):
            features.crops(paths(whole), folder, images.FACE_TRANSFORM)
    remount("size=20m")
    found, kept = (features.crops(paths(whole), f, images.FACE_TRANSFORM) for f in (folder, whole / "features"))
    assert torch.equal(found[range(len(found))], kept[range(len(kept))])


def test_a_checkpoint_and_a_table(disk, whole):
    folder, remount = disk
    with pytest.raises(UserError, match=rf"model\.pth {FULL}"):
        training_script.train(folder / "model.pth")
    table = frames.read_frames(whole / "frames.csv")
    often, p = pd.concat([table] * 100), np.full((100 * len(table), len(CLASSES)), 0.2)
    with pytest.raises(UserError, match=rf"cnn\.csv {FULL}"):
        scoring.write_predictions(folder / "cnn.csv", often, p)
    assert not list(folder.iterdir())  # nothing half
    remount("size=200m")
    network, history = training_script.train(folder / "model.pth")
    assert len(history) == training_script.RECIPE.epochs and (folder / "model.pth").exists()
    scoring.write_predictions(folder / "cnn.csv", table, p[: len(table)])
    assert len(scoring.read_predictions(folder / "cnn.csv")) == len(table)


def test_an_archive(disk, served, monkeypatch):  # noqa: F811
    folder, remount = disk
    monkeypatch.setattr(zenodo, "_free", lambda folder: 100)  # it says itself when the disk is too small from the start
    for size in ("100k", "300k"):
        remount(f"size={size}")
        with pytest.raises(UserError, match="No space left on device"):
            zenodo.fetch([1], folder)
    remount("size=10m")
    assert zenodo.fetch([1], folder) == {1: 5}


def test_a_disk_that_may_only_be_read(disk, clips, whole):
    folder, remount = disk
    remount("size=10m")
    frames.prepare(find_clips(clips)[0], folder / "clips")
    remount("ro")
    refused = r"cannot be written \(Read-only file system\): see that"
    for work in (
        lambda: frames.prepare(find_clips(clips)[0], folder / "clips"),
        lambda: features.crops(paths(folder / "clips"), folder / "features", images.FACE_TRANSFORM),
        lambda: Run(clips, folder / "clips").path("imgs", "x.png"),
        lambda: scoring.write_predictions(folder / "x.csv", frames.read_frames(whole / "frames.csv")[:1], [[0] * 5]),
    ):
        with pytest.raises(UserError, match=refused):
            work()
    done = subprocess.run(
        REPORT,
        cwd=REPOSITORY,
        env={**os.environ, "DATA": str(clips), "RUNS": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode and re.search(refused, done.stderr) and "Traceback" not in done.stdout + done.stderr


def test_without_permission_and_without_a_home(clips, tmp_path):
    """As a user like any other, in a container that gave them no home."""
    data, runs, home = tmp_path / "clips", tmp_path / "runs", tmp_path / "closed" / "home"
    shutil.copytree(clips, data)
    runs.mkdir(mode=0o555), home.parent.mkdir(mode=0o555)
    root_is_no_more = (
        ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if getattr(os, "geteuid", int)() == 0 else []
    )

    def report():
        command = [*root_is_no_more, *REPORT, "01_preprocess"]
        settings = {**os.environ, "HOME": str(home), "DATA": str(data), "RUNS": str(runs)}
        done = subprocess.run(command, cwd=REPOSITORY, env=settings, capture_output=True, text=True)
        assert "Traceback" not in done.stdout + done.stderr
        return done

    if root_is_no_more and not shutil.which("setpriv"):
        pytest.skip("root may do everything, and setpriv is not there")
    done = report()
    assert done.returncode and "clips cannot be written (Permission denied): see that" in done.stderr
    runs.chmod(0o755)
    (data / "Actor_01").chmod(0)
    one, *_ = sorted((data / "Actor_15").iterdir())
    one.chmod(0)
    try:
        done = report()
    finally:
        (data / "Actor_01").chmod(0o755)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 files could not be used, all named in 01; the first is" in done.stdout
    text = (runs / "clips" / "01_preprocess.ipynb").read_text("utf-8")
    assert "1 × cannot be opened (Permission denied)" in text and f"{one.name}: cut short, damaged" in text
    assert "clips/Actor_01: cannot be opened (Permission denied)" in text
    assert set(frames.read_frames(runs / "clips" / "frames.csv")["actor"]) == {15, 20}


@pytest.mark.torture
def test_make_report_on_a_disk_that_is_too_small_ten_times(disk, tmp_path):
    """Each time one sentence, then the disk grows; at the end all is as on a large disk."""
    folder, remount = disk
    clips, failures = some_clips(tmp_path / "clips", actors=(1, 15, 20), each=7), 0

    def report(runs):
        settings = {**os.environ, "DATA": str(clips), "RUNS": str(runs)}
        return subprocess.run(REPORT, cwd=REPOSITORY, env=settings, capture_output=True, text=True)

    for megabytes in (0.2, 1, 4, 10, 15, 20, 35, 50, 60, 70):
        remount(f"size={int(1024 * megabytes)}k")
        done = report(folder)
        if done.returncode == 0:
            break
        failures += 1
        sentence = done.stderr.strip().splitlines()[-1]
        print(f"\n{megabytes} MB: {sentence}", end="")
        assert "Traceback" not in done.stdout + done.stderr and "No space left on device" in sentence
    print()
    assert failures >= 5
    remount("size=1g")
    done = report(folder)
    assert done.returncode == 0, done.stderr[-2000:]
    assert report(tmp_path / "large").returncode == 0
    whole, grown = tmp_path / "large" / "clips", folder / "clips"
    for pattern in ("frames/*/*/*.jpg", "frames.csv", "predictions/*", "crossval/*.csv", "metrics.json", "report.md"):
        names = sorted(path.relative_to(whole) for path in whole.glob(pattern))
        assert names and names == sorted(path.relative_to(grown) for path in grown.glob(pattern))
        for name in names:
            assert (whole / name).read_bytes() == (grown / name).read_bytes(), name
