"""All actors in turn: each frame is named by a model that was trained without its actor.

02 and 03 do this for the networks that learn from what is kept of each frame. `python -m helpers.crossval` (`make
crossval`) does it for the fine-tuned AlexNet and its trees too, and keeps DATA's accuracies in `data/crossval.csv`, and
those of 06's steps in `data/beyond.csv`.
"""

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
from accelerate import Accelerator
from sklearn.model_selection import StratifiedGroupKFold

from helpers import beyond, boosting, landmarks, movement
from helpers.features import crops, digest, trunk_features
from helpers.frames import dropped, read_frames
from helpers.images import CNN_TRANSFORM, FACE_TRANSFORM
from helpers.networks import alexnet_trunk, face_alexnet, report_cnn, report_head
from helpers.ravdess import CLASSES, find_clips
from helpers.scoring import counts_by_actor, read_predictions, write_predictions
from helpers.training import (
    FINE_TUNING,
    REPORT,
    SMALL_CNN,
    doubled,
    fit,
    labels_and_rows,
    precision,
    probabilities,
    training_key,
)
from helpers.workspace import REPOSITORY, SEED, UserError, alone, open_run, shown, weights, write_table

FOLDS = 5
KEPT = REPOSITORY / "data" / "crossval.csv"
# The first of their epochs only: the one that is kept comes early on as many frames as RAVDESS gives, and what follows
# would be thrown away. On few frames, as of the sample, it can come later, and these stop too early.
SHORT, SHORT_CNN = replace(REPORT, epochs=6), replace(SMALL_CNN, epochs=6)


def folds(table):
    """Deal the actors of `frames.csv` out: a list of {"train": rows, "val": rows, "test": rows}, a fold each.

    Every actor is in one fold's test; the next fold's test actors choose the epoch; the others, 14 or so of 24, are
    learned from. Empty with fewer than three actors.
    """
    n = min(FOLDS, table["actor"].nunique())
    if n < 3:
        return []
    dealt = StratifiedGroupKFold(n, shuffle=True, random_state=SEED).split(table, table["label"], table["actor"])
    tests = [test for _, test in dealt]
    rest = lambda k: np.setdiff1d(np.arange(len(table)), [*tests[k], *tests[(k + 1) % n]])  # noqa: E731
    return [{"train": rest(k), "val": tests[(k + 1) % n], "test": tests[k]} for k in range(n)]


def head(features, table, run, note=""):
    """The report's head (`alexnet_2020`) on the trunk's features, in folds; returns {model: predictions}."""

    def answers(network, rows):
        return {"alexnet_2020": probabilities(network, features, rows["test"])}

    return _in_folds(["alexnet_2020"], report_head, features, table, run, SHORT, answers, note, twice=True)


def small_cnn(inputs, table, run):
    """The small CNN (`cnn`), and trees on what it gives (`cnn_lightgbm`), in folds; returns {model: predictions}."""
    labels, _ = labels_and_rows(table)

    def answers(network, rows):
        gives = boosting.network_features(network, inputs)
        trees = boosting.fit_trees(gives, labels, rows["train"], rows["val"])
        test = rows["test"]
        return {"cnn": probabilities(network, inputs, test), "cnn_lightgbm": trees.predict(gives.iloc[test])}

    return _in_folds(["cnn", "cnn_lightgbm"], report_cnn, inputs, table, run, SHORT_CNN, answers)


def fine_tuned(inputs, table, run):
    """The fine-tuned AlexNet, and trees on what it gives for frames and for clips, in folds: {model: predictions}.

    That is five trainings of a whole network: long without a GPU. It goes on with the epoch that was under way.
    """
    labels, _ = labels_and_rows(table)

    def answers(network, rows):
        gives, test = boosting.network_features(network, inputs), rows["test"]
        trees = boosting.fit_trees(gives, labels, rows["train"], rows["val"])
        per_clip = boosting.clip_summaries(gives, table["clip"])
        clip_labels, _ = labels_and_rows(table.groupby("clip").head(1).set_index("clip").loc[per_clip.index])
        learn, choose = (np.flatnonzero(per_clip.index.isin(table["clip"].iloc[rows[s]])) for s in ("train", "val"))
        clip_trees = boosting.fit_trees(per_clip, clip_labels, learn, choose)
        of_clips = clip_trees.predict(per_clip.loc[table["clip"].iloc[test]])
        found = {"alexnet_lightgbm": trees.predict(gives.iloc[test]), "clip_lightgbm": of_clips}
        return {"alexnet": probabilities(network, inputs, test, mirrored=True)} | found

    names = ["alexnet", "alexnet_lightgbm", "clip_lightgbm"]
    build = lambda: face_alexnet(weights())  # noqa: E731
    mixed = Accelerator(mixed_precision=precision()).mixed_precision
    note = "; ".join(filter(None, (build().note, mixed if mixed != "no" else "")))
    return _in_folds(names, build, inputs, table, run, FINE_TUNING, answers, note)


