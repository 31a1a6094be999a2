"""From predictions to numbers: tables in, tables out. Nothing here knows a network or a clip.

Every model ends in `predictions/<model>.csv`, a row a frame, with `COLUMNS`; so any model can be compared with any
other. `note` says in a few words what a reader must know of every number that comes of the file ("random trunk",
"SIMULATED"); it is empty for an honest measurement with nothing to add.
"""

import json

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, confusion_matrix, recall_score

from helpers.ravdess import CLASSES
from helpers.workspace import REPOSITORY, UserError, replacing, shown

PROBABILITIES = [f"p_{name}" for name in CLASSES]
COLUMNS = ["path", "clip", "actor", "split", "label", "predicted", *PROBABILITIES, "note"]
SPLITS = {"train": "training", "val": "validation", "test": "test"}


def write_predictions(path, frames, probabilities, note=""):
    """Write a model's predictions and return them as a table.

    Parameters
    ----------
    frames : DataFrame (n rows) of `frames.csv`
    probabilities : array (n, 5), columns in the order of `CLASSES`
    note : what every number that comes of these must be read with
    """
    table = frames[["path", "clip", "actor", "split", "label"]].reset_index(drop=True)
    table["predicted"] = np.array(CLASSES)[np.argmax(probabilities, axis=1)]
    table[PROBABILITIES] = np.round(probabilities, 6)
    table["note"] = note
    with replacing(path) as file:
        table.to_csv(file, index=False)
    return table


def read_predictions(path):
    """Read one model's predictions; UserError if it is no such table."""
    table = pd.read_csv(path, keep_default_na=False)
    if missing := [column for column in COLUMNS if column not in table]:
        raise UserError(f"{shown(path)} lacks the columns {', '.join(missing)}: write it with write_predictions.")
    if unknown := sorted(set(table["label"]) | set(table["predicted"]) - set(CLASSES) - {""}):
        if unknown := [name for name in unknown if name not in CLASSES]:
            raise UserError(f"{shown(path)} has classes that are not ours: {', '.join(map(str, unknown))}.")
    if twice := int(table["path"].duplicated().sum()):
        raise UserError(f"{shown(path)} has {twice} frames more than once: each frame may stand there once.")
    return table


def read_all_predictions(folder):
    """Every `<model>.csv` in a folder: {model: table}, in alphabetical order."""
    return {path.stem: read_predictions(path) for path in sorted(folder.glob("*.csv"))}


def scores(table):
    """A row a split: split, frames, accuracy, macro_recall (the mean of the classes' recalls, 0.2 by chance), note."""
    rows = []
    for split in SPLITS:
        part = table[table["split"] == split]
        if len(part):
            truth, predicted = part["label"], part["predicted"]
            recall = recall_score(truth, predicted, labels=sorted(set(truth)), average="macro", zero_division=0)
            rows.append([split, len(part), accuracy_score(truth, predicted), recall, part["note"].iloc[0]])
    return pd.DataFrame(rows, columns=["split", "frames", "accuracy", "macro_recall", "note"])


def clip_accuracy(table, split):
    """The share of a split's clips that are named right by the mean of their frames' probabilities."""
    part = table[table["split"] == split]
    clips = part.groupby("clip").agg({"label": "first", **dict.fromkeys(PROBABILITIES, "mean")})
    return float((np.array(CLASSES)[clips[PROBABILITIES].to_numpy().argmax(1)] == clips["label"]).mean())


def confusion(table, split):
    """Counts of frames, rows the true class, columns the predicted one, as in the report's tables (without totals)."""
    part = table[table["split"] == split]
    counts = confusion_matrix(part["label"], part["predicted"], labels=list(CLASSES))
    return pd.DataFrame(counts, index=CLASSES, columns=CLASSES)


def with_totals(counts):
    """A confusion matrix with the report's Total row and column."""
    table = counts.copy()
    table["Total"] = table.sum(axis=1)
    table.loc["Total"] = table.sum()
    return table


def report_2020():
    """What the 2020 report published: {"frames": {split: Series}, "confusion": {split: DataFrame}, "accuracy": …}."""
    published = json.loads((REPOSITORY / "data" / "report_2020.json").read_text("utf-8"))
    classes = published["classes"]
    published["frames"] = {split: pd.Series(n, classes) for split, n in published["frames"].items()}
    published["confusion"] = {split: pd.DataFrame(m, classes, classes) for split, m in published["confusion"].items()}
    return published


def recomputed_accuracy(counts):
    """(right, all) of a confusion matrix: the report's accuracies follow from its own matrices."""
    return int(np.trace(counts.to_numpy())), int(counts.to_numpy().sum())


def markdown(table, **formats):
    """A DataFrame as a Markdown table; `formats` gives a format per column, such as `accuracy="{:.1%}"`."""
    shown_table = table.copy().astype(object)
    for column, form in formats.items():
        shown_table[column] = [form.format(value) for value in table[column]]
    head = [table.index.name or "", *table.columns] if table.index.dtype == object else list(table.columns)
    rows = shown_table.reset_index().to_numpy() if len(head) > len(table.columns) else shown_table.to_numpy()
    lines = [head, ["-"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
