"""Notebook 04's road: the real boto3, over HTTP, against `rekognition_server` on the loopback interface."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types

import nbformat
import numpy as np
import pandas as pd
import pytest
from botocore.config import Config
from PIL import Image

from helpers import aws, emotions, evaluation, frames, ravdess, rekognition, report, scoring, simulated
from helpers.ravdess import CLASSES
from helpers.workspace import REPOSITORY, SAMPLE, Run, UserError
from tests.rekognition_server import KEY, SECRET, Server, faces
from tests.test_frames import some_clips

ASK = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs are started without
from pathlib import Path
import pandas as pd
from helpers import emotions, rekognition
from helpers.workspace import Run
run = Run(Path(sys.argv[1]), Path(sys.argv[2]))
frames = pd.read_csv(run.root / "frames.csv")
rekognition.ask(run, frames, 100)
print(emotions.best_of_five(emotions.table(rekognition.read_answers(run, frames))).round(9).tolist())
"""


@pytest.fixture
def server(monkeypatch):
    with Server() as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_REKOGNITION", running.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield running


@pytest.fixture
def quick(monkeypatch):
    """Two tries of a second each, where a test would wait for six of twenty."""
    retries = {"mode": "adaptive", "total_max_attempts": 2}
    config = Config(retries=retries, connect_timeout=1, read_timeout=1, max_pool_connections=aws.CALLS)
    monkeypatch.setattr(aws, "CONFIG", config)


