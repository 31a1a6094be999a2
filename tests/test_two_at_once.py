"""Two runs over one folder at the same time: the second says so and waits, and neither spoils what the other makes."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from helpers import features, frames, images, report
from helpers.ravdess import find_clips
from helpers.workspace import REPOSITORY, Run, alone
from tests.test_frames import PREPARE, some_clips, tree

CROPS = """
import sys
from pathlib import Path
from helpers import features, frames, images
root = Path(sys.argv[1])
paths = [root / path for path in frames.read_frames(root / "frames.csv")["path"]]
features.crops(paths[::-1] if sys.argv[2] == "1" else paths, root / "features", images.FACE_TRANSFORM)
"""


def start(command, **settings):
    command, settings = [sys.executable, *map(str, command)], {**os.environ, **settings}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=REPOSITORY, env=settings, **pipes)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return some_clips(tmp_path_factory.mktemp("some") / "clips", actors=(1, 15, 20), each=4)


@pytest.mark.parametrize("notebooks", [["01_preprocess"], pytest.param([], marks=pytest.mark.torture)])
def test_make_report(clips, tmp_path, notebooks):
    command = ["-m", "helpers.report", *notebooks]
    settings = {"DATA": str(clips), "RUNS": str(tmp_path)}
    first = start(command, **settings)
    while first.stdout.read(1) not in "[":  # of “[1/5] 01_preprocess … ”, or the end
        pass
    first.send_signal(signal.SIGSTOP)  # until the second has begun
    try:
        second = start(command, **settings)
        while "at work" not in (said := second.stderr.readline()):
            assert said, "it did not wait"
    finally:
        first.send_signal(signal.SIGCONT)
    assert said == f"Another process is at work on {tmp_path / 'clips'}: waiting until it is done.\n"
    for process in (first, second):
        assert process.wait() == 0, process.stderr.read()
    whole = tree_of_a_run_alone(clips, tmp_path)
    assert tree(tmp_path / "clips" / "frames") == whole
    if not notebooks:
        settings["RUNS"] = str(tmp_path / "alone")
        assert start(command, **settings).wait() == 0
        for name in ("metrics.json", "report.md", "predictions/cnn_lightgbm.csv", "predictions/alexnet.csv"):
            assert (tmp_path / "clips" / name).read_bytes() == (tmp_path / "alone" / "clips" / name).read_bytes(), name


def test_from_within_its_own_notebooks_nobody_waits(clips, tmp_path, monkeypatch):
    run = Run(clips, tmp_path / "clips")
    with alone(run.root):
        monkeypatch.setenv(report.WITHIN, str(run.root))
        report.run_notebooks([], run)


def test_where_nothing_can_be_locked_it_goes_on_and_says_so(tmp_path, monkeypatch, caplog):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with alone(tmp_path / "x"), alone(tmp_path / "x"):
        assert "x lies where nothing can be locked: do not start two runs there at once" in caplog.text


def test_frames_that_another_process_has_cut_and_dropped_meanwhile_stay(clips, tmp_path):
    every, _ = find_clips(clips)
    before, _ = frames.prepare(every, tmp_path)
    gone = [name for name in every if name.actor == 15]
    (tmp_path / "dropped.txt").write_text("".join(f"{name}\n" for name in gone))
    after, failed = frames.prepare({name: every[name] for name in every if name not in gone}, tmp_path)
    assert before.equals(after) and not failed and len(tree(tmp_path)) == len(before) + 1


def tree_of_a_run_alone(clips, folder):
    frames.prepare(find_clips(clips)[0], folder / "one")
    return tree(folder / "one" / "frames")


def test_cutting_and_keeping(clips, tmp_path):
    """Not `make report`, but what two notebooks call."""
    both = [start(["-c", PREPARE, clips, tmp_path / "both"]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0], both[1].stderr.read()
    whole = tree_of_a_run_alone(clips, tmp_path)
    assert tree(tmp_path / "both" / "frames") == whole and not (tmp_path / "both" / ".drafts").exists()
    both = [start(["-c", CROPS, tmp_path / "both", k]) for k in range(2)]
    assert [process.wait() for process in both] == [0, 0], both[1].stderr.read()
    paths = [tmp_path / "both" / path for path in frames.read_frames(tmp_path / "both" / "frames.csv")["path"]]
    found, alone = (features.crops(paths, tmp_path / f, images.FACE_TRANSFORM) for f in ("both/features", "one/crops"))
    assert found.table.shape == alone.table.shape == (len(paths), 3, 176, 176)
    assert (found[range(len(paths))] == alone[range(len(paths))]).all()
