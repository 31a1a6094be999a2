"""Killed anywhere: what is started again ends as if nobody had killed it. SIGKILL, and the whole process group.

These take long, so `make torture` runs them; tests/test_frames.py and the like kill once or a few times in `make test`.
A fetch is killed in tests/test_archives.py.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from joblib import Parallel, delayed

from helpers.ravdess import Emotion, Intensity, Statement
from helpers.sample import clip_names, draw_clip
from helpers.workspace import REPOSITORY
from tests.test_frames import PREPARE, some_clips
from tests.test_rekognition import ASK, run, server, table  # noqa: F401

KILLS = 20
CLIPS = 448  # a third of the clips that RAVDESS has for the five classes
NOTEBOOKS = len(list((REPOSITORY / "notebooks").glob("[0-9][0-9]_*.ipynb")))
REPORT = [sys.executable, "-m", "helpers.report"]
TRUNK = """
import sys
from pathlib import Path
from helpers import features, frames, networks
root = Path(sys.argv[1])
paths = [root / path for path in frames.read_frames(root / "frames.csv")["path"]]
kept = features.trunk_features(networks.alexnet_trunk("none"), paths, Path(sys.argv[2]))
(Path(sys.argv[2]) / "numbers").write_bytes(kept[range(len(paths))].numpy().tobytes())
"""

pytestmark = pytest.mark.torture


def contents(root, *patterns):
    """{name: bytes} of the files of a run that match, by content whoever made them."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for pattern in patterns
        for path in sorted(root.glob(pattern))
        if path.is_file()
    }