@pytest.fixture
def run(tmp_path):
    """A run with 40 frames, of which the last two are the same picture."""
    run = Run(tmp_path / "clips", tmp_path / "runs" / "clips")
    rng, rows = np.random.default_rng(0), []
    for i in range(40):
        path = run.path("frames", f"{i:02d}.jpg")
        Image.fromarray(rng.integers(0, 256, (90, 160, 3), np.uint8)).save(path)
        rows.append([f"frames/{i:02d}.jpg", f"c{i // 5}", 15 + i // 5, "val" if i < 20 else "test", CLASSES[i % 5]])
    shutil.copy(run.root / "frames" / "38.jpg", run.root / "frames" / "39.jpg")
    pd.DataFrame(rows, columns=["path", "clip", "actor", "split", "label"]).to_csv(run.path("frames.csv"), index=False)
    return run


def table(run):
    return pd.read_csv(run.root / "frames.csv")


def asked_in_a_process(run):
    return subprocess.Popen(
        [sys.executable, "-c", ASK, str(run.data), str(run.root)], cwd=REPOSITORY, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_each_picture_is_asked_for_once_and_never_again(server, run):
    server.seconds = 0.05
    rekognition.ask(run, table(run), 1)
    assert len(server.calls) == len({picture for picture, _ in server.calls}) == 39
    assert {outcome for _, outcome in server.calls} == {200}
    assert 1 < server.most_at_once <= aws.CALLS
    answers = rekognition.read_answers(run, table(run))
    assert answers.notna().all() and answers[38] == answers[39]
    assert rekognition.note(answers) == "answers of 127.0.0.1, not of Amazon"
    # made again under other names, in another run: paid is paid
    other = Run(run.data, run.root.parent / "other")
    shutil.move(run.root, other.root)
    frames = table(other).assign(path=lambda t: t["path"].str.replace("frames/", "frames/x"))
    for path in sorted((other.root / "frames").iterdir()):
        path.rename(path.with_name(f"x{path.name}"))
    rekognition.ask(other, frames, 1)
    assert len(server.calls) == 39
    # Amazon was asked for none of them, and its answers would be other ones
    os.environ.pop("AWS_ENDPOINT_URL_REKOGNITION")
    assert rekognition.read_answers(other, frames).isna().all()


def test_answers_are_kept_as_they_came(server, run):
    server.script = ["no face", "three faces"]
    rekognition.ask(run, table(run), 1)
    kept = [json.loads(line) for line in rekognition.answers_file(run).read_text().splitlines()]
    behaved = dict(server.calls)
    for line in kept:
        assert line["answer"] == {"FaceDetails": faces(line["picture"], behaved[line["picture"]])}
        assert line["host"] == "127.0.0.1" and line["asked"].startswith("20")
    seen = emotions.table(rekognition.read_answers(run, table(run)))
    assert sorted(seen["faces"].unique()) == [0, 1, 3]
    for line, row in zip(rekognition.read_answers(run, table(run)), seen.to_dict("records"), strict=True):
        if row["faces"]:  # of three, the largest counts
            alone = {e["Type"]: e["Confidence"] for e in faces(line["picture"])[0]["Emotions"]}
            assert row["first"] == max(alone, key=alone.get) and row["CALM"] == alone["CALM"]
        else:
            assert row["first"] == emotions.NO_FACE


def test_a_run_stops_at_the_users_limit_and_the_next_goes_on(server, run, monkeypatch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REKOGNITION_LIMIT", "0.01")
        assert rekognition.limit() == 0.01
    assert rekognition.limit() == 0  # without it nothing is asked
    for wrong in ("ten", "-1", "nan", "inf"):
        monkeypatch.setenv("REKOGNITION_LIMIT", wrong)
        with pytest.raises(UserError, match="REKOGNITION_LIMIT .*such as 4"):
            rekognition.limit()
    for wrong in (-0.01, float("inf")):
        with pytest.raises(UserError, match="The limit is .* US dollars: set"):
            rekognition.ask(run, table(run), wrong)
    for dollars, calls in ((0, 0), (0.01, 10), (0.01, 20), (0.0199, 39), (1, 39)):
        rekognition.ask(run, table(run), dollars)
        assert len(server.calls) == calls and rekognition.answers_file(run).exists() == bool(calls)
        if calls == 10:
            answers = rekognition.read_answers(run, table(run))
            assert "of 40 frames answered" in rekognition.note(answers)
            assert table(run)["split"][answers.notna()].nunique() == 2  # not simply the first ten


def test_the_cost_is_said_before():
    nothing, some = pd.Series([None] * 3279, dtype=object), pd.Series([{}] * 79 + [None] * 3200, dtype=object)
    assert rekognition.cost_in_words(nothing, 0) == (
        "3,279 frames, 0 of them answered already. The other 3,279 cost about 3.28 US dollars (0.001 each). "
        "The limit is 0 dollars, so none is asked: set REKOGNITION_LIMIT, to 3.28 for all of them."
    )
    assert rekognition.cost_in_words(some, 1.5).endswith(
        "3,200 cost about 3.20 US dollars (0.001 each). The limit is 1.50 dollars: 1,500 of them are asked, in about "
        "1 to 5 minutes."
    )
    assert "79 of them answered already" in rekognition.cost_in_words(some, 0)
    assert "3,200 of them are asked, in about 2 to 11 minutes" in rekognition.cost_in_words(some, 50)
    assert rekognition.cost_in_words(some[:79], 0).endswith("Nothing is left to ask.")


def test_what_fails_is_tried_again(server, run):
    server.script = ["throttle", "500", "cut", "cut short", "provisioned"]
    rekognition.ask(run, table(run), 1)
    assert len(server.calls) == 39 + 5
    assert rekognition.read_answers(run, table(run)).notna().all()


def test_a_call_that_hangs_is_tried_again(server, run, quick):
    server.script = ["hang", "hang"]
    rekognition.ask(run, table(run), 1)
    assert rekognition.read_answers(run, table(run)).notna().all()


@pytest.mark.parametrize("behaviour", ["500", "cut", "cut short", "log-in page"])
def test_trying_again_comes_to_an_end(server, run, quick, monkeypatch, behaviour):
    monkeypatch.setattr(aws, "CALLS", 2)
    monkeypatch.setattr(rekognition, "PATIENCE", 3)
    server.script = [None] * 5
    server.always = behaviour
    with pytest.raises(UserError, match="no answer 3 times in a row .*Every answer until then is kept"):
        rekognition.ask(run, table(run), 1)
    assert 5 + 3 <= len(server.calls) <= 5 + 3 * 8 < 5 + 34
    assert rekognition.read_answers(run, table(run)).notna().sum() in (5, 6)  # one picture stands there twice


def test_a_picture_that_gets_no_answer_is_named_and_the_others_go_on(server, run):
    (run.root / "frames" / "03.jpg").write_bytes(b"no picture")
    Image.new("RGB", (79, 200)).save(run.root / "frames" / "05.jpg")
    noise = np.random.default_rng(1).integers(0, 256, (1500, 1500, 3), np.uint8)
    Image.fromarray(noise).save(run.root / "frames" / "07.jpg", format="PNG")
    with pytest.raises(UserError) as problem:
        rekognition.ask(run, table(run), 1)
    for text in ("3 of 39 pictures got no answer", "03.jpg (InvalidImageFormatException)", "05.jpg (InvalidParameter",
                 "07.jpg (ImageTooLargeException)"):  # fmt: skip
        assert text in str(problem.value)
    answers = rekognition.read_answers(run, table(run))
    assert list(answers.index[answers.isna()]) == [3, 5, 7]
    assert rekognition.note(answers).endswith("37 of 40 frames answered")


@pytest.mark.parametrize(
    ("variables", "behaviour", "sentence"),
    [
        ({}, "refuse", "Amazon refused the AWS credentials"),
        ({"AWS_SECRET_ACCESS_KEY": "another"}, None, "Amazon refused the AWS credentials"),
        ({}, "denied", "may not call DetectFaces"),
        ({}, "expired", "have expired"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, None, "There are no AWS credentials"),
        ({"AWS_SECRET_ACCESS_KEY": ""}, None, "credentials are not complete"),
        ({"AWS_DEFAULT_REGION": ""}, None, "There is no AWS region"),
        ({"AWS_DEFAULT_REGION": "mars 1!"}, None, "is not the name of a region"),
        ({"AWS_DEFAULT_REGION": "mars-north-1", "AWS_ENDPOINT_URL_REKOGNITION": ""}, None, "knows no Rekognition in"),
        ({"AWS_ENDPOINT_URL_REKOGNITION": "htp:/nowhere"}, None, "is no address"),
        ({"AWS_ENDPOINT_URL_REKOGNITION": "http://127.0.0.1:port"}, None, "is no address"),
        ({"AWS_ACCESS_KEY_ID": f"{KEY}\n"}, None, "no blank or line break got into the keys"),
        ({"AWS_PROFILE": "nobody"}, None, "AWS_PROFILE names a profile"),
        ({"AWS_ENDPOINT_URL_REKOGNITION": "http://127.0.0.1:9"}, None, "Rekognition cannot be reached"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence(server, run, monkeypatch, capsys, quick, variables, behaviour, sentence):
    for name, value in variables.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    server.always = behaviour
    with pytest.raises(UserError, match=sentence) as problem:
        rekognition.ask(run, table(run), 1)
    assert len(server.calls) <= aws.CALLS
    assert "39/39" not in capsys.readouterr().out  # the progress bar counts what was asked
    assert not any(hidden in str(problem.value) for hidden in (KEY, SECRET, "another", "123456789012"))


def test_a_role_that_is_not_given_is_one_sentence(server, run, monkeypatch, tmp_path):
    role = "[profile role]\nrole_arn = arn:aws:iam::123456789012:role/r\nsource_profile = keys\n[profile keys]\n"
    (tmp_path / "config").write_text(f"{role}aws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "role")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", server.url)
    with pytest.raises(UserError, match=r"AWS gives no keys for the profile or role that is set \(AccessDenied\)"):
        rekognition.ask(run, table(run), 1)
    assert not server.calls


def test_a_frame_that_is_gone_is_one_sentence(run):
    (run.root / "frames" / "07.jpg").unlink()
    with pytest.raises(UserError, match="07.jpg cannot be read .*: run 01_preprocess again"):
        rekognition.read_answers(run, table(run))


def test_killed_in_the_middle_it_goes_on_and_ends_with_the_same_table(server, run):
    rekognition.ask(run, table(run), 1)
    whole = emotions.best_of_five(emotions.table(rekognition.read_answers(run, table(run))))
    rekognition.answers_file(run).unlink()
    server.calls.clear()
    server.seconds = 0.3
    first = asked_in_a_process(run)
    while len(server.calls) < 10:
        assert first.poll() is None
        time.sleep(0.01)
    first.kill()
    first.wait()
    time.sleep(0.5)  # what was in flight is answered, to nobody
    before = len(server.calls)
    kept = len(rekognition.answers_file(run).read_text().splitlines())
    assert before - aws.CALLS - 1 <= kept < 39
    with open(rekognition.answers_file(run), "a") as file:
        file.write('{"picture": "cut o')
    again = asked_in_a_process(run)
    printed, _ = again.communicate(timeout=60)
    assert again.returncode == 0
    assert len(server.calls) - before == 39 - kept
    assert json.loads(printed.splitlines()[-1]) == whole.round(9).tolist()


def test_interrupted_it_keeps_the_answers_to_the_calls_under_way(server, run):
    server.seconds = 0.5
    process = asked_in_a_process(run)
    while len(server.calls) < 10:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode and "KeyboardInterrupt" in errors
    assert len(rekognition.answers_file(run).read_text().splitlines()) == len(server.calls) < 39


def test_two_runs_at_once_ask_once_and_spoil_nothing(server, run):
    server.seconds = 0.2
    both = [asked_in_a_process(run)]
    while not server.calls:
        assert both[0].poll() is None
        time.sleep(0.01)
    server.seconds = 1  # so that the first is not done before the second has begun
    both.append(asked_in_a_process(run))
    printed = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert len(server.calls) == 39
    assert printed[0][0].splitlines()[-1] == printed[1][0].splitlines()[-1]
    assert sum("Another process is at work on" in errors for _, errors in printed) == 1
    assert len([json.loads(line) for line in rekognition.answers_file(run).read_text().splitlines()]) == 39


def test_a_full_disk_ends_the_run_in_one_sentence(server, run):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    rekognition.answers_file(run).touch()
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(UserError, match="could not be written .* disk is full.* Every answer until then is kept"):
            rekognition.ask(run, table(run), 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    kept = rekognition.read_answers(run, table(run)).notna().sum()
    whole = [line for line in rekognition.answers_file(run).read_bytes().split(b"\n")[:-1] if line]
    assert 0 < kept < 20 and len([json.loads(line) for line in whole]) in (kept - 1, kept)
    assert rekognition.answers_file(run).read_bytes().endswith(b"\n")  # nothing of the line that found no room
    assert len(server.calls) <= len(whole) + aws.CALLS
    rekognition.ask(run, table(run), 1)
    assert rekognition.read_answers(run, table(run)).notna().all()


def test_colabs_secrets_are_used_and_stay_secrets(server, run, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    secrets = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
    colab = types.ModuleType("google.colab")
    colab.userdata = types.SimpleNamespace(
        SecretNotFoundError=type("SecretNotFoundError", (Exception,), {}),
        NotebookAccessError=type("NotebookAccessError", (Exception,), {}),
    )

    def get(name):
        if name not in secrets:
            raise colab.userdata.SecretNotFoundError
        if isinstance(secrets[name], Exception):
            raise secrets[name]
        return secrets[name] + "\n"  # as it is pasted

    colab.userdata.get = get
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    rekognition.ask(run, table(run), 1)
    assert len(server.calls) == 39
    assert not any(SECRET in value for value in os.environ.values())
    for problem in (colab.userdata.NotebookAccessError(), TimeoutError()):
        secrets["AWS_SECRET_ACCESS_KEY"] = problem
        with pytest.raises(UserError, match="Colab does not give its secret AWS_SECRET_ACCESS_KEY"):
            aws.connect()
    del secrets["AWS_SECRET_ACCESS_KEY"]
    with pytest.raises(UserError, match="credentials are not complete"):
        aws.connect()


def test_both_scores_in_a_case_written_out(tmp_path):
    answers = pd.Series([
        {"answer": {"FaceDetails": [{"BoundingBox": {"Width": 0.1, "Height": 0.1}, "Emotions": [
            {"Type": name, "Confidence": share} for name, share in shares.items()]}] if shares else []}}
        for shares in (
            {"HAPPY": 35, "ANGRY": 30, "FEAR": 30, "CALM": 5},  # Happy first, but AngryFearful in all
            {"SURPRISED": 60, "FEAR": 30, "SAD": 10},  # first in none of the five
            {"CALM": 90, "SAD": 10},
            {},  # no face
        )
    ])  # fmt: skip
    seen = emotions.table(answers)
    assert list(seen["first"]) == ["HAPPY", "SURPRISED", "CALM", emotions.NO_FACE]
    expected = [[0.6, 0, 0.35, 0.05, 0], [0.75, 0, 0, 0, 0.25], [0, 0, 0, 0.9, 0.1], [0] * 5]
    np.testing.assert_allclose(emotions.best_of_five(seen), expected)
    np.testing.assert_allclose(emotions.top_prediction(seen), [[0, 0, 1, 0, 0], [0] * 5, [0, 0, 0, 1, 0], [0] * 5])
    truth = ["AngryFearful", "AngryFearful", "NeutralCalm", "AngryFearful"]
    frames = pd.DataFrame({"path": list("abcd"), "clip": list("abcd"), "actor": 20, "split": "test", "label": truth})
    accuracy = [
        scoring.scores(scoring.write_predictions(tmp_path / "m.csv", frames, p))["accuracy"][0]
        for p in (emotions.best_of_five(seen), emotions.top_prediction(seen))
    ]
    assert accuracy == [0.75, 0.25]  # no face is a miss, of the first class too


def test_the_simulated_answers_follow_from_their_table(tmp_path):
    assert (simulated.SHARES.sum(axis=1) == 100).all()
    lines = [json.loads(line) for line in rekognition.SIMULATED_ANSWERS.read_text("utf-8").splitlines()]
    assert all(line["simulated"] for line in lines)
    simulated.write((line["picture"] for line in lines), tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == rekognition.SIMULATED_ANSWERS.read_bytes()
    clips = [ravdess.ClipName.parse(line["picture"].rpartition("_")[0]) for line in lines]
    assert {clip.actor for clip in clips} == set(range(15, 25))
    pictures = [f"{clip}_{k:02d}.jpg" for clip in clips[::5] for k in range(40)]
    seen = emotions.table(pd.Series([{"answer": simulated.simulate(picture)} for picture in pictures]))
    labels = [ravdess.ClipName.parse(picture.rpartition("_")[0]).label for picture in pictures]
    shares = 100 * pd.crosstab(np.array(labels), seen["first"], normalize="index")
    assert (shares.reindex(columns=simulated.SHARES.columns, fill_value=0) - simulated.SHARES).abs().max().max() < 6


@pytest.fixture
def other_data(tmp_path, monkeypatch):
    """Notebook 04's input on clips that are not the sample: 01 is done, the notebook is to come."""
    clips = some_clips(tmp_path / "my clips", actors=(1, 15, 20), each=2)
    run = Run(clips, tmp_path / "runs" / clips.name)
    frames.prepare(ravdess.find_clips(clips)[0], run.root)
    monkeypatch.setenv("DATA", str(clips))
    monkeypatch.setenv("RUNS", str(run.root.parent))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    return run


def executed(run):
    """Execute 04, and return all that it shows."""
    target = run.root / "04_rekognition_baseline.ipynb"
    report.execute(report.NOTEBOOKS / target.name, target)
    outputs = [o for c in nbformat.read(target, 4).cells if c.cell_type == "code" for o in c.outputs]
    assert not any(o.output_type == "error" or o.get("name") == "stderr" for o in outputs)
    return "\n".join(o.get("text") or o["data"].get("text/markdown") or o["data"]["text/plain"] for o in outputs)


def test_the_notebook_without_an_account_says_what_is_missing_and_writes_nothing(other_data):
    gone = other_data.path("predictions", "rekognition.csv"), other_data.path("imgs", "baseline1.png")
    for path in gone:
        path.write_text("of answers that are gone")
    shown = executed(other_data)
    assert "There are no AWS credentials: set AWS_ACCESS_KEY_ID" in shown and "48%" in shown
    assert "Traceback" not in shown and "SIMULATED" not in shown
    assert not any(path.exists() for path in gone)


def test_the_notebook_with_an_account_asks_scores_and_tells_no_secret(other_data, server, monkeypatch):
    monkeypatch.setenv("REKOGNITION_LIMIT", "1")
    server.always = "refuse"
    shown = executed(other_data)
    assert "Amazon refused the AWS credentials" in shown and len(server.calls) <= aws.CALLS
    monkeypatch.setenv("REKOGNITION_LIMIT", "0.003")
    server.always = "no face"
    shown += executed(other_data)
    [predicted] = {*scoring.read_all_predictions(other_data.root / "predictions")["rekognition"]["predicted"]}
    assert predicted == scoring.NO_CLASS and "3 of 20 frames answered" in shown
    monkeypatch.setenv("REKOGNITION_LIMIT", "1")
    server.always = None
    shown += executed(other_data)
    predictions = scoring.read_all_predictions(other_data.root / "predictions")
    assert list(predictions) == ["rekognition", "rekognition_top"]
    expected = frames.read_frames(other_data.root / "frames.csv").query("split != 'train'")
    for predicted in predictions.values():
        assert list(predicted["path"]) == list(expected["path"])
        assert set(predicted["note"]) == {"answers of 127.0.0.1, not of Amazon"}
    assert "not of Amazon" in Image.open(other_data.root / "imgs" / "baseline1.png").info["Title"]
    files = [path for path in other_data.root.parent.rglob("*") if path.is_file()]
    assert rekognition.answers_file(other_data) in files
    for hidden in (KEY, SECRET):
        assert hidden not in shown
        assert not [path for path in files if hidden.encode() in path.read_bytes()]


def test_the_sample_is_never_sent_and_everything_of_it_says_simulated(server, tmp_path, monkeypatch):
    monkeypatch.setenv("REKOGNITION_LIMIT", "1")
    monkeypatch.setenv("RUNS", str(tmp_path))
    run = Run(SAMPLE, tmp_path / SAMPLE.name)
    clips = {name: path for name, path in ravdess.find_clips(SAMPLE)[0].items() if name.actor in (1, 15, 20)}
    frames.prepare(clips, run.root)
    shown = executed(run)
    unknown = frames.read_frames(run.root / "frames.csv").replace({"path": {r"_00\.jpg": "_99.jpg"}}, regex=True)
    assert rekognition.read_answers(run, unknown).isna().any()
    rekognition.ask(run, unknown, 1)
    assert not server.calls and not rekognition.answers_file(run).exists()
    for predicted in scoring.read_all_predictions(run.root / "predictions").values():
        assert set(predicted["note"]) == {rekognition.SIMULATED}
    titles = [Image.open(path).info["Title"] for path in (run.root / "imgs").glob("*.png")]
    assert len(titles) == 2 and all(title.endswith(rekognition.SIMULATED) for title in titles)
    assert "answered already (SIMULATED)" in shown and shown.count(rekognition.SIMULATED) >= 7


def test_answers_are_made_up_for_the_sample_only(other_data):
    before = rekognition.SIMULATED_ANSWERS.read_bytes()
    done = subprocess.run([sys.executable, "-m", "helpers.simulated"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode and "for the drawn sample only, and DATA is the my clips" in done.stderr
    assert rekognition.SIMULATED_ANSWERS.read_bytes() == before


def test_the_readme_gives_the_price_that_is_reckoned_with():
    text = (REPOSITORY / "README.md").read_text("utf-8")
    frames = sum(evaluation.report_2020()["frames"][split].sum() for split in ("val", "test"))
    assert f"{rekognition.PRICE} US dollars" in text and f"RAVDESS's {frames:,}" in text
    assert f"cost {frames * rekognition.PRICE:.2f}" in text
