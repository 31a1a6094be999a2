"""A notebook on a hosted machine, Colab's or Kaggle's: what it needs there before anything else can be imported.

Nothing that is installed there is changed, above all not torch, torchvision and numpy, which fit that machine's driver
and each other: only what is lacking is added. Outside Colab and Kaggle nothing is done at all. At import this module
needs Python alone.
"""

import os
import re
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from helpers.workspace import REPOSITORY, UserError, open_run, runs

GPU = {"Colab": "Runtime → Change runtime type → T4 GPU", "Kaggle": "Settings → Accelerator → GPU"}
NEEDS = {  # which notebooks must have run before one, and what shows that they have
    "02_alexnet_train": {"01_preprocess": "frames.csv"},
    "03_cnn_lightgbm": {"01_preprocess": "frames.csv", "02_alexnet_train": "predictions/alexnet.csv"},
    "04_rekognition_baseline": {"01_preprocess": "frames.csv"},
    "05_evaluate": {
        "01_preprocess": "frames.csv", "02_alexnet_train": "predictions/alexnet.csv",
        "03_cnn_lightgbm": "predictions/clip_lightgbm.csv",
    },
    "06_beyond_the_report": {"01_preprocess": "frames.csv", "02_alexnet_train": "predictions/alexnet.csv"},
}  # fmt: skip

ALIASES = {"dlib-bin": "dlib"}  # the same under another name, by which Colab has it

VERSION = r"\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(\+[\w.]+)?"  # as pip reads them; Debian has others


def host():
    """`"Colab"`, `"Kaggle"`, or None anywhere else."""
    if "google.colab" in sys.modules:
        return "Colab"
    return "Kaggle" if "KAGGLE_KERNEL_RUN_TYPE" in os.environ else None


def set_up(notebook, keep_on_drive=False):
    """Make a hosted machine ready for a notebook; does nothing elsewhere.

    Installs what is lacking and says what GPU there is. Every notebook has a machine of its own there, so those that
    must come before it are run too, unless what they make is there already, from Drive for instance.
    """
    if host() is None:
        return
    install(lacking())
    print(gpu())
    if keep_on_drive and host() == "Colab":
        _keep_on_drive()
    earlier = [name for name, made in NEEDS.get(notebook, {}).items() if not _is_made(open_run().root / made)]
    if earlier:
        print(f"Not run on this machine yet, so run now, on the {open_run().title}: {', '.join(earlier)}", flush=True)
        _run(earlier)


def _is_made(file):
    """Whether what an earlier notebook makes is here; with `frames.csv` the frames, too."""
    if file.name != "frames.csv" or not file.exists():
        return file.exists()
    from helpers.frames import read_frames

    return all((file.parent / path).exists() for path in read_frames(file)["path"])


def _run(notebooks):
    """In a process of its own, which ends with this one and shows what it prints here."""
    command = [sys.executable, "-m", "helpers.report", *notebooks]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as work:
        try:
            for line in work.stdout or ():
                print(line, end="", flush=True)
            work.wait()
        except BaseException:  # stopped
            work.kill()
            raise
    if work.returncode:
        raise UserError(f"{' or '.join(notebooks)} failed here, see above: run it by itself.")


def lacking(file=REPOSITORY / "requirements.txt"):
    """What the notebooks need and this machine has not, as requirements; the part of the file up to its empty line.

    UserError if something is there but too old: it is not changed.
    """
    found = []
    for line in file.read_text("utf-8").split("\n\n")[0].splitlines():
        if not (need := re.match(r"([\w-]+) *>= *([\d.]+)", line)):
            continue
        name, least = need.groups()
        here = _version(name) or _version(ALIASES.get(name, name))
        if here is None:
            found.append(f"{name}>={least}")
            continue
        if not re.match(r"\d", here):  # of an installation that was cut off
            raise UserError(f"{name} is broken here (its version is “{here}”): take a newer runtime.")
        if _numbers(here) < _numbers(least):
            raise UserError(f"{name} {here} is too old here, and {least} is needed: take a newer runtime.")
    return found


def _version(name):
    """What version of a package is here; None without it, "" where its installation was cut off."""
    try:
        return version(name) or ""
    except PackageNotFoundError:
        return None


def install(requirements):
    """Install packages with pip and leave every package that is there at its version; UserError if that cannot be."""
    if not requirements:
        return
    there: dict[str, str] = {}
    for found in distributions():  # as for imports, the first of a name counts
        there.setdefault(re.sub("[-_.]+", "-", found.metadata["Name"] or "").lower(), found.version)
    pins = [f"{name}=={number}" for name, number in there.items() if name and re.fullmatch(VERSION, number or "")]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder, "constraints.txt")
        constraints.write_text("\n".join(pins), "utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run([*command, "-c", constraints, *requirements], capture_output=True, text=True)
    if done.returncode:
        reason = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["it gave no reason"]
        hint = " On Kaggle, switch Internet on (Settings)." if host() == "Kaggle" else ""
        raise UserError(f"pip could not install {', '.join(requirements)} beside what is here: {reason[0]}.{hint}")
    print(f"Installed: {', '.join(requirements)}.")


def gpu():
    """What GPU there is, in a sentence, or how to get one."""
    import torch

    if torch.cuda.is_available():
        return f"GPU: {torch.cuda.get_device_name()}."
    return f"There is no GPU, so 02 and 03 take long on real clips. To switch one on: {GPU[host()]}, and run again."


def _keep_on_drive():
    from google.colab import drive

    from helpers.keeping import keep

    mount = REPOSITORY.parent / "drive"  # /content/drive on Colab
    drive.mount(str(mount))
    copy = mount / "MyDrive" / "faces-runs"
    keep(runs(), copy)
    print(f"Runs are kept in {copy}, where the next session finds them.")


def _numbers(text):
    return [int(part) for part in re.split(r"\.?[^\d.]", text)[0].split(".")]  # 2.4 of 2.4rc1, 2.4.dev0, 2.4+cu121
