"""Run the backbone in PyTorch, ONNX Runtime or OpenVINO behind one call.

The computations after the backbone stay in PyTorch.

auto           the fastest of those that are installed, see `runtime_choice`; until an image size
               has come some times, PyTorch reads it
torch          bfloat16 where the processor has instructions for it, else float32
torch-fp32     float32
torch-bf16     bfloat16
torch-compile  as torch, compiled with CUDA graphs; CUDA only, and not measured yet
onnx           ONNX Runtime on the CPU, float32
onnx-int8      the same with weights of 8 bits, see `quantize`
openvino
    OpenVINO on the CPU, bfloat16 where the processor has instructions for it, else float32
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uns_pose_ros.core.device import Precision, choose_device, choose_precision
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.runtime_names import RUNTIMES
from uns_pose_ros.networks.dinov2 import CHANNELS, PATCH, DinoV2, load_backbone
from uns_pose_ros.networks.onnx_export import backbone_graph
from uns_pose_ros.networks.pretrained_weights import cache_folder, find_intact
from uns_pose_ros.networks.runtime_choice import (
    USUAL,
    Network,
    RuntimeChoice,
    choose_fastest,
    describe_machine,
)

_PACKAGES = {
    "onnx": ("onnx", "onnxruntime"),
    "onnx-int8": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
}
# matrices of the first two blocks, whose channels differ most in size, stay float32: without them
# the mean cosine of the tokens to those of float32 is 0.995 instead of 0.989
_EXACT_MATRICES = 12
_MOST_SIZES = 4  # image sizes whose compiled graphs are kept
# images of a size that PyTorch reads before a graph is made, if the runtime was not asked for: a
# graph takes the time of ten images, and a command that reads a few should not wait for it
_FEW = 20
_MEASURED = (224, 224, (11,))  # image size and layers that runtimes are measured with

# images (B, 3, H, W) to tokens (B, N, L * 384)
Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Backbone(Protocol):
    """A backbone as the Estimator calls it, see `dinov2.DinoV2.forward`."""

    precision: Precision

    def __call__(self, images: Tensor, layers: Sequence[int]) -> Tensor:
        """Map normalized images (B, 3, H, W) to tokens (L, B, H/14, W/14, 384) float32."""


def check_runtime(name: str) -> None:
    """Raise InvalidInput if no runtime has this name or its package is missing."""
    if name not in RUNTIMES:
        raise InvalidInput(f"runtime {name!r} is unknown: {', '.join(RUNTIMES)} are valid")
    require_packages(f"runtime {name}", _PACKAGES.get(name, ()))


def require_packages(label: str, packages: Sequence[str]) -> None:
    """Raise InvalidInput for the first Python package of the extra `runtimes` that is missing."""
    for package in packages:
        if find_spec(package) is None:
            fix = 'python3 -m pip install "uns_pose_ros[runtimes]"'
            raise InvalidInput(f"{label}: the Python package {package} is missing: {fix}")


def resolve_runtime(name: str = "auto", device: str = "auto") -> RuntimeChoice:
    """Return the runtime that is used for a name; for auto, it is measured once on a processor.

    Raises:
        InvalidInput: The runtime or the device is unknown, or a package is missing.
    """
    check_runtime(name)
    return choose_runtime(device) if name == "auto" else RuntimeChoice(name, "as set")


def load_runtime(
    name: str = "torch", device: str = "auto", patient: bool = False
) -> tuple[Backbone, torch.device]:
    """Load the pretrained backbone in a runtime.

    Args:
        name: The runtime.
        device: The device.
        patient: Whether PyTorch reads the first images of each size, so that no graph is made for
            few images.

    Returns:
        The backbone, and the device of its tokens.

    Raises:
        InvalidInput: The runtime is unknown, its package is missing, or the device does not fit.
    """
    check_runtime(name)
    if name == "auto":
        name, patient = choose_runtime(device).name, True
    if name in _PACKAGES:
        if device not in ("auto", "cpu"):
            raise InvalidInput(
                f"runtime {name} on device {device!r}: it runs on the CPU, auto and cpu are valid"
            )
        chosen = torch.device("cpu")
        network = load_backbone(device="cpu")
        compiler, precision = _compiler(name)
        meanwhile: Backbone | None = None
        if patient:
            usual = choose_precision(chosen)
            meanwhile = (
                network if usual == "fp32" else load_backbone(device="cpu", precision=usual)
            )
        return GraphBackbone(network, compiler, precision, meanwhile), chosen
    chosen = choose_device(device)
    if name == "torch-compile" and chosen.type != "cuda":
        raise InvalidInput(
            f"runtime {name} on {chosen}: it needs CUDA; torch is valid here"
        )
    fixed: dict[str, Precision] = {"torch-fp32": "fp32", "torch-bf16": "bf16"}
    network = load_backbone(
        device=device, precision=fixed.get(name) or choose_precision(chosen)
    )
    if name == "torch-compile":
        network.compile(mode="reduce-overhead")
    return network, chosen


def choose_runtime(device: str = "auto") -> RuntimeChoice:
    """Return the fastest runtime that is installed; it is measured once on a processor.

    Raises:
        InvalidInput: The device is unknown, or the weights are missing.
    """
    chosen = choose_device(device)
    if chosen.type != "cpu":
        return RuntimeChoice(USUAL, f"the device is {chosen}")
    others = [name for name, packages in _PACKAGES.items() if all(map(find_spec, packages))]
    if not others:
        return RuntimeChoice(USUAL, "no other runtime is installed")
    find_intact("dinov2_vits14")  # without weights there is nothing to measure
    first = ["torch-fp32"] if choose_precision(chosen) == "bf16" else []
    return choose_fastest(
        [*first, USUAL, *others],
        _Candidates().load,
        cache_folder() / "choices" / "runtimes.json",
        describe_machine(),
    )


class _Candidates:
    """Runtimes that are measured; they share the weights and the exported graph."""

    def __init__(self) -> None:
        self._network: DinoV2 | None = None
        self._graph: bytes | None = None

    def load(self, name: str) -> Network:
        """Return the backbone in a runtime, for images of the measured size only."""
        if name == "torch-fp32" or (name == USUAL and self._usual_is_exact()):
            return self._exact()
        if name == USUAL:
            return load_runtime(name, "cpu")[0]
        if self._graph is None:
            self._graph = backbone_graph(self._exact(), *_MEASURED)
        compiler, _ = _compiler(name)
        run = compiler(self._graph)

        def read(images: Tensor, layers: Sequence[int]) -> Tensor:
            side = _MEASURED[0] // PATCH
            return torch.from_numpy(run(images.numpy())).view(1, -1, side, side, CHANNELS)

        return read

    def _usual_is_exact(self) -> bool:
        return choose_precision(torch.device("cpu")) == "fp32"

    def _exact(self) -> DinoV2:
        if self._network is None:
            self._network = load_backbone(device="cpu")
        return self._network


def _compiler(name: str) -> tuple[Callable[[bytes], Run], Precision]:
    """The compiler of a runtime's graphs, and their precision."""
    if name == "onnx":
        return partial(_onnxruntime, precision="fp32"), "fp32"
    if name == "onnx-int8":
        return lambda graph: _onnxruntime(quantize(graph), "fp32"), "fp32"
    precision = choose_precision(torch.device("cpu"))
    return partial(_openvino, precision=precision), precision


