"""One loop trains every network here: the report's head, the fine-tuned AlexNet, and the small CNN.

accelerate carries the device, the precision (mixed on a GPU) and, under `torchrun` or `accelerate launch`, several
processes. Checkpoints are kept between epochs, so that a training that was cut off goes on and ends where it would have
ended: the random numbers of an epoch hang on the seed and the epoch alone.
"""

import copy
import io
import logging
import math
import sys
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch import nn
from tqdm import tqdm

from helpers.features import device, digest
from helpers.ravdess import CLASSES, SPLITS
from helpers.workspace import SEED, UserError, replacing, shown

log = logging.getLogger(__name__)

INTERVAL = 30  # seconds between checkpoints, at least; the last epoch is always kept
HISTORY = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy"]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. The defaults are the report's; it does not name its optimiser, here it is Adam."""

    epochs: int = 85
    batch: int = 32  # pictures a step, over all processes together
    rates: tuple = (0.001,)  # learning rates: one, or one for each part of the network that learns
    one_cycle: bool = False  # the rates rise over the first 15 % of the steps and then fall to 0, after a cosine
    weight_decay: float = 0.0  # as in AdamW (Loshchilov and Hutter, 2019, arXiv:1711.05101)
    label_smoothing: float = 0.0
    balanced: bool = False  # the loss weighs each class by 1 / its frequency
    keep: str = "val_loss"  # the epoch that is kept: "val_loss", "val_accuracy" or "last"


REPORT = Recipe()
FINE_TUNING = Recipe(
    epochs=6,
    batch=32,
    rates=(0.0003, 0.001),
    one_cycle=True,
    weight_decay=0.05,
    label_smoothing=0.1,
    keep="val_accuracy",
)
SMALL_CNN = Recipe(epochs=20, keep="val_accuracy")


