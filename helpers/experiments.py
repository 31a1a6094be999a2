"""Two lessons that take many trainings: why to split by actor, and what each part of the fine-tuned AlexNet brings.

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
from helpers.training import FINE_TUNING, Recipe, fit, labels_and_rows, precision, probabilities, training_key
from helpers.workspace import REPOSITORY, UserError, alone, open_run, shown, weights, write_table

ABLATION = REPOSITORY / "data" / "ablation.csv"
SEEDS = (1, 2, 3)
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
    write_table(file, result)
    return result.drop(columns="key")


def ablation(run):
    """Train the fine-tuned AlexNet with each of `CHANGES` and each of `SEEDS`; returns the table of `ABLATION`.

    That has a row a training: what, seed, accuracy of validation frames (mirrored, as in 02), data, epochs,
    training_frames, precision, key. A training whose row is there already is not made again, on whatever machine it
    was made; one that was cut off goes on from its checkpoint. Only the validation actors are looked at.
    """
    table = read_frames(run.need("frames.csv", notebook="01_preprocess"))
    paths = [run.root / path for path in table["path"]]
    labels, split = labels_and_rows(table)
    rows = pd.read_csv(ABLATION).set_index("key").to_dict("index") if ABLATION.exists() else {}
    trainings = {}
    for seed in SEEDS:
        for what, change in CHANGES.items():
            inputs = crops(paths, run.path("features"), change.get("crop", FACE_TRANSFORM))
            view = FaceView(**change.get("view", {}))
            network = face_alexnet(weights(), view, change.get("dropout", 0.5), change.get("frozen", False), seed)
            recipe = replace(FINE_TUNING, **change.get("recipe", {}))
            training = network, inputs, labels, split["train"], split["val"], recipe
            trainings[training_key(*training, seed)] = what, seed, training
    for key, (what, seed, training) in trainings.items():
        if key not in rows:
            fit(*training, run.path("ablation", f"{key}.pth"), seed)
            network, inputs = training[:2]
            p = probabilities(network, inputs, split["val"], mirrored=True)
            rows[key] = {
                "what": what,
                "seed": seed,
                "accuracy": round(float(np.mean(p.argmax(1) == labels[split["val"]])), 4),
                "data": f"{run.title}, {network.note}" if network.note else run.title,
                "epochs": FINE_TUNING.epochs,
                "training_frames": len(split["train"]),
                "precision": Accelerator(mixed_precision=precision()).mixed_precision.replace("no", "fp32"),
            }
            write_table(ABLATION, pd.DataFrame([rows[k] | {"key": k} for k in trainings if k in rows]))
        print("seed {seed}, {what}: {accuracy:.1%} of validation frames".format(**rows[key]), flush=True)
    return pd.DataFrame([rows[key] | {"key": key} for key in trainings])


def summary(trainings):
    """Of `ablation`'s table: seeds, mean, least and most accuracy of each change, and its difference to the recipe.

    The difference is the mean of those to the recipe with the same seed; seeds that the recipe lacks do not count.
    """
    recipe = trainings[trainings["what"] == trainings["what"].iloc[0]].set_index("seed")["accuracy"]
    trainings = trainings.assign(difference=trainings["accuracy"] - trainings["seed"].map(recipe))
    return trainings.groupby("what", sort=False).agg(
        seeds=("seed", "size"),
        mean=("accuracy", "mean"),
        least=("accuracy", "min"),
        most=("accuracy", "max"),
        difference=("difference", "mean"),
    )


if __name__ == "__main__":
    try:
        with alone(open_run().root):
            print(summary(ablation(open_run())).round(3).to_string(), f"\n\nKept in {shown(ABLATION)}.")
    except (UserError, OSError) as problem:
        sys.exit(f"\n{problem}")