class GraphBackbone:
    """The backbone as graphs of another runtime, one for each image size.

    A graph is made when the first image of its size comes, or later if another backbone reads the
    first ones.
    """

    def __init__(
        self,
        network: DinoV2,
        compiler: Callable[[bytes], Run],
        precision: Precision,
        meanwhile: Backbone | None = None,
    ) -> None:
        """Store the network and the compiler.

        Args:
            network: The weights, float32 on the CPU.
            compiler: Makes a function that runs an ONNX file.
            precision: Precision in which the graphs compute.
            meanwhile: Reads the first images of each size; None: a graph is made at once.
        """
        self.precision = precision
        self._network, self._compiler, self._meanwhile = network, compiler, meanwhile
        self._graphs: dict[tuple[int, int, tuple[int, ...]], Run] = {}
        self._seen = Counter[tuple[int, int, tuple[int, ...]]]()  # images without a graph

    def __call__(self, images: Tensor, layers: Sequence[int]) -> Tensor:
        """Map normalized images (B, 3, H, W) to tokens (L, B, H/14, W/14, 384) float32."""
        height, width = images.shape[-2:]
        key = (height, width, tuple(layers))
        run = self._graphs.pop(key, None)
        if run is None and self._meanwhile is not None and self._seen[key] < _FEW:
            self._seen[key] += len(images)
            return self._meanwhile(images, layers)
        if run is None:
            run = self._compiler(backbone_graph(self._network, height, width, layers))
            self._seen[key] = 0
        self._graphs[key] = run  # the graph that was used last is dropped last
        if len(self._graphs) > _MOST_SIZES:
            del self._graphs[next(iter(self._graphs))]
        tokens = torch.from_numpy(run(images.numpy()))
        return tokens.view(
            -1, height // PATCH, width // PATCH, len(layers), CHANNELS
        ).permute(3, 0, 1, 2, 4)


def quantize(graph: bytes) -> bytes:
    """Give an ONNX file weights of 8 bits; activations are rounded as they come.

    The weights use 7 of the bits: processors without VNNI add pairs of products in 16 bits.

    Args:
        graph: What `backbone_graph` wrote.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load_from_string(graph)
    weights = {tensor.name for tensor in model.graph.initializer}
    matrices = [
        node.name
        for node in model.graph.node
        if node.op_type == "MatMul" and node.input[1] in weights
    ]
    # otherwise a line on the root logger asks for what `backbone_graph` has done
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=matrices[:_EXACT_MATRICES],
            extra_options={"MatMulConstBOnly": True},
        )
        return path.read_bytes()


def _onnxruntime(graph: bytes, precision: Precision) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # its threads would wait at full speed for the next image, and take the time of PyTorch's
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        graph, options, providers=["CPUExecutionProvider"]
    )
    return lambda images: cast(
        "NDArray[np.float32]", session.run(None, {session.get_inputs()[0].name: images})[0]
    )


def _openvino(graph: bytes, precision: Precision) -> Run:
    import openvino

    core: Any = openvino.Core()
    model = core.read_model(graph)
    sides = [dimension.get_length() for dimension in list(model.input(0).partial_shape)[1:]]
    # a fixed batch is faster; several images at once are not
    model.reshape([1, *sides])
    settings = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        outputs = []
        for image in images:
            request.infer({0: image[None]})
            # copied, because the next image overwrites it
            outputs.append(request.get_output_tensor(0).data.copy())
        return np.concatenate(outputs)

    return run
