"""The sample's run, twice with the same number of threads and once with another: what is the same, and what is not."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.scoring import read_all_predictions
from helpers.workspace import REPOSITORY, SAMPLE

# Two threads add numbers up in another order than one, and so round otherwise. Most models hardly notice.
DIFFERING = {
    "cnn": "begins at random, and on the few frames of the sample for ten epochs on a plateau, where rounding decides",
    "cnn_lightgbm": "trees on it: a last digit puts a frame on the other side of a split",
    "alexnet_lightgbm": "the same",
    "clip_lightgbm": "the same",
}

pytestmark = pytest.mark.torture


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three runs of the sample: two with two threads, one with one."""
    found = {}
    for name, threads in (("two", 2), ("two again", 2), ("one", 1)):
        runs = tmp_path_factory.mktemp(name)
        settings = {**os.environ, "DATA": str(SAMPLE), "RUNS": str(runs), "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, "-m", "helpers.report"]
        subprocess.run(command, cwd=REPOSITORY, env=settings, check=True, capture_output=True)
        found[name] = runs / SAMPLE.name
    return found


def test_the_same_number_of_threads_gives_the_same_bytes(runs):
    for pattern in ("frames.csv", "frames/*/*/*.jpg", "predictions/*", "crossval/*", "history/*", "metrics.json",
                    "report.md", "imgs/*"):  # fmt: skip
        files = sorted(path.relative_to(runs["two"]) for path in runs["two"].glob(pattern))
        assert files, pattern
        for file in (file for file in files if file.name != "beyond_frames.png"):  # which shows times measured
            assert (runs["two"] / file).read_bytes() == (runs["two again"] / file).read_bytes(), file


def test_another_number_of_threads_gives_the_same_predictions_but_for_those_named(runs):
    two, one = (runs[name] for name in ("two", "one"))
    assert (two / "frames.csv").read_bytes() == (one / "frames.csv").read_bytes()
    for path in pd.read_csv(two / "frames.csv")["path"]:
        assert (two / path).read_bytes() == (one / path).read_bytes()
    differing = {}
    for folder in ("predictions", "crossval"):
        ours, theirs = (read_all_predictions(run / folder) for run in (two, one))
        for model in ours:
            names = [column for column in ours[model] if column.startswith("p_")]
            apart = np.abs(ours[model][names] - theirs[model][names]).to_numpy().max()
            others = (ours[model]["predicted"] != theirs[model]["predicted"]).mean()
            print(
                f"\n{folder}/{model}: probabilities {apart:.6f} apart at most, {others:.1%} predicted otherwise", end=""
            )
            differing[f"{folder}/{model}"] = others
    print()
    assert {Path(model).name for model, others in differing.items() if others} <= set(DIFFERING)
