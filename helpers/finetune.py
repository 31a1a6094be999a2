"""The training of 02's better AlexNet alone, for several GPUs or machines: `accelerate launch -m helpers.finetune`.

It does what 02 does, in as many processes as are started, and leaves a finished checkpoint. 02 finds it, trains
nothing, and goes on from there. All processes need the run's folder: on several machines, RUNS on a disk they share.
On processors it is `torchrun --nproc-per-node 2 -m helpers.finetune`, with ACCELERATE_USE_CPU=true.

With BACKBONE in the environment (`make backbone BACKBONE=resnet18`) another network of torchvision is trained, on the
upright faces of 06, in one process; `predictions/<name>_upright.csv` comes of it, which 05 compares with all others.
"""

import os
import sys
from pathlib import Path

from helpers.beyond import WHOLE
from helpers.features import crops, state
from helpers.frames import read_frames
from helpers.images import FACE_TRANSFORM
from helpers.networks import face_alexnet, face_backbone
from helpers.scoring import scores, write_predictions
from helpers.training import FINE_TUNING, fit, labels_and_rows, probabilities
from helpers.workspace import UserError, open_run, shown, weights, write_table


def main():
    """Train the fine-tuned AlexNet of DATA's run; `models/alexnet.pth` and `history/alexnet.csv` come of it."""
    run, here = open_run(), state()
    table = read_frames(run.need("frames.csv", notebook="01_preprocess"))
    labels, rows = labels_and_rows(table)
    with here.main_process_first():  # one makes what is kept of the frames, the others read it
        faces = crops([run.root / path for path in table["path"]], run.path("features"), FACE_TRANSFORM)
    file = run.path("models", "alexnet.pth")
    history = fit(face_alexnet(weights()), faces, labels, rows["train"], rows["val"], FINE_TUNING, file)
    if here.is_main_process:
        write_table(run.path("history", "alexnet.csv"), history)
        best = history.loc[history["val_accuracy"].idxmax()]
        print(f"{here.num_processes} processes, {len(history)} epochs, {shown(file)}: ", end="")
        print(f"{best['val_accuracy']:.1%} of the validation frames after epoch {best['epoch']:.0f}")
    here.wait_for_everyone()


def another(name):
    """Fine-tune one of torchvision's classifiers by name; UserError if there is none, or 06 has not been run."""
    run = open_run()
    table = read_frames(run.need("frames.csv", notebook="01_preprocess"))
    labels, rows = labels_and_rows(table)
    folder = run.need("features", "upright", notebook="06_beyond_the_report")
    paths = [folder / Path(path).name for path in table["path"]]
    network = face_backbone(name, "none" if weights() == "none" else "imagenet")
    faces = crops(paths, run.path("features"), WHOLE)
    file = run.path("models", f"{name}_upright.pth")
    history = fit(network, faces, labels, rows["train"], rows["val"], FINE_TUNING, file)
    write_table(run.path("history", f"{name}_upright.csv"), history)
    p = probabilities(network, faces, mirrored=True)
    found = scores(write_predictions(run.path("predictions", f"{name}_upright.csv"), table, p, network.note))
    print(found.round(3).to_string(index=False))


if __name__ == "__main__":
    try:
        another(os.environ["BACKBONE"]) if os.environ.get("BACKBONE") else main()
    except (UserError, OSError) as problem:
        sys.exit(f"\n{problem}")
