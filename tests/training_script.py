"""One small training, for tests that kill it or run it in several processes: training_script.py FOLDER usual plain."""

import sys
from pathlib import Path

import numpy as np

from helpers import training
from helpers.features import Features
from helpers.images import FaceView
from helpers.networks import face_alexnet

RECIPE = training.Recipe(epochs=6, batch=8, rates=(1e-4, 1e-3), one_cycle=True, weight_decay=0.01, balanced=True)


def data():
    """Sixty pictures of noise, brighter by class: Features, labels, train, val."""
    labels = np.arange(60) % 5
    noise = np.random.default_rng(0).integers(0, 90, (60, 3, 72, 72), dtype=np.uint8)
    pictures = noise + (30 * labels).astype(np.uint8)[:, None, None, None]
    return Features(pictures, np.arange(60), "drawn"), labels, np.arange(40), np.arange(40, 60)


def train(file, seed=1, plain=False):
    """Train with checkpoints after every epoch, without chance in it if `plain`; returns (network, history)."""
    training.INTERVAL = 0
    view = FaceView(72, affine=0, light=0) if plain else FaceView(72)
    network = face_alexnet("none", view, dropout=0.0 if plain else 0.5)
    return network, training.fit(network, *data(), RECIPE, file, seed)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name in sys.argv[2:]:
        network, history = train(folder / f"{name}.pth", plain=name == "plain")
        np.save(folder / f"{name}.npy", training.probabilities(network, data()[0]))
        history.to_csv(folder / f"{name}.csv", index=False)