def start(command, **variables):
    return subprocess.Popen(
        list(map(str, command)), cwd=REPOSITORY, env={**os.environ, **variables}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def kill(process):
    """Kill a process and its group; False if it had ended by itself."""
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return alive


def finished(process):
    said = process.communicate()[0]
    assert process.returncode == 0, said[-2000:]
    return said


def kill_all_along(command, begin_anew, seconds):
    """Start a command again and again, each time killed a little later; what ended before its time is begun anew."""
    killed = starts = 0
    while killed < KILLS:
        process = start(command)
        time.sleep(seconds * (killed + 1) / (KILLS + 1))
        if kill(process):
            killed += 1
        else:
            assert process.returncode == 0
            seconds *= 0.9  # the first one, by which the moments are chosen, was slower
            begin_anew()
        starts += 1
        assert starts < 3 * KILLS
    finished(start(command))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A third of RAVDESS's number of clips: the sample's actors, drawn, each emotion at both intensities."""
    folder, kinds = tmp_path_factory.mktemp("drawn") / "many clips", defaultdict(list)
    for name in clip_names():
        for intensity, statement, repetition in product(Intensity, Statement, (1, 2)):
            if name.label and not (name.emotion == Emotion.NEUTRAL and intensity == Intensity.STRONG):
                other = replace(name, intensity=intensity, statement=statement, repetition=repetition)
                kinds[other.actor, other.emotion, other.intensity].append(other)  # on which its pictures hang
    Parallel(n_jobs=-1)(delayed(draw_clip)(alike[0], folder) for alike in kinds.values())
    for _, first, other in sorted((k, alike[0], other) for alike in kinds.values() for k, other in enumerate(alike)):
        path = folder / f"Actor_{first.actor:02d}" / f"{first}.mp4"
        if not (copy := path.with_stem(str(other))).exists() and len(list(folder.rglob("*.mp4"))) < CLIPS:
            shutil.copyfile(path, copy)
    return folder


def timed_notebooks(said):
    return [int(seconds) for seconds in re.findall(r"^(?:\[\d/\d\] \S+ … |.* … )(\d+) s$", said, re.M)]


def test_make_report(clips, tmp_path):
    settings = {"DATA": str(clips), "WEIGHTS": "none"}
    said = finished(start(REPORT, RUNS=str(tmp_path / "whole"), **settings))
    seconds = timed_notebooks(said)
    assert len(seconds) == NOTEBOOKS, said
    ends, killed, began = np.cumsum(seconds), Counter(), time.monotonic()
    for k in range(KILLS):
        moment = ends[-1] * (k + 0.5) / KILLS
        which = int(np.searchsorted(ends, moment))
        wait = moment - (ends[which] - seconds[which])
        process, seen = start(REPORT, RUNS=str(tmp_path / "killed"), **settings), ""
        while f"[{which + 1}/{NOTEBOOKS}]" not in seen and (more := os.read(process.stdout.fileno(), 65536)):
            seen += more.decode("utf-8", "replace")
        until = time.monotonic() + wait  # or when the notebook has ended: much of it was done before
        while time.monotonic() < until and process.poll() is None and f"[{which + 2}/{NOTEBOOKS}]" not in seen:
            time.sleep(0.1)
            os.set_blocking(process.stdout.fileno(), False)
            try:
                seen += os.read(process.stdout.fileno(), 65536).decode("utf-8", "replace")
            except BlockingIOError:
                pass
            finally:
                os.set_blocking(process.stdout.fileno(), True)
        killed[f"in notebook {which + 1}"] += kill(process)
    print(f"\nnever killed {seconds} s; killed {dict(killed)} in {time.monotonic() - began:.0f} s", end="")
    said = finished(start(REPORT, RUNS=str(tmp_path / "killed"), **settings))
    print(f"; the last run {timed_notebooks(said)} s", flush=True)
    assert killed.total() >= KILLS - 1
    patterns = "frames/*/*/*.jpg", "frames.csv", "predictions/*", "crossval/*", "history/*", "metrics.json", "report.md"
    whole, again = (contents(tmp_path / which / clips.name, *patterns) for which in ("whole", "killed"))
    assert set(whole) == set(again) and len(whole) > 4 * CLIPS
    assert not [name for name in whole if whole[name] != again[name]]
    assert not list((tmp_path / "killed" / clips.name).glob(".drafts"))


def test_cutting(tmp_path):
    folder = some_clips(tmp_path / "clips", range(1, 25), each=7)
    whole, command = tmp_path / "whole", [sys.executable, "-c", PREPARE, folder]
    began = time.monotonic()
    finished(start([*command, whole]))
    seconds, killed = time.monotonic() - began, tmp_path / "killed"
    kill_all_along([*command, killed], lambda: shutil.rmtree(killed), seconds)
    assert contents(whole, "frames/*/*/*.jpg", "frames.csv") == contents(killed, "frames/*/*/*.jpg", "frames.csv")


def test_a_trunk_pass(tmp_path):
    folder = some_clips(tmp_path / "clips", range(1, 25), each=7)
    finished(start([sys.executable, "-c", PREPARE, folder, tmp_path / "run"]))
    command, killed, began = [sys.executable, "-c", TRUNK, tmp_path / "run"], tmp_path / "killed", time.monotonic()
    finished(start([*command, tmp_path / "whole"]))
    kill_all_along([*command, killed], lambda: shutil.rmtree(killed), time.monotonic() - began)
    assert contents(tmp_path / "whole", "*") == contents(killed, "*")


def test_a_training(tmp_path):
    command, killed = [sys.executable, REPOSITORY / "tests" / "training_script.py"], tmp_path / "killed"
    (tmp_path / "whole").mkdir(), killed.mkdir()
    began = time.monotonic()
    finished(start([*command, tmp_path / "whole", "usual"]))
    anew = lambda: (shutil.rmtree(killed), killed.mkdir())  # noqa: E731
    kill_all_along([*command, killed, "usual"], anew, time.monotonic() - began)
    assert contents(tmp_path / "whole", "*.npy", "*.csv") == contents(killed, "*.npy", "*.csv")


def test_a_rekognition_run(server, run):  # noqa: F811
    server.seconds = 0.4
    command, answers = [sys.executable, "-c", ASK, run.data, run.root], run.root.parent / "rekognition.jsonl"
    began = time.monotonic()
    said = finished(start(command))
    seconds, whole = time.monotonic() - began, said.splitlines()[-1]
    answers.unlink()
    server.calls.clear()
    begun = []
    kill_all_along(command, lambda: begun.append(answers.unlink()), seconds)
    assert finished(start(command)).splitlines()[-1] == whole
    asked = Counter(picture for picture, _ in server.calls)
    assert len(asked) == len(set(table(run)["path"])) - 1  # two frames are one picture
    assert asked.total() <= (1 + len(begun)) * len(asked) + 8 * KILLS  # again only what was under way at a kill
