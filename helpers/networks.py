"""The networks: AlexNet's convolutions (the trunk) with the report's head or with one of our own, and the small CNN.

AlexNet: Krizhevsky, 2014, arXiv:1404.5997, as torchvision has it. The report's head, 25600-192-128-5, and the small
CNN's layers are the 2020 team's.
"""

import hashlib
import logging
import socket
import threading
import urllib.error
import urllib.request
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn
from torchvision.models import AlexNet_Weights, alexnet, get_model, get_model_weights

from helpers.images import FaceView
from helpers.ravdess import CLASSES
from helpers.workspace import SEED, UserError, shown

HEAD_SIZES = (25600, 192, 128, len(CLASSES))
IMAGENET = "08ebed3d"  # the fingerprint of the trunk with torchvision's ImageNet weights
PATIENCE = 10  # seconds given to a network that does not answer

log = logging.getLogger(__name__)


def alexnet_trunk(weights="imagenet"):
    """AlexNet's convolutions: (n, 3, 360, 360) in, (n, 256, 10, 10) out; frozen.

    `weights` is `"imagenet"` (torchvision's, downloaded once), `"none"` (random, the same every time) or the path of a
    file that holds AlexNet's `features.*`. If ImageNet's can't be had, the trunk is random and says so in its `note`,
    which goes with every table and figure that comes of it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        trunk = alexnet(weights=None).features
    state = None
    if weights == "imagenet":
        state = _download()
    elif weights != "none":
        state = _read(weights)
    if state is not None:
        try:
            trunk.load_state_dict({k[9:]: v for k, v in state.items() if k.startswith("features.")})
        except RuntimeError as problem:
            reason = str(problem).splitlines()[-1].strip().rstrip(".")
            raise UserError(f"{weights} does not hold AlexNet's features.*: {reason}.") from None
    if state is None:
        trunk.note = "random trunk"
    else:
        trunk.note = "" if fingerprint(trunk) == IMAGENET else f"trunk {Path(weights).name}"
    return trunk.eval().requires_grad_(False)


def report_head(seed=SEED):
    """The head of the report's network: three fully connected layers with ReLU between, (n, 25600) in, (n, 5) out."""
    inputs, first, second, outputs = HEAD_SIZES
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(inputs, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, outputs)
        )


def face_alexnet(weights="imagenet", view=None, dropout=0.5, frozen=False, seed=SEED):
    """The fine-tuned AlexNet: face crops (n, 3, 176, 176) in 0..1 in, logits (n, 5) out; view, trunk, head in a row.

    `view` is the `FaceView` that it sees them by; the trunk learns too unless it is `frozen`. `note` is the trunk's.
    """
    view, trunk = view or FaceView(), alexnet_trunk(weights)
    with torch.no_grad():
        inputs = trunk(torch.zeros(1, 3, view.size, view.size)).numel()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Sequential(
            nn.Flatten(), nn.Dropout(dropout), nn.Linear(inputs, 128), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(128, len(CLASSES)),
        )  # fmt: skip
    network = nn.Sequential(OrderedDict(view=view, trunk=trunk.requires_grad_(not frozen), head=head))
    network.note = trunk.note
    return network.to(memory_format=torch.channels_last)


def backbone(name="resnet18", weights="imagenet"):
    """Any of torchvision's classifiers by name, up to its last layer: (n, 3, h, w) in, (n, f) out; frozen.

    `weights` is `"imagenet"` (the best that torchvision has, downloaded once) or `"none"` (random, the same every
    time); `note` says so where the weights can't be had. UserError if there is no classifier of that name.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        try:
            network = get_model(name, weights=None)
        except ValueError:
            raise UserError(
                f"torchvision has no network {name}: name one of torchvision.models.list_models()."
            ) from None
    state = _download(get_model_weights(name).DEFAULT) if weights == "imagenet" else None
    if state is not None:
        network.load_state_dict(state)
    linear = [where for where, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise UserError(f"torchvision's {name} does not end in a layer that names classes: take another one.")
    above, _, last = linear[-1].rpartition(".")
    setattr(network.get_submodule(above), last, nn.Identity())
    network.note = f"{name}'s weights are random" if state is None else ""
    return network.requires_grad_(False).eval()


def face_backbone(name, weights="imagenet", seed=SEED):
    """One of torchvision's classifiers to be fine-tuned as `face_alexnet` is: face crops (n, 3, 176, 176) to logits."""
    view, trunk = FaceView(), backbone(name, weights)
    with torch.no_grad():
        inputs = trunk(torch.zeros(1, 3, view.size, view.size)).shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Sequential(nn.Dropout(0.5), nn.Linear(inputs, len(CLASSES)))
    network = nn.Sequential(OrderedDict(view=view, trunk=trunk.requires_grad_(True), head=head))
    network.note = trunk.note
    return network.to(memory_format=torch.channels_last)


def report_cnn(seed=SEED):
    """The small CNN that the report started from: (n, 3, 80, 80) in 0..1 in, logits (n, 5) out.

    Kernels of 5 and 3, layers of 324 and 32, as in the team's published code (github.com/alewan/aps360project).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 5, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 10, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(10 * 18 * 18, 18 * 18), nn.ReLU(), nn.Linear(18 * 18, 32), nn.ReLU(),
            nn.Linear(32, len(CLASSES)),
        )  # fmt: skip


def fingerprint(network):
    """Eight hexadecimal digits that change with any weight of a network."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()[:8]


def layers(network, shape):
    """What a network does to one input, a row a layer: name, output shape (without the batch), number of weights."""
    rows, x = [], torch.zeros(1, *shape)
    for layer in network:
        with torch.no_grad():
            x = layer(x)
        count = sum(weight.numel() for weight in layer.parameters())
        rows.append({"layer": type(layer).__name__, "output": tuple(x.shape[1:]), "weights": count})
    return rows


def _read(path, remedy="set WEIGHTS to imagenet, none or a .pth file"):
    try:
        return torch.load(path, map_location="cpu", weights_only=True)  # nothing in it is executed
    except Exception:  # torch has many ways to say that a file is not a checkpoint
        raise UserError(f"{shown(path)} is no file of PyTorch weights: {remedy}.") from None


def _download(which=AlexNet_Weights.IMAGENET1K_V1):
    """torchvision's ImageNet weights from its own cache or the network; None, with one line that says so, without."""
    url = which.url
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if cached.exists():
        return _read(cached, "delete it, and it is fetched anew")
    if not _answers(url):
        log.warning("ImageNet weights could not be fetched from %s: the trunk is RANDOM.", url)
        return None
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        return which.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as problem:
        log.warning("ImageNet weights could not be fetched (%s): the trunk is RANDOM.", problem)
        return None
    finally:
        socket.setdefaulttimeout(patience)


def _answers(url):
    """Whether a server answers within `PATIENCE` seconds. In a thread, since looking up a name has no time limit."""
    found = threading.Event()

    def ask():
        try:
            request = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(request, timeout=PATIENCE).close()
            found.set()
        except (OSError, urllib.error.URLError):
            pass

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    return found.is_set()