def fit(network, inputs, labels, train, val, recipe=REPORT, file=None, seed=SEED):
    """Train a network, and leave it as it was after the epoch that the recipe keeps.

    Parameters
    ----------
    network : nn.Module whose children with weights that learn are its parts; inputs to logits (n, 5)
    inputs : Features of n pictures, or anything else that gives a float tensor for an array of indices
    labels : int array (n,), a place in `CLASSES` for each picture
    train, val : int arrays, which of the n to learn from (twice if it stands there twice), and to choose the epoch by
    file : Path of a checkpoint; a second call with the same of everything goes on from there, or reads what it found

    Returns the history, a row an epoch: epoch, train_loss, train_accuracy, val_loss, val_accuracy; losses are mean
    cross-entropies in nats, those of training as they are minimised (weighted, smoothed) and taken during the epoch.
    UserError if there is nothing to learn from, the loss stops being a number, or the checkpoint is no such.
    """
    if not len(train) or not len(val):
        raise UserError("There are no frames of training or of validation actors (1-14, 15-19): DATA needs both.")
    accelerator = Accelerator(mixed_precision=precision())
    key = training_key(network, inputs, labels, train, val, recipe, seed)
    truth = torch.as_tensor(np.asarray(labels), device=accelerator.device)
    parts = [part for part in network.children() if any(weight.requires_grad for weight in part.parameters())]
    parts = parts if len(recipe.rates) > 1 else [network]
    groups = [{"params": part.parameters(), "lr": rate} for part, rate in zip(parts, recipe.rates, strict=True)]
    optimiser = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=True)
    model, optimiser = accelerator.prepare(network, optimiser)
    frequency = np.bincount(labels[train], minlength=len(CLASSES)) if recipe.balanced else np.ones(len(CLASSES))
    weight = torch.tensor(frequency.mean() / frequency.clip(1), dtype=torch.float32, device=accelerator.device)
    steps = recipe.epochs * math.ceil(len(train) / recipe.batch)

    history, best = _resume(file, key, network, optimiser, accelerator)
    todo, kept_at = range(len(history), recipe.epochs), time.monotonic()
    for epoch in tqdm(todo, desc="epochs", unit="epoch", file=sys.stdout, mininterval=0.5, disable=not todo):
        torch.manual_seed(seed + 1000 * epoch + 500 * accelerator.process_index)  # augmentation and dropout
        shuffle = torch.Generator().manual_seed(seed + 1000 * epoch)  # the same for every process
        batches = torch.randperm(len(train), generator=shuffle).split(recipe.batch)
        model.train()
        total = torch.zeros(2, device=accelerator.device)
        for step, batch in enumerate(batches, epoch * len(batches)):
            for group, rate in zip(optimiser.param_groups, recipe.rates, strict=True):
                group["lr"] = rate * (_one_cycle(step / steps) if recipe.one_cycle else 1)
            chosen = train[batch[accelerator.process_index :: accelerator.num_processes].numpy()]
            logits = model(inputs[chosen]).float()
            losses = nn.functional.cross_entropy(
                logits, truth[chosen], weight, label_smoothing=recipe.label_smoothing, reduction="none"
            )
            # the mean over the batch of all processes, whose gradients accelerate averages
            loss = losses.sum() * accelerator.num_processes / len(batch)
            optimiser.zero_grad()
            accelerator.backward(loss)
            optimiser.step()
            total += torch.stack([losses.detach().sum(), (logits.argmax(1) == truth[chosen]).sum()])
        train_loss, train_accuracy = (accelerator.reduce(total) / len(train)).tolist()
        p = _probabilities_of_all(accelerator, network, inputs, val)
        val_loss = -np.log(np.clip(p[np.arange(len(val)), labels[val]], 1e-12, 1)).mean()
        if not np.isfinite(train_loss + val_loss):
            raise UserError(
                f"The loss was no number in epoch {epoch + 1}: nothing of that epoch was kept; lower the learning rate."
            )
        val_accuracy = float(np.mean(p.argmax(1) == labels[val]))
        history.append([epoch + 1, train_loss, train_accuracy, float(val_loss), val_accuracy])
        value = {"val_loss": val_loss, "val_accuracy": -val_accuracy, "last": -epoch}[recipe.keep]
        if best is None or value < best[0]:
            best = float(value), copy.deepcopy(network.state_dict())
        due = time.monotonic() - kept_at >= INTERVAL or epoch + 1 == recipe.epochs
        if file and due and accelerator.is_main_process:
            kept_at = time.monotonic()
            _save(file, key, history, best, recipe, network, optimiser, accelerator)
    network.load_state_dict(best[1])
    accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    return pd.DataFrame(history, columns=HISTORY)


def _probabilities_of_all(accelerator, network, inputs, val):
    """Those of the rows `val`, each process doing its share and all getting the whole."""
    if accelerator.num_processes == 1:
        return probabilities(network, inputs, val)
    p, mine = np.zeros((len(val), len(CLASSES))), slice(accelerator.process_index, None, accelerator.num_processes)
    p[mine] = probabilities(network, inputs, val[mine])
    return accelerator.reduce(torch.from_numpy(p).to(accelerator.device)).cpu().numpy()


def probabilities(network, inputs, chosen=None, mirrored=False):
    """A network's class probabilities, for all pictures or those chosen: float array (m, 5), ordered as `CLASSES`.

    With `mirrored`, the mean of those of each picture and of its mirror image: a face means the same in a mirror.
    """
    p = torch.from_numpy(outputs(network, inputs, chosen)).double().softmax(1).numpy()
    return (p + probabilities(network, _Mirrored(inputs), chosen)) / 2 if mirrored else p


class _Mirrored:
    def __init__(self, inputs):
        self.inputs = inputs

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, indices):
        return self.inputs[indices].flip(3)


def outputs(network, inputs, chosen=None):
    """What a network gives, for all pictures or those chosen: float array (m, …)."""
    network.to(device()).eval()
    chosen = np.arange(len(inputs)) if chosen is None else np.asarray(chosen)
    with torch.inference_mode():
        parts = [network(inputs[chosen[i : i + 256]]).float().cpu() for i in range(0, len(chosen), 256)]
    return torch.cat(parts).numpy()


def doubled(table, train):
    """`train` with each frame of the rarer emotions twice (neutral, happy, sad, disgust), as in the report's totals."""
    rarer = table["emotion"].iloc[train].isin(["neutral", "happy", "sad", "disgust"]).to_numpy()
    return np.concatenate([train, train[rarer]])


