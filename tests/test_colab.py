"""Colab, played: an environment that has PyTorch and little else, an empty folder, and everything else from its place.

The packages are this environment's own, linked into another; what is lacking there comes from where pip gets packages.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from helpers import colab, report
from helpers.frames import prepare
from helpers.ravdess import find_clips
from helpers.workspace import REPOSITORY, UserError
from tests.test_frames import some_clips
from tests.test_report import copy_of_the_repository, git
from tests.zenodo_server import Zenodo, archive

THERE = "torch torchvision numpy pandas matplotlib ipykernel pip".split()
ADDRESS = "https://github.com/OWNER/REPOSITORY.git"


def with_all_they_need(names):
    """The distributions of some packages and of all that those need."""
    todo, found = list(names), {}
    while todo:
        name = canonicalize_name(todo.pop())
        if name not in found:
            found[name] = distribution(name)
            needs = map(Requirement, found[name].requires or [])
            todo += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found.values()


def linked(path, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, target)
    except OSError:  # on another disk
        shutil.copy2(path, target)


@pytest.fixture(scope="module")
def machine():
    """An environment as Colab's is at first. It lies in this one, so that files can be linked."""
    folder = Path(tempfile.mkdtemp(prefix="colab-", dir=sys.prefix))
    try:
        venv.create(folder / "env")
        [site] = folder.glob("env/**/site-packages")
        for found in with_all_they_need(THERE):
            for file in found.files:
                shared = (site / file).exists()  # as the __init__.py of NVIDIA's packages
                if ".." not in file.parts and "__pycache__" not in file.parts and not shared:
                    linked(found.locate_file(file), site / file)
        (site / "colab.pth").write_text(f"{REPOSITORY / 'tests' / 'colab_standin'}\nimport google.colab\n", "utf-8")
        yield folder / "env"
    finally:
        shutil.rmtree(folder)


