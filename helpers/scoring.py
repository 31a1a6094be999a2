"""Tables of predictions, and how they are scored. Nothing here knows a network or a clip.

Every model ends in `predictions/<model>.csv`, a row a frame, with `COLUMNS`; so any model can be compared with any
other. `note` says in a few words what a reader must know of every number that comes of the file ("random trunk",
"SIMULATED"); it is empty for an honest measurement with nothing to add.
"""

import re

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, recall_score

from helpers.ravdess import CLASSES, SPLITS
from helpers.workspace import UserError, shown, write_table

PROBABILITIES = [f"p_{name}" for name in CLASSES]
NO_CLASS = "no class"  # predicted where a model named none of the five: always a miss
MOST = 1_000_000  # rows: more than a hundred times as many as RAVDESS has frames
COLUMNS = ["path", "clip", "actor", "split", "label", "predicted", *PROBABILITIES, "note"]


def write_predictions(path, frames, probabilities, note="", key=None):
    """Write a model's predictions and return them as a table.

    Parameters
    ----------
    frames : DataFrame (n rows) of `frames.csv`
    probabilities : array (n, 5), columns in the order of `CLASSES`; a row of zeros is no answer, and so a miss
    note : what every number that comes of these must be read with
    key : written into a column of that name, to tell later whether they are of the same training; none without it
    """
    table = frames[["path", "clip", "actor", "split", "label"]].reset_index(drop=True)
    table["predicted"] = _named(probabilities)
    table[PROBABILITIES] = np.round(probabilities, 6)
    table["note"] = note
    write_table(path, table.assign(key=key) if key else table)
    return table


def read_predictions(path):
    """Read one model's predictions; UserError if it is no such table."""
    try:
        large = path.stat().st_size > MOST * 200  # bytes that a row has, about
        table = pd.read_csv(path, keep_default_na=False, nrows=0 if large else MOST + 1)
    except (ValueError, OSError) as problem:  # pandas has several names for a file that is no table
        reason = str(problem).splitlines()[0].rstrip(".")
        raise UserError(f"{shown(path)} cannot be read ({reason}): write it with write_predictions.") from None
    if large or len(table) > MOST:
        raise UserError(f"{shown(path)} has more than {MOST:,} rows: a row a frame is all that it may have.")
    if missing := [column for column in COLUMNS if column not in table]:
        raise UserError(f"{shown(path)} lacks the columns {', '.join(missing)}: write it with write_predictions.")
    if unknown := sorted((set(table["label"]) | set(table["predicted"]) - {NO_CLASS}) - set(CLASSES)):
        raise UserError(f"{shown(path)} has classes that are not ours: {', '.join(map(str, unknown))}.")
    if not len(table):
        raise UserError(f"{shown(path)} has no frames: run the notebook that writes it again, or delete it.")
    try:
        table[PROBABILITIES] = table[PROBABILITIES].astype(float)
    except ValueError as problem:
        raise UserError(f"{shown(path)} has a probability that is no number ({problem}).") from None
    given = table[PROBABILITIES]
    right = np.isclose(given.sum(axis=1), (table["predicted"] != NO_CLASS).astype(float), atol=1e-4)
    if wrong := int((~(right & (given >= -1e-4).all(axis=1))).sum()):
        raise UserError(
            f"{shown(path)} has {wrong} frames whose probabilities are none, or do not add up to 1 (to 0 for "
            f"“{NO_CLASS}”): write it with write_predictions."
        )
    if twice := int(table["path"].duplicated().sum()):
        raise UserError(f"{shown(path)} has {twice} frames more than once: each frame may stand there once.")
    return table[COLUMNS]


def differing(table, frames, split=True):
    """What of a model's predictions does not fit `frames.csv`, in a few words; "" if all does. Frames may be lacking.

    `split` is whether the split has to be the same too; that of a cross-validation is "test" throughout.
    """
    known = frames.set_index("path")
    if unknown := int((~table["path"].isin(known.index)).sum()):
        return f"{unknown:,} frames that frames.csv does not have"
    of = known.loc[table["path"]]
    names = ["clip", "actor", "label", *(["split"] if split else [])]
    wrong = (of[names].astype(str).to_numpy() != table[names].astype(str).to_numpy()).any(axis=1)
    return f"{wrong.sum():,} frames of another clip, actor, class or split than in frames.csv" if wrong.any() else ""


def data_of(title, table):
    """The data that a model's numbers are of, by name, with what its note says: for headings and sentences."""
    note = re.sub(r"(^|; )(\w+16; )?\d+ folds$", "", table["note"].iloc[0])  # that of a cross-validation says how
    return f"{title}, {note}" if note else title


def _named(probabilities):
    return np.where(np.any(probabilities, axis=1), np.array(CLASSES)[np.argmax(probabilities, axis=1)], NO_CLASS)


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


def by_clip(table):
    """Whole clips instead of frames, each by the mean of its frames' probabilities: predictions, a row a clip.

    Where the frames have no probability for any class, neither has the clip, and it is a miss.
    """
    first = dict.fromkeys(["actor", "split", "label", "note"], "first")
    clips = table.groupby("clip", as_index=False).agg(first | dict.fromkeys(PROBABILITIES, "mean"))
    clips["predicted"], clips["path"] = _named(clips[PROBABILITIES].to_numpy()), clips["clip"]
    return clips[COLUMNS]


def clip_accuracy(table, split):
    """The share of a split's clips that `by_clip` names right."""
    clips = by_clip(table[table["split"] == split])
    return float((clips["predicted"] == clips["label"]).mean())


def counts_by_actor(predictions, data):
    """Of several models' predictions: DataFrame with data, model, actor, frames, right, clips, clips_right, note."""
    parts = []
    for model, table in predictions.items():
        clips = by_clip(table)
        frames = (table["predicted"] == table["label"]).groupby(table["actor"]).agg(frames="size", right="sum")
        whole = (clips["predicted"] == clips["label"]).groupby(clips["actor"]).agg(clips="size", clips_right="sum")
        counts = frames.join(whole).reset_index().assign(note=table["note"].iloc[0])
        parts.append(counts.assign(data=data, model=model))
    names = ["data", "model", "actor", "frames", "right", "clips", "clips_right", "note"]
    return pd.concat(parts, ignore_index=True)[names] if parts else pd.DataFrame(columns=names)


def confusion(table, split):
    """Counts of frames, rows the true class, columns the predicted one, as in the report's tables (without totals).

    A sixth column, "no class", is there where the model named none of the five at least once.
    """
    part = table[table["split"] == split]
    counts = pd.crosstab(part["label"].to_numpy(), part["predicted"].to_numpy())
    names = [*CLASSES, NO_CLASS] if NO_CLASS in counts else list(CLASSES)
    return pd.DataFrame(counts, list(CLASSES), names).fillna(0).astype(int).rename_axis(index=None, columns=None)


def with_totals(counts):
    """A confusion matrix with the report's Total row and column."""
    table = counts.copy()
    table["Total"] = table.sum(axis=1)
    table.loc["Total"] = table.sum()
    return table


def right_of_all(counts):
    """(right, all) of a confusion matrix."""
    return int(np.trace(counts.to_numpy())), int(counts.to_numpy().sum())
