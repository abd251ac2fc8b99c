"""Names of the runtimes of the backbone, for settings that are read without PyTorch."""

RUNTIMES = (
    "auto",
    "torch",
    "torch-fp32",
    "torch-bf16",
    "torch-compile",
    "onnx",
    "onnx-int8",
    "openvino",
)
