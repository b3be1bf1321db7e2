"""What is typed on a device before its engines can be built: trtexec, Python and numpy, and TensorRT's Python module.

Sources: docs.nvidia.com/deeplearning/tensorrt/11.4.1/installing-tensorrt (install-debian.html for the packages,
installing.html for the wheels, which lack trtexec, install-alternative.html for JetPack 7.2.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekd.exporting.runtimes.tensorrt.releases import EXPLICIT_INT8, SBSA

if TYPE_CHECKING:
    from edgekd.exporting.targets import Target

_DOWNLOAD = "https://developer.nvidia.com/tensorrt/download"


def trtexec_from(target: Target) -> str:
    """What to do where there is no trtexec."""
    assert target.tensorrt is not None
    if target.architecture == "aarch64" and target.tensorrt.release < SBSA:
        return "sudo apt install nvidia-jetpack"
    system = "Linux x86-64" if target.architecture == "x86_64" else "Linux SBSA"
    return f"install TensorRT {target.tensorrt.version} for {system} from {_DOWNLOAD}"


def commands(target: Target) -> tuple[str, ...]:
    """The lines of a shell, and comments, for the README of a bundle."""
    assert target.tensorrt is not None
    version, release = target.tensorrt.version, target.tensorrt.release
    if target.architecture == "x86_64":
        return f"# {trtexec_from(target)}", f"python3 -m pip install 'tensorrt=={version}.*' numpy"
    if release >= SBSA:
        return f"# {trtexec_from(target)} (the .deb)", "sudo apt install tensorrt python3-libnvinfer python3-numpy"
    if release < EXPLICIT_INT8:  # its JetPack has Python 3.6, and a module for that alone
        return (
            "sudo apt install nvidia-jetpack python3.8 python3.8-venv",
            "python3.8 -m venv env",
            ". env/bin/activate      # in each shell, for python3 to be this one",
            "python3 -m pip install -U pip",
            "python3 -m pip install numpy",
        )
    return ("sudo apt install nvidia-jetpack python3-libnvinfer python3-numpy",)
