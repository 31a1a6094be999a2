"""`make report`, `make publish` and what stands before them, in a copy of the repository."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import mistune
import nbformat
import pandas as pd
import pytest
from PIL import Image

from helpers import report
from helpers.scoring import PROBABILITIES
from helpers.workspace import REPOSITORY, UserError
from tests.test_frames import some_clips

NAME = """it's 100% "we$ird"; $(touch pwned) `touch pwned` 人 é"""

GIT, MAKE = shutil.which("git"), shutil.which("make")
pytestmark = pytest.mark.skipif(not GIT or not MAKE, reason="needs make and git")


def git(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    return subprocess.run([GIT, *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def copy_of_the_repository(folder):
    """A fresh commit of the working tree."""
    caches = "__pycache__", ".ruff_cache", ".mypy_cache"
    ignore = shutil.ignore_patterns(".git", ".venv", "runs", "ravdess", "new", *caches)
    shutil.copytree(REPOSITORY, folder, ignore=ignore)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "copy")
    return folder


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return copy_of_the_repository(tmp_path_factory.mktemp("a copy") / "faces")


def make(folder, *arguments, **variables):
    environment = {
        k: v for k, v in os.environ.items() if k not in ("DATA", "RUNS", "WEIGHTS", "PYTHONPATH", "MAKEFLAGS")
    }
    for stamp in Path(sys.prefix).glob("installed-*"):  # by which constraints this environment was installed
        environment["CONSTRAINTS"] = stamp.name.removeprefix("installed-")
    return subprocess.run(
        [MAKE, "--no-print-directory", *arguments],
        cwd=folder,
        env={**environment, **variables},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def weird_run(copy, tmp_path_factory):
    """`make report` over a folder with a name that would hurt a shell, and what it printed."""
    (copy / ".venv").symlink_to(sys.prefix, target_is_directory=True)
    if not list((copy / ".venv").glob("installed-*")):
        pytest.skip("needs the environment that make installs")
    outside = tmp_path_factory.mktemp("out side")
    clips = some_clips(outside / NAME, actors=(1, 15, 20), each=7)
    done = make(copy, "report", DATA=str(clips), RUNS=str(outside / "runs $x"), WEIGHTS="none")
    return done, outside / "runs $x" / NAME, outside


def test_make_report_over_a_folder_with_a_hostile_name(weird_run, copy):
    done, run, outside = weird_run
    assert done.returncode == 0, done.stdout + done.stderr
    for name in (
        "01_preprocess",
        "02_alexnet_train",
        "03_cnn_lightgbm",
        "04_rekognition_baseline",
        "05_evaluate",
        "06_beyond_the_report",
    ):
        assert f"] {name} … " in done.stdout
        cells = nbformat.read(run / f"{name}.ipynb", as_version=4).cells
        assert all(c.execution_count for c in cells if c.cell_type == "code")
    metrics = json.loads((run / "metrics.json").read_text())
    assert {row["split"] for row in metrics["scores"]} == {"train", "val", "test"}
    assert {row["note"] for row in metrics["scores"] if row["model"] == "alexnet_2020"} == {"random trunk"}
    assert "Random trunk: AlexNet ran without" in done.stdout
    assert "alexnet_2020" in done.stdout and "macro recall" in done.stdout and str(run / "report.md") in done.stdout
    assert "random trunk" in (run / "report.md").read_text("utf-8")
    assert "0 of them answered already" in done.stdout and "There are no AWS credentials" in done.stdout
    assert not any("rekognition" in row["model"] for row in metrics["scores"])
    assert {"correct_sample.png", "model.png", "accuracy_graph.png"} <= {p.name for p in (run / "imgs").iterdir()}
    assert not list(Path(outside).rglob("pwned")) + list(copy.rglob("pwned"))
    assert git(copy, "status", "--porcelain") == ""


def test_make_publish_changes_what_it_should_and_no_more(weird_run, copy):
    _, run, _ = weird_run
    done = make(copy, "publish", RUN=run.name, RUNS=str(run.parent))
    assert done.returncode == 0, done.stderr
    changed = {line[3:] for line in git(copy, "status", "--porcelain", "-uall").splitlines()}
    assert "README.md" in changed
    assert all(path == "README.md" or path.startswith("imgs/") for path in changed)
    scores = json.loads((run / "metrics.json").read_text())["scores"]
    [score] = [row for row in scores if row["model"] == "alexnet_2020" and row["split"] == "test"]
    readme = (copy / "README.md").read_text("utf-8")
    accuracy, recall = (
        f"{score[name]:.1%} ({100 * score[f'{name}_low']:.1f} to {100 * score[f'{name}_high']:.1f})"
        for name in ("accuracy", "macro_recall")
    )
    assert f"| {score['frames']} | {accuracy} | {recall} | random trunk |" in readme
    git(copy, "checkout", "-q", ".")
    git(copy, "clean", "-fdq", "imgs")
    written = (run / "report.md").read_text("utf-8")
    (run / "report.md").write_text(written.replace("begin confusion", ""), "utf-8")
    partial = make(copy, "publish", RUN=run.name, RUNS=str(run.parent))
    (run / "report.md").write_text(written, "utf-8")
    assert partial.returncode and "has no part “confusion”" in partial.stderr
    assert git(copy, "status", "--porcelain") == ""  # checked first, so nothing is half published
    metrics = (run / "metrics.json").read_text("utf-8")
    (run / "metrics.json").write_text(metrics.replace('"private": 0', '"private": 2'), "utf-8")
    faces = make(copy, "publish", RUN=run.name, RUNS=str(run.parent))
    (run / "metrics.json").write_text(metrics, "utf-8")
    assert faces.returncode and "shows 2 files of data/new: empty that" in faces.stderr
    assert git(copy, "status", "--porcelain") == ""
    nowhere = make(copy, "publish", RUN="nowhere", RUNS=str(run.parent))
    assert nowhere.returncode and "There is no finished run" in nowhere.stderr and "Traceback" not in nowhere.stderr


def test_a_changed_prediction_changes_the_readme(weird_run, copy, monkeypatch):
    """One test frame more is right: 05 runs again, alone, and what is published follows."""
    _, run, outside = weird_run
    file = run / "predictions" / "cnn.csv"
    table = pd.read_csv(file, keep_default_na=False)
    test = table["split"] == "test"
    miss = table.index[test & (table["predicted"] != table["label"])][0]
    right, n, label = int((table["predicted"] == table["label"])[test].sum()), int(test.sum()), table.loc[miss, "label"]
    table.loc[miss, ["predicted", *PROBABILITIES]] = [label, *(float(name == f"p_{label}") for name in PROBABILITIES)]
    table.to_csv(file, index=False)
    (run / "models").rename(run / "no models")  # which 05 then does without
    for name, value in (("DATA", outside / NAME), ("RUNS", run.parent), ("PYTHONPATH", copy)):
        monkeypatch.setenv(name, str(value))
    report.execute(copy / "notebooks" / "05_evaluate.ipynb", run / "05_evaluate.ipynb")
    assert make(copy, "publish", RUN=run.name, RUNS=str(run.parent)).returncode == 0
    readme = (copy / "README.md").read_text("utf-8")
    git(copy, "checkout", "-q", ".")
    git(copy, "clean", "-fdq", "imgs")
    [row] = [line for line in readme.splitlines() if line.startswith(f"| cnn | {run.name} | test | {n} | ")]
    assert f"| {(right + 1) / n:.1%} (" in row


def test_no_clips_and_no_such_folder_are_one_sentence(weird_run, copy, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, weights, message in (
        ("nowhere", "none", "There is no folder of clips"),
        ("empty", "none", "There is no clip to use"),
        ("empty", "nowhere.pth", "There is no file of weights"),
    ):
        done = make(copy, "report", DATA=str(tmp_path / folder), RUNS=str(tmp_path / "runs"), WEIGHTS=weights)
        assert done.returncode
        assert message in done.stderr and "Traceback" not in done.stderr


def test_a_missing_or_a_wrong_python_is_one_sentence(tmp_path):
    for path in (REPOSITORY / "Makefile", *REPOSITORY.glob("*.txt")):
        shutil.copy(path, tmp_path)
    old = tmp_path / "old python"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.10.14\n[ "$1" = -V ]\n')
    old.chmod(0o755)
    for python, message in (
        (str(old), "is Python 3.10.14, and 3.11, 3.12 or 3.13 is needed"),
        ("nopython", "There is no nopython here"),
    ):
        done = make(tmp_path, "report", f"PYTHON={python}")
        assert done.returncode
        assert message in done.stdout
        assert len(done.stdout.strip().splitlines()) == 1
        assert not (tmp_path / ".venv").exists()


def test_a_notebook_without_its_input_says_which_to_run(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNS", str(tmp_path))
    with pytest.raises(UserError, match="02_alexnet_train stopped. .* run 01_preprocess first"):
        report.execute(report.NOTEBOOKS / "02_alexnet_train.ipynb", tmp_path / "02.ipynb")
    cells = nbformat.read(tmp_path / "02.ipynb", as_version=4).cells
    [error] = [o for cell in cells for o in cell.get("outputs", []) if o.output_type == "error"]
    assert len(error.traceback) == 1  # the sentence, bare


def test_every_figure_of_the_report_is_there_and_every_picture_of_the_readme():
    names = "Illustration correct_sample model_lightgbm model baseline1 baseline_aws accuracy_graph test_set_actors"
    names = [*names.split(), "misslabeled_actors", "misslabeled_actors_2", *(f"q{k}" for k in range(1, 11))]
    rendered = mistune.create_markdown(plugins=["table"])((REPOSITORY / "README.md").read_text("utf-8"))
    linked = re.findall(r'<img src="(?!https:)([^"]+)"', rendered)
    for path in re.findall(r'<a href="(?!https:)([^"#]+)"', rendered):
        assert (REPOSITORY / path).exists(), path
    assert {"imgs/correct_sample.png", "imgs/q1.png", "imgs/q10.png"} <= set(linked)
    for path in (*linked, *(f"imgs/{name}.png" for name in names)):
        with Image.open(REPOSITORY / path) as picture:
            title = picture.info["Title"]
        # model.png shows a network, and no data; what was measured on other data is drawn from kept numbers alone
        assert "drawn sample" in title or path == "imgs/model.png" or "by data/beyond.csv" in title, path
        if path.startswith(("imgs/q", "imgs/mis")):  # the report's own model, and not one of the others
            assert "alexnet_2020: drawn sample" in title and "SIMULATED" not in title, path
    assert "**Table 2, validation actors: alexnet_2020, drawn sample**" in (REPOSITORY / "README.md").read_text("utf-8")


def test_nothing_of_this_machine_is_in_the_stored_notebooks():
    for path in sorted(report.NOTEBOOKS.glob("*.ipynb")):
        text = path.read_text("utf-8")
        assert str(REPOSITORY) not in text and str(Path.home()) not in text
        notebook = nbformat.reads(text, as_version=4)
        counts = [c.execution_count for c in notebook.cells if c.cell_type == "code"]
        assert counts == list(range(1, len(counts) + 1)), f"{path.name} is not stored executed, in order"


def test_every_test_that_the_list_of_cases_names_is_there():
    there = {name for path in (REPOSITORY / "tests").glob("test_*.py") for name in (path.name, *defined(path))}
    text = (REPOSITORY / "tests" / "README.md").read_text("utf-8")
    named = re.findall(r"`([\w.]*test_\w+(?:\.py)?)(?:::(\w+))?`", text)
    assert len(named) > 50 and {name for pair in named for name in pair if name} <= there


def defined(path):
    return re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.M)


def test_the_lowest_versions_are_those_that_the_requirements_allow():
    allowed = re.findall(r"^([\w-]+) *>= *([\d.]+)", (REPOSITORY / "requirements.txt").read_text("utf-8"), re.M)
    lowest = re.findall(r"^([\w-]+)==([\d.]+)$", (REPOSITORY / "constraints-lowest.txt").read_text("utf-8"), re.M)
    assert lowest == allowed and len(allowed) > 20


def test_code_and_notebooks_are_clean():
    for command in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]):
        done = subprocess.run([sys.executable, "-m", *command], cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
