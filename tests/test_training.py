import socket
import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from helpers import networks, training, workspace
from helpers.workspace import UserError


@pytest.fixture
def pictures(tmp_path):
    """Forty pictures of noise, brighter by class, so that there is something to learn."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.jpg" for i in range(40)]
    for i, path in enumerate(paths):
        Image.fromarray(rng.integers(0, 60, (360, 640, 3), "uint8") + np.uint8(40 * (i % 5))).save(path)
    return paths


@pytest.fixture(scope="module")
def trunk():
    return networks.alexnet_trunk("none")


def counting(trunk):
    """The trunk, and a list that grows with the number of pictures that go through it."""
    seen = []
    twin = networks.alexnet_trunk("none")
    twin.register_forward_hook(lambda module, inputs, output: seen.extend([0] * len(inputs[0])))
    return twin, seen


def test_features_are_what_the_trunk_gives(pictures, trunk, tmp_path):
    features = training.trunk_features(trunk, pictures, tmp_path / "features")
    picture = training.FrameDataset(pictures)[3]
    assert picture.shape == (3, 360, 360)
    expected = trunk(picture[None]).flatten()
    assert features.table.shape == (40, 25600)
    torch.testing.assert_close(features[[3]][0], expected, rtol=2e-3, atol=1e-4)


def test_each_picture_goes_through_the_trunk_once_and_nothing_stale_is_used(pictures, trunk, tmp_path):
    counted, seen = counting(trunk)
    first = training.trunk_features(counted, pictures, tmp_path / "features")
    assert len(seen) == 40
    again = training.trunk_features(counted, pictures[::-1], tmp_path / "features")
    assert len(seen) == 40
    torch.testing.assert_close(again[[0]], first[[39]], rtol=0, atol=0)

    Image.new("RGB", (640, 360), "red").save(pictures[7])  # the same name, another picture
    changed = training.trunk_features(counted, pictures, tmp_path / "features")
    assert len(seen) == 41
    assert changed.key != first.key
    assert not torch.equal(changed[[7]], first[[7]])

    with torch.no_grad():
        counted[0].bias += 1  # another trunk
    training.trunk_features(counted, pictures, tmp_path / "features")
    assert len(seen) == 81
    assert len(list((tmp_path / "features").glob("*.float16"))) == 2


def test_a_trunk_pass_cut_off_goes_on(pictures, trunk, tmp_path):
    whole = training.trunk_features(trunk, pictures, tmp_path / "whole")
    cut = training.trunk_features(trunk, pictures, tmp_path / "cut")
    numbers, names = cut.table.filename, next((tmp_path / "cut").glob("*.index"))
    with open(numbers, "r+b") as file:
        file.truncate(25 * 51200 + 777)  # in the middle of a picture
    with open(names, "r+b") as file:
        file.truncate(30 * 65 + 9)  # in the middle of a line, and further than the numbers
    counted, seen = counting(trunk)
    again = training.trunk_features(counted, pictures, tmp_path / "cut")
    assert len(seen) == 15
    # the last pictures went through in a batch of another size, which may round differently in the last place
    torch.testing.assert_close(again[range(40)], whole[range(40)], rtol=2e-3, atol=1e-4)
    assert again.key == whole.key


def fit(features, seed=1, epochs=6):
    labels = np.arange(40) % 5
    head = networks.report_head(seed)
    history = training.fit_head(head, features, labels, np.arange(30), np.arange(30, 40), epochs, seed)
    return head, history


def test_the_network_is_the_reports(trunk):
    assert networks.HEAD_SIZES == (25600, 192, 128, 5)
    rows = networks.layers([*trunk, torch.nn.Flatten(), *networks.report_head()], (3, 360, 360))
    assert [row["output"] for row in rows if row["layer"] in ("MaxPool2d", "Flatten", "Linear")][-5:] == [
        (256, 10, 10), (25600,), (192,), (128,), (5,),
    ]  # fmt: skip
    assert sum(row["weights"] for row in rows[:13]) == 2_469_696


def test_the_epoch_of_lowest_validation_loss_is_kept():
    labels = np.arange(60) % 5
    rng = np.random.default_rng(0)
    signal = np.eye(5)[labels] @ rng.normal(size=(5, 25600))
    table = (signal + rng.normal(scale=60, size=(60, 25600))).astype(np.float16)
    features = training.Features(table, np.arange(60), "drawn")
    head = networks.report_head()
    history = training.fit_head(head, features, labels, np.arange(40), np.arange(40, 60), epochs=12)
    assert list(history.columns) == training.HISTORY and len(history) == 12
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0] / 2  # it learns them by heart,
    assert history["val_loss"].idxmin() < 11  # and the others turn
    p = training.probabilities(head, features)
    assert p.shape == (60, 5)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    loss = -np.log(p[np.arange(40, 60), labels[40:]]).mean()
    assert loss == pytest.approx(history["val_loss"].min(), rel=1e-6)
    with pytest.raises(UserError, match="no number in epoch 1"):
        training.fit_head(
            head, training.Features(table * np.nan, np.arange(60), ""), labels, np.arange(40), np.arange(40, 60)
        )


def test_the_same_seed_gives_the_same_numbers(pictures, trunk, tmp_path):
    features = training.trunk_features(trunk, pictures, tmp_path / "features")
    (a, history_a), (b, history_b), (c, _) = fit(features), fit(features), fit(features, seed=2)
    pd.testing.assert_frame_equal(history_a, history_b, check_exact=True)
    assert (training.probabilities(a, features) == training.probabilities(b, features)).all()
    assert (training.probabilities(a, features) != training.probabilities(c, features)).any()


def test_a_second_call_reads_what_the_first_found(pictures, trunk, tmp_path, monkeypatch):
    features = training.trunk_features(trunk, pictures, tmp_path / "features")
    labels, files = np.arange(40) % 5, (tmp_path / "m" / "head.pth", tmp_path / "h" / "head.csv")
    settings = features, labels, np.arange(30), np.arange(30, 40), *files, 3
    first = networks.report_head()
    history = training.fit_head_once(first, *settings)
    trained = []
    fit_head = training.fit_head
    monkeypatch.setattr(training, "fit_head", lambda *a, **k: (trained.append(1), fit_head(*a, **k))[1])
    second = networks.report_head()
    again = training.fit_head_once(second, *settings)
    assert not trained
    pd.testing.assert_frame_equal(history, again)
    assert (training.probabilities(first, features) == training.probabilities(second, features)).all()
    training.fit_head_once(second, features, labels[::-1].copy(), *settings[2:])  # other labels: trained anew
    assert trained


def test_bad_input_is_one_sentence(tmp_path, pictures, trunk, monkeypatch):
    monkeypatch.setenv("WEIGHTS", str(tmp_path / "nowhere.pth"))
    with pytest.raises(UserError, match="There is no file of weights at .*nowhere.pth"):
        workspace.weights()
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UserError, match="no file of PyTorch weights"):
        networks.alexnet_trunk(tmp_path / "text.pth")
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not hold AlexNet's features"):
        networks.alexnet_trunk(tmp_path / "other.pth")
    features = training.trunk_features(trunk, pictures, tmp_path / "features")
    with pytest.raises(UserError, match="no frames of training or of validation actors"):
        training.fit_head(networks.report_head(), features, np.zeros(40, int), np.arange(40), np.array([], int))


def test_weights_of_a_file_are_used_and_other_weights_are_named(tmp_path, trunk):
    torch.save({f"features.{name}": weight + 1 for name, weight in trunk.state_dict().items()}, tmp_path / "mine.pth")
    loaded = networks.alexnet_trunk(tmp_path / "mine.pth")
    assert loaded.note == "trunk mine.pth"
    torch.testing.assert_close(loaded[0].bias, trunk[0].bias + 1)
    assert not any(weight.requires_grad for weight in loaded.parameters())


def test_without_a_network_the_trunk_is_random_and_says_so(tmp_path, monkeypatch, caplog, trunk):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(networks, "PATIENCE", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/alexnet.pth"
        start = time.monotonic()
        assert not networks._answers(url)
        assert time.monotonic() - start < 5
    monkeypatch.setattr(networks, "_answers", lambda url: False)
    offline = networks.alexnet_trunk("imagenet")
    assert offline.note == "random trunk"
    assert networks.fingerprint(offline) == networks.fingerprint(trunk)
    assert [r.getMessage() for r in caplog.records if "RANDOM" in r.getMessage()]