def load(network, file):
    """Give a network the weights that a checkpoint kept; returns the network. UserError if they are another's."""
    try:
        network.load_state_dict(read_checkpoint(file)["best"]["network"])
    except RuntimeError as problem:
        reason = str(problem).splitlines()[-1].strip().rstrip(".")
        raise UserError(f"{shown(file)} holds the weights of another network: {reason}.") from None
    return network


def labels_and_rows(table):
    """Of `frames.csv`: each frame's place in `CLASSES`, int array (n,), and the rows of each split, {split: array}."""
    labels = np.array([CLASSES.index(label) for label in table["label"]])
    return labels, {split: np.flatnonzero(table["split"] == split) for split in SPLITS}


def _one_cycle(share):
    return share / 0.15 if share < 0.15 else (1 + math.cos(math.pi * (share - 0.15) / 0.85)) / 2


def precision():
    """Mixed on a GPU: bfloat16 where it has that, else float16. On a processor as ACCELERATE_MIXED_PRECISION says."""
    if not torch.cuda.is_available():
        return None
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def training_key(network, inputs, labels, train, val, recipe, seed):
    """Eight hexadecimal digits that change with all that a training hangs on, but device, precision and processes.

    Parameters as those of `fit`; the network is not yet trained.
    """
    start = b"".join(weight.detach().cpu().numpy().tobytes() for weight in network.state_dict().values())
    numbers = b"".join(np.asarray(array, "int64").tobytes() for array in (labels, train, val))
    return digest(start + repr((str(network), inputs.key, recipe, seed)).encode() + numbers)[:8]


def _save(file, key, history, best, recipe, network, optimiser, accelerator):
    """Keep a checkpoint; of a finished training only what is needed to use it."""
    kept = {"key": key, "history": history, "best": {"value": best[0], "network": best[1]}}
    if len(history) < recipe.epochs:
        kept |= {"network": network.state_dict(), "optimiser": optimiser.state_dict()}
        kept |= {"scaler": accelerator.scaler.state_dict()} if accelerator.scaler else {}
    buffer = io.BytesIO()  # straight to a full disk torch's own error would hide the system's
    torch.save(kept, buffer)
    with replacing(file, "wb") as target:
        target.write(buffer.getbuffer())


def _resume(file, key, network, optimiser, accelerator):
    """(history, best) of a checkpoint, its state put back; ([], None) without one. One of another training is kept."""
    if file is None:
        return [], None
    if accelerator.is_main_process:
        _make_way(file, key)
    accelerator.wait_for_everyone()
    if not file.exists():
        return [], None
    kept = read_checkpoint(file)
    if "network" in kept:
        network.load_state_dict(kept["network"])
        optimiser.load_state_dict(kept["optimiser"])
        if accelerator.scaler and "scaler" in kept:  # a training that began without a GPU has none
            accelerator.scaler.load_state_dict(kept["scaler"])
    return kept["history"], (kept["best"]["value"], kept["best"]["network"])


def _make_way(file, key):
    """Move a checkpoint of another training aside, and the one of this training back, if there is one."""
    if file.exists() and (other := read_checkpoint(file)["key"]) != key:
        aside = file.with_stem(f"{file.stem}-{other}")
        log.warning("%s is of other frames or settings: it is kept as %s; training anew.", shown(file), aside.name)
        file.replace(aside)
    if not file.exists() and (mine := file.with_stem(f"{file.stem}-{key}")).exists():
        mine.replace(file)


def read_checkpoint(file):
    """A checkpoint's content; UserError if it is cut short or none of ours. Nothing in it is ever executed."""
    try:
        kept = torch.load(io.BytesIO(file.read_bytes()), map_location="cpu", weights_only=True)
        return {name: kept[name] for name in kept if kept["key"] and kept["history"] and kept["best"]}
    except Exception:  # torch has many ways to say that a file is not a checkpoint
        raise UserError(
            f"{shown(file)} is cut short or no checkpoint of ours: move or delete it, and it is trained anew."
        ) from None
