"""Boosted trees (LightGBM) on what a network gives: of a frame, or of a whole clip.

The 2020 team gave its CNN's outputs to LightGBM and found no significant gain; its numbers are not in the report.
LightGBM: Ke et al., 2017, NeurIPS 30.
"""

import lightgbm
import numpy as np
import pandas as pd
import torch
from torch import nn

from helpers.ravdess import CLASSES
from helpers.training import outputs
from helpers.workspace import SEED, UserError, replacing

ROUNDS, PATIENCE = 1000, 50  # at most so many rounds; it stops when so many have not lowered the validation loss
PARAMETERS = {
    "objective": "multiclass", "num_class": len(CLASSES), "metric": "multi_logloss", "learning_rate": 0.05,
    "num_leaves": 15, "min_data_in_leaf": 20, "feature_fraction": 0.7, "bagging_fraction": 0.7, "bagging_freq": 1,
    # the same numbers from the same seed, whatever the number of threads
    "deterministic": True, "force_row_wise": True, "verbosity": -1,
}  # fmt: skip


def network_features(network, inputs):
    """What a network gives for n pictures: its last hidden layer and its five scores, a DataFrame (n, hidden + 5)."""
    last = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    hidden = []
    hook = last.register_forward_hook(lambda layer, given, scores: hidden.append(given[0].float().cpu()))
    try:
        scores = outputs(network, inputs)
    finally:
        hook.remove()
    names = [*(f"hidden_{i}" for i in range(last.in_features)), *(f"score_{name}" for name in CLASSES)]
    return pd.DataFrame(np.hstack([torch.cat(hidden).numpy(), scores]), columns=names)


def clip_summaries(features, clips):
    """Mean, spread and extremes of each feature over each clip's frames: DataFrame, a row a clip, in order of clip."""
    grouped = features.groupby(np.asarray(clips))
    parts = {"mean": grouped.mean(), "spread": grouped.std(ddof=0), "least": grouped.min(), "most": grouped.max()}
    return pd.concat([part.add_prefix(f"{what}_of_") for what, part in parts.items()], axis=1)


def fit_trees(features, labels, train, val, file=None, seed=SEED):
    """Boost trees on the rows `train`, for as many rounds as lower the loss on the rows `val`; returns the Booster.

    Parameters
    ----------
    features : DataFrame (n, f)
    labels : int array (n,), places in `CLASSES`
    file : Path, where the trees are kept as LightGBM's text; nothing is read from there
    """
    if not len(train) or not len(val):
        raise UserError("There are no frames of training or of validation actors (1-14, 15-19): DATA needs both.")
    learn, choose = (lightgbm.Dataset(features.iloc[rows], labels[rows]) for rows in (train, val))
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    trees = lightgbm.train({**PARAMETERS, "seed": seed}, learn, ROUNDS, valid_sets=[choose], callbacks=[stop])
    if file:
        with replacing(file) as target:
            target.write(trees.model_to_string(num_iteration=trees.best_iteration))
    return trees


def count(trees):
    """(rounds, trees, leaves) that are used for a prediction."""
    used = trees.dump_model(num_iteration=trees.best_iteration)["tree_info"]
    return trees.best_iteration, len(used), sum(tree["num_leaves"] for tree in used)


def importance(trees):
    """How much each feature lowered the training loss where a tree split on it, as a share: Series, descending."""
    gain = pd.Series(trees.feature_importance("gain", iteration=trees.best_iteration), trees.feature_name())
    return (gain / max(gain.sum(), 1e-12)).sort_values(ascending=False)
