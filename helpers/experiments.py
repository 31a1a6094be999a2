"""Two lessons that take many trainings: why to split by actor, and what each part of the better AlexNet brings.

`python -m helpers.experiments` (`make ablation`) runs the second over DATA and keeps its table in `data/ablation.csv`.
"""

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
from accelerate import Accelerator
from sklearn.model_selection import GroupShuffleSplit

from helpers.features import crops, digest
from helpers.frames import read_frames
from helpers.images import FACE_TRANSFORM, FIXED_TRANSFORM, FaceView
from helpers.networks import face_alexnet, report_head
from helpers.training import FINE_TUNING, Recipe, fit, labels_and_rows, precision, probabilities
from helpers.workspace import REPOSITORY, UserError, open_run, replacing, shown, weights

ABLATION = REPOSITORY / "data" / "ablation.csv"
# The ablation's trainings are short, so that three seeds of all of them take half an hour on two cores
SEEDS, EPOCHS, EVERY = (1, 2, 3), 3, 2  # every second frame of the training actors
# What is taken away from the recipe, or added to it, one thing at a time
CHANGES = {
    "the recipe as it is": {},
    "crop: the middle of every frame": {"crop": FIXED_TRANSFORM},
    "pictures in colour": {"view": {"grey": False}},
    "trunk frozen": {"frozen": True, "recipe": {"rates": (0.001,)}},
    "no augmentation": {"view": {"affine": 0, "light": 0}},
    "classes weighed by 1 / frequency": {"recipe": {"balanced": True}},
    "no smoothing, dropout, weight decay": {"dropout": 0.0, "recipe": {"label_smoothing": 0.0, "weight_decay": 0.0}},
    "not scaled as ImageNet's pictures": {"view": {"normalise": False}},
}
LEAK = Recipe(epochs=10, batch=64, keep="last")


def leakage(features, table, file, repeats=3):
    """The report's head, trained and tested on splits by frame, by clip and by actor, a fifth of them for the test.

    Parameters
    ----------
    features : Features of the report's trunk, for each row of `table`
    table : DataFrame of `frames.csv`, all actors; the models are thrown away, so nothing is learned of the test actors
    file : Path where the result is kept; it is read if it is of the same frames

    Returns a DataFrame, a row a training: split_by, repeat, train_accuracy, accuracy (of frames not trained on).
    """
    key = digest(repr((features.key, LEAK, repeats)))[:8]
    if file.exists() and (kept := pd.read_csv(file))["key"].eq(key).all():
        return kept.drop(columns="key")
    (labels, _), rows = labels_and_rows(table), []
    for by, groups in (("frame", table["path"]), ("clip", table["clip"]), ("actor", table["actor"])):
        splits = GroupShuffleSplit(repeats, test_size=0.2, random_state=0)
        for repeat, (train, test) in enumerate(splits.split(labels, groups=groups)):
            history = fit(report_head(repeat), features, labels, train, test, LEAK, seed=repeat).iloc[-1]
            rows.append([by, repeat, history["train_accuracy"], history["val_accuracy"], key])
    result = pd.DataFrame(rows, columns=["split_by", "repeat", "train_accuracy", "accuracy", "key"])
    with replacing(file) as target:
        result.to_csv(target, index=False)
    return result.drop(columns="key")


def ablation(run):
    """Train the better AlexNet with each of `CHANGES` and each of `SEEDS`; returns and keeps the table of `summary`.

    Each training is kept in the run's `ablation/`, so that a call that was cut off goes on where it was; the table is
    kept after each. Only the validation actors are looked at.
    """
    table = read_frames(run.need("frames.csv", notebook="01_preprocess"))
    paths = [run.root / path for path in table["path"]]
    (labels, split), rows = labels_and_rows(table), []
    for seed in SEEDS:
        for i, (what, change) in enumerate(CHANGES.items()):
            inputs = crops(paths, run.path("features"), change.get("crop", FACE_TRANSFORM))
            view = FaceView(**change.get("view", {}))
            network = face_alexnet(weights(), view, change.get("dropout", 0.5), change.get("frozen", False), seed)
            recipe = replace(FINE_TUNING, epochs=EPOCHS, **change.get("recipe", {}))
            file = run.path("ablation", f"{i:02d}-{seed}.pth")
            fit(network, inputs, labels, split["train"][::EVERY], split["val"][::EVERY], recipe, file, seed)
            p = probabilities(network, inputs, split["val"], mirrored=True)
            rows.append([what, seed, np.mean(p.argmax(1) == labels[split["val"]])])
            print(f"seed {seed}, {what}: {rows[-1][2]:.1%} of validation frames", flush=True)
            result = summary(pd.DataFrame(rows, columns=["what", "seed", "accuracy"]))
            result["data"] = f"{run.title}, {network.note}" if network.note else run.title
            result["epochs"], result["training_frames"] = EPOCHS, len(split["train"][::EVERY])
            result["precision"] = Accelerator(mixed_precision=precision()).mixed_precision.replace("no", "fp32")
            with replacing(ABLATION) as target:
                result.round(4).to_csv(target)
    return result


def summary(trainings):
    """Mean, least and most of each change's validation accuracies, and the mean's difference to the first row's."""
    grouped = trainings.groupby("what", sort=False)["accuracy"]
    table = grouped.agg(seeds="size", mean="mean", least="min", most="max")
    return table.assign(difference=table["mean"] - table["mean"].iloc[0])


if __name__ == "__main__":
    try:
        print(ablation(open_run()).round(3).to_string(), f"\n\nKept in {shown(ABLATION)}.")
    except UserError as problem:
        sys.exit(f"\n{problem}")
