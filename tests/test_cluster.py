"""What outgrows one machine: joblib's backends for frames and Rekognition, accelerate for training. Real processes."""

import os
import signal
import subprocess
import sys
import threading
import time

import joblib
import pandas as pd
import pytest

from helpers import features, frames, images, networks, rekognition, training
from helpers.ravdess import find_clips
from helpers.workspace import REPOSITORY, Run, UserError
from tests.test_frames import some_clips, tree
from tests.test_rekognition import run, server  # noqa: F401


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed", reason="needs requirements-cluster.txt")
    machines = distributed.LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address=None)
    with machines, distributed.Client(machines) as client:
        yield client


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Clips, and the tree that one process makes of them."""
    folder = tmp_path_factory.mktemp("alone")
    clips, _ = find_clips(some_clips(folder / "clips", each=7))
    frames.prepare(clips, folder / "run")
    return clips, tree(folder / "run")


def test_a_cluster_makes_the_same_tree(cluster, alone, tmp_path):
    clips, expected = alone
    with joblib.parallel_config("dask"):
        _, failed = frames.prepare(clips, tmp_path)
    assert not failed and tree(tmp_path) == expected


def test_a_worker_that_is_killed_costs_nothing_but_time(cluster, alone, tmp_path):
    clips, expected = alone
    pids = cluster.run(os.getpid)

    def kill():
        while len(list(tmp_path.glob("frames/*/*/*_00.jpg"))) < 3:
            time.sleep(0.01)
        os.kill(next(iter(pids.values())), signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with joblib.parallel_config("dask"):
        _, failed = frames.prepare(clips, tmp_path)
    killer.join()
    assert not failed and tree(tmp_path) == expected
    cluster.wait_for_workers(2)
    assert set(cluster.run(os.getpid).values()) != set(pids.values())  # one was really killed, and another came


IN_PROCESSES = """
import sys
from pathlib import Path
import joblib
from helpers import frames, ravdess
if __name__ == "__main__":
    with joblib.parallel_config("loky", n_jobs=2):
        frames.prepare(ravdess.find_clips(sys.argv[1])[0], Path(sys.argv[2]), jobs=2)
"""


def test_processes_make_the_same_tree(alone, tmp_path):
    clips, expected = alone
    (tmp_path / "in_processes.py").write_text(IN_PROCESSES, "utf-8")
    folder = next(iter(clips.values())).parents[1]
    subprocess.run([sys.executable, tmp_path / "in_processes.py", folder, tmp_path / "run"], check=True)
    assert tree(tmp_path / "run") == expected


def test_rekognition_is_asked_from_a_cluster(cluster, server, run):  # noqa: F811
    """By its workers, once for each picture; the answers are kept here. Refused, it ends soon."""
    settings = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    cluster.run(lambda: (os.environ.update(settings), rekognition._client.cache_clear()))
    pictures = pd.read_csv(run.root / "frames.csv")
    server.always = "refuse"
    with joblib.parallel_config("dask"), pytest.raises(UserError, match="Amazon refused the AWS credentials"):
        rekognition.ask(run, pictures, 1)
    assert 1 <= len(server.calls) <= 16 and not rekognition.answers_file(run).read_text("utf-8")
    time.sleep(0.5)  # for what was under way
    server.always = None
    server.calls.clear()
    with joblib.parallel_config("dask"):
        rekognition.ask(run, pictures, 0.02)
        assert len(server.calls) == 20 == len(rekognition.answers_file(run).read_text("utf-8").splitlines())
        rekognition.ask(run, pictures, 1)
    assert len(server.calls) == 39 and rekognition.read_answers(run, pictures).notna().all()


def test_two_processes_train_what_02_then_finds(tmp_path):
    """Two processes leave the finished network, from which 02's own call goes on without training."""
    clips = some_clips(tmp_path / "few clips", each=3)
    here = Run(clips, tmp_path / "runs" / clips.name)
    frames.prepare(find_clips(clips)[0], here.root)
    environment = {**os.environ, "DATA": str(clips), "RUNS": str(here.root.parent), "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "helpers.finetune"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"2 processes, {training.FINE_TUNING.epochs} epochs, {here.root / 'models' / 'alexnet.pth'}: " in done.stdout
    table = frames.read_frames(here.root / "frames.csv")
    labels, rows = training.labels_and_rows(table)
    faces = features.crops([here.root / p for p in table["path"]], here.path("features"), images.FACE_TRANSFORM)
    before = (here.root / "models" / "alexnet.pth").read_bytes()
    settings = faces, labels, rows["train"], rows["val"], training.FINE_TUNING, here.root / "models" / "alexnet.pth"
    network = networks.face_alexnet("none")
    history = training.fit(network, *settings)
    assert (here.root / "models" / "alexnet.pth").read_bytes() == before
    pd.testing.assert_frame_equal(pd.read_csv(here.root / "history" / "alexnet.csv"), history)
    right = training.probabilities(network, faces, rows["val"]).argmax(1) == labels[rows["val"]]
    assert right.mean() == pytest.approx(history["val_accuracy"].max())
