"""Training the report's network: the frozen trunk once per frame, kept on disk; then the head, as often as one likes.

The recipe is the report's: learning rate 0.001, batches of 32, 85 epochs, and the epoch of lowest validation loss is
kept. It does not name its optimiser; here it is Adam.
"""

import copy
import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from helpers.images import REPORT_TRANSFORM, FrameDataset
from helpers.networks import HEAD_SIZES, fingerprint
from helpers.workspace import SEED, UserError

LEARNING_RATE, BATCH, EPOCHS = 0.001, 32, 85
RARER = ("neutral", "happy", "sad", "disgust")  # emotions whose frames the report counts twice, see report_2020.json


HISTORY = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy"]


def device():
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def trunk_features(trunk, paths, folder, transform=REPORT_TRANSFORM):
    """What a trunk gives for each picture, computed once and kept in a file of float16.

    A feature is found again by the trunk's weights, the transform and the picture's content, so nothing stale is ever
    reused. The file only grows, a batch at a time, its index after it: cut off and run again, it goes on.

    Returns
    -------
    features : memory-mapped array (m, 25600), float16
    rows : array (n,), the row of `features` that belongs to each path
    """
    name = f"alexnet-{fingerprint(trunk)}-{hashlib.sha256(repr(transform).encode()).hexdigest()[:8]}"
    file, index = Path(folder) / f"{name}.float16", Path(folder) / f"{name}.index"
    file.parent.mkdir(parents=True, exist_ok=True)
    digests = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths]
    known = _known(file, index)
    todo = {digest: path for digest, path in zip(digests, paths, strict=True) if digest not in known}
    batches = torch.utils.data.DataLoader(FrameDataset(todo.values(), transform), batch_size=BATCH) if todo else []
    trunk, fresh = trunk.to(device()), iter(todo)
    with open(file, "ab") as numbers, open(index, "a", encoding="ascii") as names, torch.inference_mode():
        for batch in tqdm(batches, desc="trunk", unit="batch", file=sys.stdout, mininterval=0.5, disable=not todo):
            numbers.write(trunk(batch.to(device())).flatten(1).half().cpu().numpy().tobytes())
            numbers.flush()
            names.writelines(next(fresh) + "\n" for _ in batch)
            names.flush()
    known = _known(file, index)
    features = np.memmap(file, np.float16, "r", shape=(len(known), HEAD_SIZES[0]))
    return features, np.array([known[digest] for digest in digests])


def fit_head(head, features, rows, labels, train, val, epochs=EPOCHS, seed=SEED):
    """Train a head on kept features, and leave it as it was after the epoch of lowest validation loss.

    Parameters
    ----------
    features, rows : as `trunk_features` gives them
    labels : int array (n,), a place in `CLASSES` for each row
    train, val : int arrays, which of the n to learn from (one may stand there twice) and which to choose the epoch by

    Returns the history, a row an epoch: epoch, train_loss, train_accuracy, val_loss, val_accuracy; losses are mean
    cross-entropies in nats, those of training taken during the epoch. UserError if the loss stops being a number.
    """
    labels, train = torch.as_tensor(labels), torch.as_tensor(train)
    optimiser = torch.optim.Adam(head.parameters(), lr=LEARNING_RATE)
    shuffle = torch.Generator().manual_seed(seed)
    history, best = [], None
    for epoch in tqdm(range(1, epochs + 1), desc="head", unit="epoch", file=sys.stdout, mininterval=0.5):
        head.train()
        total_loss, correct = 0.0, 0
        for chosen in train[torch.randperm(len(train), generator=shuffle)].split(BATCH):
            logits, truth = head(_batch(features, rows, chosen)), labels[chosen].to(device())
            loss = nn.functional.cross_entropy(logits, truth)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total_loss += loss.item() * len(chosen)
            correct += (logits.argmax(1) == truth).sum().item()
        p = np.clip(probabilities(head, features, rows[val]), 1e-12, 1)
        val_loss = -np.log(p[np.arange(len(val)), labels[val]]).mean()
        history.append([epoch, total_loss / len(train), correct / len(train), val_loss, (p.argmax(1) == labels[val].numpy()).mean()])
        if not np.isfinite(total_loss + val_loss):
            raise UserError(f"The loss was no number in epoch {epoch}: nothing was kept; lower the learning rate.")
        if best is None or val_loss < best[0]:
            best = val_loss, copy.deepcopy(head.state_dict())
    head.load_state_dict(best[1])
    return pd.DataFrame(history, columns=HISTORY)


def probabilities(head, features, rows):
    """A head's class probabilities: float array (n, 5), columns in the order of `CLASSES`."""
    head.eval()
    with torch.inference_mode():
        chunks = [head(_batch(features, rows, i)).softmax(1).cpu().double() for i in torch.arange(len(rows)).split(512)]
    return torch.cat(chunks).numpy()


def doubled(frames, chosen):
    """The report's training set: `chosen` rows of `frames`, those of its rarer emotions (`RARER`) twice."""
    return np.concatenate([chosen, chosen[frames["emotion"].iloc[chosen].isin(RARER)]])


def _batch(features, rows, chosen):
    return torch.from_numpy(features[rows[chosen]]).to(device()).float()


def _known(file, index):
    """The row of each digest; what a kill left half-written at the end of either file is cut off."""
    width = HEAD_SIZES[0] * 2
    if not file.exists() or not index.exists():
        return {}
    names = index.read_text("ascii").split("\n")[:-1][: file.stat().st_size // width]
    os.truncate(file, len(names) * width)
    os.truncate(index, len(names) * 65)
    return {name: row for row, name in enumerate(names)}
