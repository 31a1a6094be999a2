import subprocess
import sys
import time
import zipfile

import pytest

from helpers import keeping
from helpers.workspace import REPOSITORY

CLIP = "01-01-03-01-01-01"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


@pytest.fixture
def runs(tmp_path):
    """A run as 01 to 04 leave it, in little."""
    runs = tmp_path / "here"
    for k in range(3):
        for actor in ("01", "15"):
            write(runs / "ravdess" / "frames" / "train" / "Happy" / f"{CLIP}-{actor}_{k:02d}.jpg", f"picture {k}")
    for name in ("frames.csv", "dropped.txt", "models/alexnet.pth", "predictions/cnn.csv", "models/ablation/deep.csv"):
        write(runs / "ravdess" / name, name)
    for name in ("features/crops.uint8", ".drafts/x.jpg", "frames/train/Happy/.hidden.part", ".hidden.part"):
        write(runs / "ravdess" / name, "not kept")
    write(runs / "ravdess" / "frames.jsonl", '{"clip": 1}\n{"clip": 2}\n')
    write(runs / "rekognition.jsonl", '{"picture": 1}\n')
    return runs


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


def lines(path):
    return sorted(path.read_text("utf-8").splitlines())


def test_another_machine_gets_what_is_dear(runs, tmp_path):
    copy, there = tmp_path / "Drive" / "faces", tmp_path / "there"
    keeping.save(runs, copy, {})
    assert {p.name for p in copy.rglob("*.zip")} == {"Actor_01.zip", "Actor_15.zip"} and not list(copy.rglob("*.jpg"))
    keeping.restore(copy, there)
    expected = {name: text for name, text in files(runs).items() if text != "not kept"}
    assert files(there) == expected
    keeping.restore(copy, there)
    assert files(there) == expected


def test_machines_that_share_a_copy_take_nothing_from_each_other(runs, tmp_path):
    copy, there = tmp_path / "Drive", tmp_path / "there"
    known_here = keeping.restore(copy, runs)
    keeping.save(runs, copy, known_here)
    known_there = keeping.restore(copy, there)
    # this one goes on, the other is idle
    write(runs / "ravdess" / "models" / "alexnet.pth", "epoch 6")
    write(runs / "rekognition.jsonl", '{"picture": 1}\n{"picture": 2}\n')
    write(runs / "ravdess" / "frames" / "train" / "Happy" / f"{CLIP}-01_03.jpg", "picture 3")
    keeping.save(runs, copy, known_here)
    keeping.save(there, copy, known_there)
    assert (copy / "ravdess" / "models" / "alexnet.pth").read_text() == "epoch 6"
    assert len(zipfile.ZipFile(copy / "ravdess" / "frames" / "Actor_01.zip").namelist()) == 4
    # then the other asks too: the answers of both stay
    write(there / "rekognition.jsonl", '{"picture": 1}\n{"picture": 3}\n')
    keeping.save(there, copy, known_there)
    assert lines(copy / "rekognition.jsonl") == [f'{{"picture": {n}}}' for n in (1, 2, 3)]
    assert not (tmp_path / "Drive-before").exists()


def test_switched_on_late_nothing_of_the_copy_is_lost(runs, tmp_path):
    copy, late = tmp_path / "Drive", tmp_path / "late"
    keeping.save(runs, copy, {})
    write(late / "rekognition.jsonl", '{"picture": 9}\n')
    write(late / "ravdess" / "models" / "alexnet.pth", "another")
    keeping.save(late, copy, keeping.restore(copy, late))
    assert lines(copy / "rekognition.jsonl") == lines(late / "rekognition.jsonl")
    assert lines(late / "rekognition.jsonl") == ['{"picture": 1}', '{"picture": 9}']
    assert (copy / "ravdess" / "models" / "alexnet.pth").read_text() == "another"
    assert (tmp_path / "Drive-before" / "ravdess" / "models" / "alexnet.pth").read_text() == "models/alexnet.pth"


def test_a_damaged_archive_is_passed_over_and_written_anew(runs, tmp_path, caplog):
    copy, there = tmp_path / "Drive", tmp_path / "there"
    keeping.save(runs, copy, {})
    archive = copy / "ravdess" / "frames" / "Actor_01.zip"
    archive.write_bytes(archive.read_bytes()[:50])
    known = keeping.restore(copy, there)
    assert "Actor_01.zip is damaged" in caplog.text
    assert len(list(there.rglob("*-15_*.jpg"))) == 3 and not list(there.rglob("*-01_*.jpg"))
    write(there / "ravdess" / "frames" / "train" / "Happy" / f"{CLIP}-01_00.jpg", "made again")
    keeping.save(there, copy, known)
    assert zipfile.ZipFile(archive).namelist() == [f"frames/train/Happy/{CLIP}-01_00.jpg"]


KEEPER = """
import sys, time
from pathlib import Path
from helpers import keeping
keeping.EVERY = 0.1
keeping.keep(Path(sys.argv[1]), Path(sys.argv[2]))
keeping.keep(Path(sys.argv[1]), Path(sys.argv[2]))
(Path(sys.argv[1]) / "ravdess" / "late.csv").write_text("late")
time.sleep(60)
"""


def test_a_machine_that_dies_has_kept_what_is_older_than_the_last_look(runs, tmp_path):
    keeper = subprocess.Popen([sys.executable, "-c", KEEPER, runs, tmp_path / "Drive"], cwd=REPOSITORY)
    end = time.monotonic() + 30
    while not (tmp_path / "Drive" / "ravdess" / "late.csv").exists() and time.monotonic() < end:
        time.sleep(0.05)
    keeper.kill()
    keeper.wait()
    keeping.restore(tmp_path / "Drive", tmp_path / "there")
    assert (tmp_path / "there" / "ravdess" / "late.csv").read_text() == "late"
    assert len(list(tmp_path.glob("there/**/*.jpg"))) == 6
