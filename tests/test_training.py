import os
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import networks, training, workspace
from helpers.features import Features
from helpers.workspace import REPOSITORY, UserError
from tests import training_script

QUICK = training.Recipe(epochs=4)


@pytest.fixture(scope="module")
def trunk():
    return networks.alexnet_trunk("none")


def head_features(scale=3.0, n=60):
    """Features that hold a signal of the class, in noise."""
    rng = np.random.default_rng(0)
    signal = np.eye(5)[np.arange(n) % 5] @ rng.normal(size=(5, 25600))
    table = (signal + rng.normal(scale=scale, size=(n, 25600))).astype(np.float16)
    return Features(table, np.arange(n), "drawn"), np.arange(n) % 5, np.arange(40), np.arange(40, n)


def test_the_networks_are_the_reports(trunk):
    assert networks.HEAD_SIZES == (25600, 192, 128, 5)
    rows = networks.layers([*trunk, torch.nn.Flatten(), *networks.report_head()], (3, 360, 360))
    assert [row["output"] for row in rows if row["layer"] in ("MaxPool2d", "Flatten", "Linear")][-5:] == [
        (256, 10, 10), (25600,), (192,), (128,), (5,),
    ]  # fmt: skip
    assert sum(row["weights"] for row in rows[:13]) == 2_469_696
    outputs = [row["output"] for row in networks.layers(networks.report_cnn(), (3, 80, 80)) if row["weights"]]
    assert outputs == [(5, 76, 76), (10, 36, 36), (324,), (32,), (5,)]


def test_the_epoch_that_the_recipe_names_is_kept():
    features, labels, train, val = head_features(scale=60)
    recipe = training.Recipe(epochs=12)
    head = networks.report_head()
    history = training.fit(head, features, labels, train, val, recipe)
    assert list(history.columns) == training.HISTORY and len(history) == 12
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0] / 2  # it learns them by heart,
    assert history["val_loss"].idxmin() < 11  # and the others turn

    def loss(head):
        p = training.probabilities(head, features, val)
        return -np.log(p[np.arange(len(val)), labels[val]].clip(1e-12)).mean()

    assert loss(head) == pytest.approx(history["val_loss"].min(), rel=1e-5)
    last = networks.report_head()
    training.fit(last, features, labels, train, val, training.Recipe(epochs=12, keep="last"))
    assert loss(last) == pytest.approx(history["val_loss"].iloc[-1], rel=1e-5)
    accurate = networks.report_head()
    training.fit(accurate, features, labels, train, val, training.Recipe(epochs=12, keep="val_accuracy"))
    right = training.probabilities(accurate, features, val).argmax(1) == labels[val]
    assert right.mean() == history["val_accuracy"].max()


def test_a_last_batch_of_one_picture_is_learned_from():
    features, labels, train, val = head_features()
    history = training.fit(networks.report_head(), features, labels, train[:33], val, training.Recipe(epochs=2))
    assert history["train_loss"].iloc[1] < history["train_loss"].iloc[0]


def test_it_is_the_reports_recipe():
    """Adam at 0.001 on batches of 32, written out by hand, gives the same weights."""
    features, labels, train, val = head_features()
    head, twin = networks.report_head(), networks.report_head()
    training.fit(head, features, labels, train, val, training.Recipe(epochs=2, keep="last"), seed=5)
    assert (training.REPORT.epochs, training.REPORT.batch, training.REPORT.rates) == (85, 32, (0.001,))
    optimiser = torch.optim.Adam(twin.parameters(), lr=0.001)
    for epoch in range(2):
        order = torch.randperm(40, generator=torch.Generator().manual_seed(5 + 1000 * epoch))
        for batch in order.split(32):
            optimiser.zero_grad()
            chosen = train[batch]
            torch.nn.functional.cross_entropy(twin(features[chosen]), torch.tensor(labels[chosen])).backward()
            optimiser.step()
    for ours, theirs in zip(head.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_rarer_emotions_are_doubled():
    table = pd.DataFrame({"emotion": ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "neutral"]})
    assert sorted(training.doubled(table, np.arange(7))) == [0, 0, 1, 2, 2, 3, 3, 4, 5, 6, 6]


