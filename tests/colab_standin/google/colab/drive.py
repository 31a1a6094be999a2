from pathlib import Path


def mount(mountpoint):
    Path(mountpoint, "MyDrive").mkdir(parents=True, exist_ok=True)