def python(machine, *arguments):
    done = subprocess.run([machine / "bin" / "python", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def packages(machine):
    return {p["name"].lower(): p["version"] for p in json.loads(python(machine, "-m", "pip", "list", "--format=json"))}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return copy_of_the_repository(tmp_path_factory.mktemp("github") / "faces")


@pytest.fixture
def content(tmp_path, machine, repository, monkeypatch):
    """The empty folder that Colab's notebooks start in, its kernel, and git told where the repository lies."""
    kernel = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    argv = [str(machine / "bin" / "python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    for name in ("DATA", "RUNS", "PYTHONPATH"):
        monkeypatch.delenv(name)
    settings = {"GIT_CONFIG_COUNT": 1, "GIT_CONFIG_KEY_0": f"url.{repository.as_uri()}.insteadOf"}
    for name, value in {**settings, "GIT_CONFIG_VALUE_0": ADDRESS, "JUPYTER_PATH": tmp_path / "jupyter"}.items():
        monkeypatch.setenv(name, str(value))
    (tmp_path / "content").mkdir()
    return tmp_path / "content"


def opened(name, changes):
    """A notebook as Colab opens it, alone and without outputs, with some text in its cells replaced."""
    notebook = nbformat.read(report.NOTEBOOKS / name, as_version=4)
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        cell.outputs = []
        for old, new in changes.items():
            cell.source = cell.source.replace(old, new)
    return notebook


def run_in(content, notebook):
    """Run a notebook there; what its cells print."""
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=300, extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(content)}},
    )  # fmt: skip
    client.execute()
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl, for a certificate")
def test_01_on_colab_from_an_empty_folder_to_frames_of_ravdess(content, machine, tmp_path):
    clips = some_clips(tmp_path / "clips", each=7)
    archives = [archive(tmp_path, n, (clips / f"Actor_{n:02d}").glob("*.mp4")) for n in (1, 15, 20)]
    faults = {"Video_Speech_Actor_15.zip/content": ["cut", 429, "lie"], "records/1188976": [503]}
    before = packages(machine)
    with Zenodo(tmp_path, archives, faults) as server:
        proxy = f"os.environ.update(HTTPS_PROXY='{server.url}', REQUESTS_CA_BUNDLE='{server.certificate}', NO_PROXY='')"
        changes = {
            "keep_on_drive = False": "keep_on_drive = True",
            "actors = []": f"import os; {proxy}; zenodo.WAITS = (0,) * 4; actors = [1, 15, 20]",
        }
        said = run_in(content, opened("01_preprocess.ipynb", changes))
        after = packages(machine)
        assert before.items() <= after.items()  # torch, torchvision and numpy among them
        assert {"captum", "pooch", "boto3", "lightgbm", "imageio-ffmpeg"} <= set(after) - set(before)
        assert "Installed: accelerate>=" in said and not {"jupyterlab", "nbval"} & set(after)
        assert "Runtime → Change runtime type → T4 GPU" in said or "GPU: " in said
        assert "3 actors, 1.8 GB to download" in said and "21 clips of 3 actors to use" in said
        frames = pd.read_csv(content / "faces" / "data" / "runs" / "ravdess" / "frames.csv")
        assert set(frames["actor"]) == {1, 15, 20} and set(frames["split"]) == {"train", "val", "test"}
        assert git(content / "faces", "status", "--porcelain") == ""

        # the session is lost, and another one goes on with what is on Drive
        shutil.rmtree(content / "faces")
        asked = len(server.asked)
        said = run_in(content, opened("01_preprocess.ipynb", changes))
        assert len(server.asked) == asked and "Installed" not in said and "21 clips of 3 actors to use" in said
        again = pd.read_csv(content / "faces" / "data" / "runs" / "ravdess" / "frames.csv")
        pd.testing.assert_frame_equal(again, frames)


def test_a_notebook_opened_alone_has_the_earlier_ones_run_first(content, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", str(some_clips(tmp_path / "my clips")))
    notebook = opened("04_rekognition_baseline.ipynb", {})
    notebook.cells = notebook.cells[:6]
    said = run_in(content, notebook)
    assert (
        "so run now, on the my clips: 01_preprocess" in said
        and "[1/1] 01_preprocess" in said
        and "Data: my clips" in said
    )
    assert (content / "faces" / "data" / "runs" / "my clips" / "01_preprocess.ipynb").exists()
    assert "so run now" not in run_in(content, notebook)


def wheel(folder, name, version, needs=""):
    """A package that holds nothing, as pip installs it."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as zipped:
        zipped.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        zipped.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        zipped.writestr(f"{info}/RECORD", "")


def test_what_is_there_is_never_changed(machine, tmp_path, monkeypatch):
    """A package that wants another numpy is refused, though that numpy is to be had."""
    wheel(tmp_path, "numpy", "0.1")
    wheel(tmp_path, "needy", "1.0", "Requires-Dist: numpy<1\n")
    wheel(tmp_path, "modest", "1.0", "Requires-Dist: numpy\n")
    for name, value in {"PIP_NO_INDEX": 1, "PIP_FIND_LINKS": tmp_path, "PYTHONPATH": REPOSITORY}.items():
        monkeypatch.setenv(name, str(value))
    before = packages(machine)
    install = "from helpers import colab\ntry:\n colab.install([{!r}])\nexcept colab.UserError as said:\n print(said)"
    assert "could not install needy>=1 beside what is here: ERROR" in python(machine, "-c", install.format("needy>=1"))
    assert packages(machine) == before
    assert python(machine, "-c", install.format("modest>=1")) == "Installed: modest>=1.\n"
    assert packages(machine) == before | {"modest": "1.0"}


def test_what_is_here_under_another_name_is_not_lacking(tmp_path, monkeypatch):
    def version(name):
        if name != "dlib":
            raise PackageNotFoundError(name)
        return "19.24.6"

    monkeypatch.setattr(colab, "version", version)
    (tmp_path / "requirements.txt").write_text("dlib-bin >= 19.24.6  # 06\nlightgbm >= 4.3\n")
    assert colab.lacking(tmp_path / "requirements.txt") == ["lightgbm>=4.3"]


def test_what_cannot_be_installed_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "old.txt").write_text("numpy >= 999.1 # all\n", "utf-8")
    with pytest.raises(UserError, match=r"numpy .* is too old here, and 999.1 is needed: take a newer runtime"):
        colab.lacking(tmp_path / "old.txt")
    (tmp_path / "lacking.txt").write_text("# A comment\nno-such-thing >= 1.2 # 01\n\nnor-this >= 1", "utf-8")
    assert colab.lacking(tmp_path / "lacking.txt") == ["no-such-thing>=1.2"] and colab.lacking() == []
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(UserError, match="pip could not install no-such-thing>=1.2 beside what is here: ERROR"):
        colab.install(["no-such-thing>=1.2"])


def test_a_package_that_was_half_installed_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "requirements.txt").write_text("boto3 >= 1.34\n")
    for wrong in (None, "", "unknown"):
        monkeypatch.setattr(colab, "version", lambda name, wrong=wrong: wrong)
        with pytest.raises(UserError, match="boto3 .*"):
            colab.lacking(tmp_path / "requirements.txt")


def test_frames_that_are_lost_are_made_again(tmp_path):
    clips, _ = find_clips(some_clips(tmp_path / "clips", actors=(1,)))
    table, _ = prepare(clips, tmp_path)
    assert colab._is_made(tmp_path / "frames.csv") and not colab._is_made(tmp_path / "metrics.json")
    (tmp_path / table["path"].iloc[-1]).unlink()
    assert not colab._is_made(tmp_path / "frames.csv")


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(colab, "install", None)  # would be called
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    assert colab.host() is None and colab.set_up("01_preprocess", keep_on_drive=True) is None
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert colab.host() == "Kaggle" and ("Accelerator" in colab.gpu() or "GPU: " in colab.gpu())