def of_movement(found, table, run):
    """Regressions on what each clip's face does (`beyond`, `beyond_calibrated`), in folds: {model: predictions}.

    `found` is what `landmarks.tracks` gave; the mean face is made of each fold's training clips.
    """
    notes = {"beyond": "", "beyond_calibrated": movement.CALIBRATED}
    dealt, p = folds(table), {name: np.zeros((len(table), len(CLASSES))) for name in notes}
    for rows in dealt:
        train = set(table["clip"].iloc[rows["train"]])
        face = movement.mean_face([track for clip, track in found.items() if clip in train])
        moves = {clip: movement.movement(track, face) for clip, track in found.items()}
        course, summary = movement.course(moves), movement.summary(moves)
        first = table.groupby("clip").head(1).set_index("clip").loc[course.index]
        labels, _ = labels_and_rows(first)
        learn = {"train": np.flatnonzero(course.index.isin(train))}
        if len(set(labels[learn["train"]])) < 2:  # there is nothing to tell apart
            return {}
        less = [movement.calibrated(numbers, first["actor"]) for numbers in (course, summary)]
        answers = {
            "beyond": beyond.clip_answers(course, labels, learn),
            "beyond_calibrated": beyond.together(*(beyond.clip_answers(numbers, labels, learn) for numbers in less)),
        }
        for name, of_clips in answers.items():
            p[name][rows["test"]] = of_clips.loc[table["clip"].iloc[rows["test"]]]
    if not dealt:
        return {}
    everyone, kept = table.assign(split="test"), {}
    for name, note in notes.items():
        note = "; ".join(filter(None, (note, f"{len(dealt)} folds")))
        kept[name] = write_predictions(run.path("crossval", f"{name}.csv"), everyone, p[name], note)
    return kept


def _in_folds(names, build, inputs, table, run, recipe, answers, note="", twice=False):
    """Train in each fold, and put the folds' answers together: {model: predictions}, the split of every row "test".

    Each is kept in `crossval/<model>.csv` of the run with a key of all that it hangs on, and read if that is the same.
    """
    labels, _ = labels_and_rows(table)
    dealt = [rows | {"learn": doubled(table, rows["train"]) if twice else rows["train"]} for rows in folds(table)]
    if not dealt:
        return {}
    keys = [training_key(build(), inputs, labels, rows["learn"], rows["val"], recipe, SEED) for rows in dealt]
    key = digest(repr((keys, boosting.PARAMETERS)))[:8]
    files = {name: run.path("crossval", f"{name}.csv") for name in names}
    if all(file.exists() and _keys(file) == {key} for file in files.values()):
        _drop_networks(run, names[0])
        return {name: read_predictions(file) for name, file in files.items()}
    found = {name: np.zeros((len(table), len(CLASSES))) for name in names}
    for k, rows in enumerate(dealt, 1):
        network = build()
        fit(network, inputs, labels, rows["learn"], rows["val"], recipe, run.path("crossval", f"{names[0]}-{k}.pth"))
        for name, p in answers(network, rows).items():
            found[name][rows["test"]] = p
    note = "; ".join(filter(None, (note, f"{len(dealt)} folds")))
    tables = {
        name: write_predictions(files[name], table.assign(split="test"), p, note, key) for name, p in found.items()
    }
    _drop_networks(run, names[0])
    return tables


def _keys(file):
    try:
        return set(pd.read_csv(file, usecols=lambda name: name == "key", dtype=str).get("key", ()))
    except ValueError:  # no table, so not of these trainings
        return set()


def _drop_networks(run, name):
    """Once the answers are kept, nobody needs the folds' networks any more."""
    for file in (run.root / "crossval").glob(f"{name}-*.pth"):
        file.unlink()


def keep(predictions, run):
    """Put a run's accuracies into `KEPT`, a row a model and actor, in place of those of the same data and models."""
    write_table(KEPT, counted(predictions, run.title))


def counted(predictions, data):
    """`counts_by_actor` of a run's predictions, and with them what `KEPT` holds of other data and models."""
    counts = counts_by_actor(predictions, data)
    if not KEPT.exists():
        return counts
    kept = pd.read_csv(KEPT, keep_default_na=False)
    return pd.concat([counts, kept[~((kept["data"] == data) & kept["model"].isin(list(predictions)))]])


def main():
    run = open_run()
    table = read_frames(run.need("frames.csv", notebook="01_preprocess"))
    if not folds(table):
        raise UserError(
            f"{run.title} has fewer than three actors: cross-validation needs one each to learn, choose, test."
        )
    paths, folder = [run.root / path for path in table["path"]], run.path("features")
    trunk, (clips, _) = alexnet_trunk(weights()), find_clips(run.data, dropped=dropped(run.root))
    predictions: dict[str, pd.DataFrame] = {}
    for what, call in (
        ("the report's head", lambda: head(trunk_features(trunk, paths, folder), table, run, trunk.note)),
        ("the small CNN", lambda: small_cnn(crops(paths, folder, CNN_TRANSFORM), table, run)),
        ("the fine-tuned AlexNet", lambda: fine_tuned(crops(paths, folder, FACE_TRANSFORM), table, run)),
        ("landmarks over the clip", lambda: of_movement(landmarks.tracks(table, clips, run), table, run)),
    ):
        print(f"{what}, {len(folds(table))} folds:", flush=True)
        predictions |= call()
    keep(predictions, run)
    beyond.keep(run)
    for model, found in predictions.items():
        right = (found["predicted"] == found["label"]).mean()
        print(f"{model:<20}{right:>7.1%} of {len(found):,} frames of {found['actor'].nunique()} actors")
    print(f"Kept in {shown(KEPT)} and {shown(run.root / 'crossval')}/.")


if __name__ == "__main__":
    try:
        with alone(open_run().root):
            main()
    except (UserError, OSError) as problem:
        sys.exit(f"\n{problem}")
