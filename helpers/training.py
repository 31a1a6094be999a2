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
from helpers.workspace import SEED, UserError, replacing

LEARNING_RATE, BATCH, EPOCHS = 0.001, 32, 85
HISTORY = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy"]


def device():
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Features:
    """What a trunk gives for n pictures: `features[indices]` is a float tensor (m, 25600) on the device.

    The numbers stay on disk, as float16; `key` changes with any of them.
    """

    def __init__(self, table, rows, key):
        self.table, self.rows, self.key = table, rows, key

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, indices):
        return torch.from_numpy(self.table[self.rows[indices]]).to(device()).float()


def trunk_features(trunk, paths, folder, transform=REPORT_TRANSFORM):
    """Run a trunk once over each picture and keep what it gives in a memory-mapped file; returns `Features`.

    A picture's numbers are found again by the trunk's weights, the transform and the picture's content, so nothing
    stale is ever reused. The file only grows, a batch at a time, its index after it: cut off and run again, it goes on.
    """
    name = f"alexnet-{fingerprint(trunk)}-{_hash(repr(transform))[:8]}"
    file, index = Path(folder) / f"{name}.float16", Path(folder) / f"{name}.index"
    file.parent.mkdir(parents=True, exist_ok=True)
    digests = [_hash(Path(path).read_bytes()) for path in paths]
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
    table = np.memmap(file, np.float16, "r", shape=(len(known), HEAD_SIZES[0]))
    return Features(table, np.array([known[digest] for digest in digests]), _hash(name + "".join(digests)))


def fit_head(head, features, labels, train, val, epochs=EPOCHS, seed=SEED):
    """Train a head on a trunk's features, and leave it as it was after the epoch of lowest validation loss.

    Parameters
    ----------
    features : Features of n pictures
    labels : int array (n,), a place in `CLASSES` for each picture
    train, val : int arrays, which of the n to learn from, and which to choose the epoch by

    Returns the history, a row an epoch: epoch, train_loss, train_accuracy, val_loss, val_accuracy; losses are mean
    cross-entropies in nats, those of training taken during the epoch. UserError if the loss stops being a number.
    """
    if not len(train) or not len(val):
        raise UserError(
            "There are no frames of training or of validation actors (1-14, 15-19): DATA needs clips of both."
        )
    truth = torch.as_tensor(labels, device=device())
    head.to(device())
    optimiser = torch.optim.Adam(head.parameters(), lr=LEARNING_RATE, fused=True)
    shuffle = torch.Generator().manual_seed(seed)
    history, best = [], None
    for epoch in tqdm(range(1, epochs + 1), desc="head", unit="epoch", file=sys.stdout, mininterval=0.5):
        head.train()
        total_loss, correct = 0.0, 0
        for order in torch.randperm(len(train), generator=shuffle).split(BATCH):
            chosen = train[order]
            logits = head(features[chosen])
            loss = nn.functional.cross_entropy(logits, truth[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total_loss += loss.item() * len(chosen)
            correct += (logits.argmax(1) == truth[chosen]).sum().item()
        p = probabilities(head, features, val)
        val_loss = -np.log(np.clip(p[np.arange(len(val)), labels[val]], 1e-12, 1)).mean()
        if not np.isfinite(total_loss + val_loss):
            raise UserError(f"The loss was no number in epoch {epoch}: nothing was kept; lower the learning rate.")
        history.append(
            [epoch, total_loss / len(train), correct / len(train), val_loss, np.mean(p.argmax(1) == labels[val])]
        )
        if best is None or val_loss < best[0]:
            best = val_loss, copy.deepcopy(head.state_dict())
    head.load_state_dict(best[1])
    return pd.DataFrame(history, columns=HISTORY)


def fit_head_once(head, features, labels, train, val, model_file, history_file, epochs=EPOCHS, seed=SEED):
    """`fit_head`, kept on disk: called again with the same of everything, it reads what it found before."""
    settings = [repr((LEARNING_RATE, BATCH, epochs, seed, str(head))), features.key]
    key = _hash("".join(settings).encode() + b"".join(np.asarray(a, "int64").tobytes() for a in (labels, train, val)))
    if model_file.exists() and history_file.exists():
        kept = torch.load(model_file, map_location="cpu", weights_only=True)
        if kept["key"] == key:
            head.load_state_dict(kept["head"])
            head.to(device())
            return pd.read_csv(history_file)
    history = fit_head(head, features, labels, train, val, epochs, seed)
    with replacing(history_file) as file:
        history.to_csv(file, index=False)
    with replacing(model_file, "wb") as file:
        torch.save({"key": key, "head": {name: weight.cpu() for name, weight in head.state_dict().items()}}, file)
    return history


def probabilities(head, features, chosen=None):
    """A head's class probabilities, for all pictures or those chosen: float array (m, 5), in the order of `CLASSES`."""
    head.eval()
    chosen = np.arange(len(features)) if chosen is None else np.asarray(chosen)
    with torch.inference_mode():
        parts = [head(features[chosen[i : i + 512]]).cpu().double().softmax(1) for i in range(0, len(chosen), 512)]
    return torch.cat(parts).numpy()


def _hash(content):
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def _known(file, index):
    """The row of each digest; what a kill left half-written at the end of either file is cut off."""
    width = HEAD_SIZES[0] * 2
    if not file.exists() or not index.exists():
        return {}
    names = index.read_text("ascii").split("\n")[:-1][: file.stat().st_size // width]
    os.truncate(file, len(names) * width)
    os.truncate(index, len(names) * 65)
    return {name: row for row, name in enumerate(names)}