def test_parts_learn_at_their_own_rates_and_a_frozen_trunk_does_not_learn():
    inputs, labels, train, val = training_script.data()
    settings = inputs, labels, train, val
    for rates, frozen in (((0.0, 0.01), False), ((0.01,), True)):
        network = networks.face_alexnet("none", training_script.FaceView(72), frozen=frozen)
        trunk, head = (networks.fingerprint(part) for part in (network.trunk, network.head))
        training.fit(network, *settings, training.Recipe(epochs=1, rates=rates))
        assert networks.fingerprint(network.trunk) == trunk and networks.fingerprint(network.head) != head
    rates = [training._one_cycle(share) for share in np.linspace(0, 1, 101)]
    assert rates[0] == 0 and max(rates) == pytest.approx(1) == rates[15] and rates[-1] == pytest.approx(0, abs=1e-9)


def test_the_same_seed_gives_the_same_numbers():
    settings = head_features()
    (a, history_a), (b, history_b), (c, _) = (
        (head := networks.report_head(), training.fit(head, *settings, QUICK, seed=seed)) for seed in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(history_a, history_b, check_exact=True)
    assert (training.probabilities(a, settings[0]) == training.probabilities(b, settings[0])).all()
    assert (training.probabilities(a, settings[0]) != training.probabilities(c, settings[0])).any()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nobody interrupts: its network and history."""
    return training_script.train(tmp_path_factory.mktemp("whole") / "model.pth")


def start(folder, *arguments):
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    *launcher, names = arguments
    command = [sys.executable, *launcher, REPOSITORY / "tests" / "training_script.py", folder, *names.split()]
    return subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_killed_and_started_again_it_ends_as_if_nothing_had_happened(whole, tmp_path):
    first = start(tmp_path, "usual")
    while not (tmp_path / "usual.pth").exists() and first.poll() is None:
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    assert first.wait(120) == -signal.SIGKILL, first.stderr.read().decode()
    done = len(training.read_checkpoint(tmp_path / "usual.pth")["history"])
    assert 1 <= done < training_script.RECIPE.epochs
    again = start(tmp_path, "usual")
    assert again.wait(120) == 0, again.stderr.read().decode()
    network, history = whole
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "usual.csv"), history, check_exact=False, rtol=1e-9)
    assert (np.load(tmp_path / "usual.npy") == training.probabilities(network, training_script.data()[0])).all()


def test_two_processes_train_as_one(whole, tmp_path):
    launcher = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"
    both = start(tmp_path, *launcher, "usual plain")
    assert both.wait(120) == 0, both.stderr.read().decode()
    # without augmentation and dropout the same, but for the last digits
    _, alone = training_script.train(tmp_path / "alone.pth", plain=True)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "plain.csv"), alone, rtol=1e-3, atol=1e-4)
    # with them each process draws its own, and the metrics are no further apart than those of other seeds
    ends = [whole[1].iloc[-1], *(training_script.train(None, seed)[1].iloc[-1] for seed in (2, 3, 4))]
    two = pd.read_csv(tmp_path / "usual.csv").iloc[-1]
    for what in ("val_loss", "train_loss"):
        values = [end[what] for end in ends]
        assert abs(two[what] - np.mean(values)) <= max(values) - min(values)


def test_it_trains_in_mixed_precision_too(whole, tmp_path, monkeypatch):
    """What a GPU does by itself, on a processor, where accelerate is told to: it learns, and as it does in float32."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    mixed = start(tmp_path, "plain")
    assert mixed.wait(120) == 0, mixed.stderr.read().decode()
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    _, exact = training_script.train(None, plain=True)
    found = pd.read_csv(tmp_path / "plain.csv")
    assert not np.allclose(found["train_loss"], exact["train_loss"], rtol=1e-6, atol=0)  # it was another precision
    assert found["train_loss"].to_numpy() == pytest.approx(exact["train_loss"].to_numpy(), abs=0.1)
    kept = training.read_checkpoint(tmp_path / "plain.pth")["best"]["network"]
    assert {weight.dtype for weight in kept.values()} == {torch.float32}


def test_a_second_call_reads_what_the_first_found(tmp_path, monkeypatch, caplog):
    settings, file = head_features(), tmp_path / "models" / "head.pth"
    first = networks.report_head()
    history = training.fit(first, *settings, QUICK, file)
    trained = []
    monkeypatch.setattr(training, "_save", lambda *a: trained.append(1))
    second = networks.report_head()
    again = training.fit(second, *settings, QUICK, file)
    assert not trained
    pd.testing.assert_frame_equal(history, again)
    assert (training.probabilities(first, settings[0]) == training.probabilities(second, settings[0])).all()
    monkeypatch.undo()

    # other labels: trained anew, the first kept beside it under its own name; and found again
    before = file.read_bytes()
    features, labels, train, val = settings
    training.fit(networks.report_head(), features, labels[::-1].copy(), train, val, QUICK, file)
    [aside] = [path for path in file.parent.iterdir() if path != file]
    assert aside.read_bytes() == before and "is kept as" in caplog.text
    third = networks.report_head()
    training.fit(third, *settings, QUICK, file)
    assert file.read_bytes() == before
    assert (training.probabilities(first, features) == training.probabilities(third, features)).all()


def test_a_training_that_began_without_a_gpu_goes_on_with_one(tmp_path):
    """Whose half precision has a scaler of gradients, of which the checkpoint knows nothing."""
    file, head = tmp_path / "head.pth", networks.report_head()
    optimiser = torch.optim.AdamW(head.parameters())
    here = SimpleNamespace(scaler=None, is_main_process=True, wait_for_everyone=lambda: None)
    training._save(file, "key", [[1, 0, 0, 0, 0]], (0.5, head.state_dict()), QUICK, head, optimiser, here)
    gpu = SimpleNamespace(**{**vars(here), "scaler": torch.amp.GradScaler("cpu")})
    history, best = training._resume(file, "key", head, optimiser, gpu)
    assert len(history) == 1 and best[0] == 0.5


def test_a_damaged_or_hostile_checkpoint_is_one_sentence_and_stays(tmp_path):
    settings, file = head_features(), tmp_path / "head.pth"
    training.fit(networks.report_head(), *settings, QUICK, file)
    whole = file.read_bytes()

    class Planted:
        def __reduce__(self):
            return (os.system, (f"touch '{tmp_path}/pwned'",))

    torch.save({"key": Planted()}, tmp_path / "planted.pth")
    for content in (whole[: len(whole) // 2], b"", b"hello", (tmp_path / "planted.pth").read_bytes()):
        file.write_bytes(content)
        with pytest.raises(UserError, match="head.pth is cut short or no checkpoint of ours"):
            training.fit(networks.report_head(), *settings, QUICK, file)
        assert file.read_bytes() == content
    assert not (tmp_path / "pwned").exists()
    file.write_bytes(whole)
    with pytest.raises(UserError, match="head.pth holds the weights of another network"):
        training.load(networks.report_cnn(), file)
    assert file.read_bytes() == whole


def test_a_loss_that_is_no_number_is_one_sentence_and_the_good_checkpoint_stays(tmp_path):
    features, labels, train, val = head_features()
    training.INTERVAL, interval = 0, training.INTERVAL
    file, seen = tmp_path / "head.pth", []

    class Poisoned(Features):
        def __getitem__(self, indices):
            seen.append(len(indices))
            return super().__getitem__(indices) * (float("nan") if len(seen) > 6 else 1)  # in the third epoch

    try:
        with pytest.raises(UserError, match="no number in epoch 3: nothing of that epoch was kept"):
            training.fit(
                networks.report_head(), Poisoned(features.table, features.rows, "x"), labels, train, val, file=file
            )
    finally:
        training.INTERVAL = interval
    kept = training.read_checkpoint(file)
    assert len(kept["history"]) == 2 and all(weight.isfinite().all() for weight in kept["best"]["network"].values())


def test_bad_input_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("WEIGHTS", str(tmp_path / "nowhere.pth"))
    with pytest.raises(UserError, match="There is no file of weights at .*nowhere.pth"):
        workspace.weights()
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UserError, match="no file of PyTorch weights"):
        networks.alexnet_trunk(tmp_path / "text.pth")
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not hold AlexNet's features"):
        networks.alexnet_trunk(tmp_path / "other.pth")
    features, labels, train, _ = head_features()
    with pytest.raises(UserError, match="no frames of training or of validation actors"):
        training.fit(networks.report_head(), features, labels, train, np.array([], int), QUICK)


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
