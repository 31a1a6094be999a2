"""Two runs over one folder at the same time: the second says so and waits, and neither spoils what the other makes."""

import os
import signal
import subprocess
import sys

import pytest

from helpers import features, frames, images
from helpers.ravdess import find_clips
from helpers.workspace import REPOSITORY
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
    second = start(command, **settings)
    said = second.stderr.readline()
    assert said == f"Another run is at work on {tmp_path / 'clips'}: waiting until it is done.\n"
    first.send_signal(signal.SIGCONT)
    for process in (first, second):
        assert process.wait() == 0, process.stderr.read()
    whole = tree_of_a_run_alone(clips, tmp_path)
    assert tree(tmp_path / "clips" / "frames") == whole
    if not notebooks:
        settings["RUNS"] = str(tmp_path / "alone")
        assert start(command, **settings).wait() == 0
        for name in ("metrics.json", "report.md", "predictions/cnn_lightgbm.csv", "predictions/alexnet.csv"):
            assert (tmp_path / "clips" / name).read_bytes() == (tmp_path / "alone" / "clips" / name).read_bytes(), name


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
