"""Whether a model's probabilities mean what they say: of the frames that it is 70 % sure of, are 70 % right?

Guo, Pleiss, Sun and Weinberger, 2017, arXiv:1706.04599. Tables as in `helpers.scoring`; frames without any answer
(“no class”) are left out.
"""

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.metrics import log_loss

from helpers.ravdess import CLASSES
from helpers.scoring import NO_CLASS, PROBABILITIES

BINS = 10
LEAST = 1e-6  # a probability below counts as this: predictions are kept to six decimals


def reliability(table, split="test", bins=BINS):
    """How right a model is where it is how sure: DataFrame, a row a bin with frames in it.

    The bins part 0..1 equally; columns are low, high, frames, confidence (mean probability of the predicted class),
    accuracy.
    """
    part = _answered(table, split)
    confidence, right = part[PROBABILITIES].max(axis=1), part["predicted"] == part["label"]
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    rows = pd.DataFrame({"place": place, "confidence": confidence, "accuracy": right.astype(float)}).groupby("place")
    found = rows.mean().assign(frames=rows.size()).reset_index()
    found["low"], found["high"] = found["place"] / bins, (found["place"] + 1) / bins
    return found[["low", "high", "frames", "confidence", "accuracy"]]


def calibration_error(table, split="test", bins=BINS):
    """Expected calibration error: the mean distance of accuracy and confidence over `reliability`'s bins, by frames."""
    found = reliability(table, split, bins)
    return float(np.average((found["accuracy"] - found["confidence"]).abs(), weights=found["frames"]))


def temperature(table, split="val"):
    """The one number that the logits are divided by for the lowest log loss on a split; above 1: it was too sure."""
    part = _answered(table, split)
    loss = lambda t: log_loss(part["label"], _tempered(part, t), labels=list(CLASSES))  # noqa: E731
    return float(np.exp(minimize_scalar(lambda x: loss(np.exp(x)), bounds=(-3, 3), method="bounded").x))


def with_temperature(table, t):
    """The same predictions with their probabilities made softer (t above 1) or sharper; what is predicted stays."""
    tempered = table.copy()
    answered = table["predicted"] != NO_CLASS
    tempered.loc[answered, PROBABILITIES] = _tempered(table[answered], t)
    return tempered


def summary(predictions):
    """Of each model, as text: frames, expected calibration error and log loss on test frames, before and after one
    temperature fitted on the validation frames. DataFrame; models without answers on either split are left out.
    """
    rows = []
    for model, table in predictions.items():
        if len(_answered(table, "val")) and len(part := _answered(table, "test")):
            t = temperature(table)
            cells = [model, f"{len(part):,}", f"{t:.2f}"]
            for version in (table, with_temperature(table, t)):
                part = _answered(version, "test")
                loss = log_loss(part["label"], _tempered(part, 1), labels=list(CLASSES))
                cells += [f"{calibration_error(version):.1%}", f"{loss:.2f}"]
            rows.append([*cells, table["note"].iloc[0]])
    names = ["Model", "Frames", "Temperature", "Error", "Log loss", "Error after", "Log loss after", "Note"]
    return pd.DataFrame(rows, columns=names)


def _answered(table, split):
    return table[(table["split"] == split) & (table["predicted"] != NO_CLASS)]


def _tempered(table, t):
    return np.exp(log_softmax(np.log(table[PROBABILITIES].to_numpy(float).clip(LEAST)) / t, axis=1))
