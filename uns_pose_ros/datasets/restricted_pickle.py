"""Read pickled annotations without running what is in them.

Python's `pickle` calls any function that a file names. Here a name gives a stand-in, or the file is
refused.
What comes out is arrays, numbers, strings, lists, tuples, dicts and None.
"""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from pickletools import genops
from typing import Any

import numpy as np
from numpy.lib import format as npy

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.schema.decoding import read_file

_MOST = 64 * 2**20  # bytes of a file, and of what is packed in it
_MOST_VALUES = 200_000  # in one file, the numbers in arrays not counted
_MOST_NUMBERS = 20_000_000  # in the arrays of one file
_MAX_DEPTH = 32
_NUMBERS = frozenset("biuf")  # kinds of dtypes: bool, signed, unsigned, float
VALID = "a pickle of arrays, numbers, strings, lists, tuples and dicts is valid"


class _DType:
    """Stands for numpy.dtype: the code, such as f8, and the byte order."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        self.code = code
        self.order = "="

    def set_state(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in tuple("<>|="):
            raise ValueError("the state of a dtype is not valid")
        self.order = state[1]

    def to_numpy(self) -> np.dtype[Any]:
        """The real dtype: numbers, texts or objects."""
        if not isinstance(self.code, str) or len(self.code) > 8:
            raise ValueError("a dtype has no code")
        dtype = np.dtype(self.code).newbyteorder("=")
        if self.order in "<>":
            dtype = dtype.newbyteorder(self.order)
        if dtype.kind not in _NUMBERS | {"U", "O"} or not dtype.itemsize:
            raise ValueError(f"arrays of {self.code} are not read")
        return dtype


class _Array:
    """Stands for numpy.ndarray: shape, dtype and content."""

    def __init__(self, *arguments: Any) -> None:
        self.shape: Any = (0,)
        self.dtype: Any = _DType("f8")
        self.is_fortran: Any = False
        self.data: Any = b""

    def set_state(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("the state of an array is not valid")
        _, self.shape, self.dtype, self.is_fortran, self.data = state

    def to_plain(self) -> Any:
        """The array of numbers or texts; the flat list of the objects of an array of objects."""
        shape = self.shape
        if (
            not isinstance(shape, tuple)
            or len(shape) > 8
            or not all(isinstance(side, int) and 0 <= side < 2**31 for side in shape)
            or not isinstance(self.dtype, _DType)
        ):
            raise ValueError("an array has no shape or dtype")
        dtype, count = self.dtype.to_numpy(), math.prod(shape)
        if dtype.kind == "O":
            if not isinstance(self.data, list) or len(self.data) != count:
                raise ValueError("an array of objects has another number of them")
            return self.data
        data = (
            self.data.encode("latin1") if isinstance(self.data, str) else self.data
        )  # as Python 2 wrote it
        if not isinstance(data, bytes | bytearray) or len(data) != count * dtype.itemsize:
            raise ValueError("an array has another size than its data")
        flat = np.frombuffer(bytes(data), dtype)
        array = flat.reshape(shape)
        if self.is_fortran in (True, 1):
            array = flat.reshape(shape, order="F")
        return array.astype(dtype.newbyteorder("="))


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any = "C") -> _Array:
    array = _Array()
    array.set_state((1, shape, dtype, order == "F", data))
    return array


def _scalar(dtype: Any, data: Any = b"") -> _Array:
    return _from_buffer(data, dtype, ())


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How Python 3 writes bytes for Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("bytes are not encoded as latin1")
    return text.encode("latin1")


def _no_bytes(*arguments: Any) -> bytes:
    """How Python 3 writes no bytes at all for Python 2."""
    if arguments:
        raise ValueError("bytes are made of something")
    return b""


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _Array,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
}
for _core in ("numpy.core", "numpy._core"):
    _STAND_INS[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _STAND_INS[f"{_core}.multiarray", "scalar"] = _scalar
    _STAND_INS[f"{_core}.numeric", "_frombuffer"] = _from_buffer


@dataclass(frozen=True)
class _Name:
    """A name in a file; `call` is its stand-in."""

    call: Any


_VALUES = frozenset(  # opcodes that push the value that stands behind them
    [
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
    ]
)
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_FRESH: dict[str, Any] = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict}
_SMALL_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


class _Machine:
    """The stack and the memory of a pickle; it makes plain values and stand-ins only."""

    def __init__(self) -> None:
        self.stack = list[Any]()
        self.memory = dict[int, Any]()

    def run(self, data: bytes) -> Any:
        """The value of a pickle; ValueError, IndexError, KeyError or TypeError: it is broken."""
        for opcode, argument, _ in genops(data):
            if opcode.name == "STOP":
                return self.stack.pop()
            self._step(opcode.name, argument)
        raise ValueError("it is cut off")

    def _step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in ("PROTO", "FRAME"):
            return
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _FRESH:
            stack.append(_FRESH[name]())
        elif name in _SMALL_TUPLES:
            count = _SMALL_TUPLES[name]
            if len(stack) < count:
                raise ValueError("a tuple lacks values")
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memory[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memory[len(self.memory)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memory[argument])
        elif name == "GLOBAL":
            stack.append(_look_up(*argument.split(" ", 1)))
        else:
            self._combine(name)

    def _combine(self, name: str) -> None:
        """An opcode that takes values from the stack."""
        stack = self.stack
        if name == "STACK_GLOBAL":
            function, module = stack.pop(), stack.pop()
            stack.append(_look_up(module, function))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            if not isinstance(function, _Name) or not isinstance(arguments, tuple):
                raise ValueError("it calls what is no name")
            stack.append(function.call(*arguments))
        elif name == "BUILD":
            state, target = stack.pop(), stack[-1]
            if not isinstance(target, _Array | _DType):
                raise ValueError(f"a {type(target).__name__} gets a state")
            target.set_state(state)
        elif name == "TUPLE":
            stack.append(tuple(self._from_mark()))
        elif name == "LIST":
            stack.append(self._from_mark())
        elif name == "DICT":
            stack.append(_pairs(self._from_mark()))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self._from_mark()
            if type(stack[-1]) is not list:
                raise ValueError("a list is needed")
            stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            values = (
                [stack.pop(-2), stack.pop()] if name == "SETITEM" else self._from_mark()
            )
            if type(stack[-1]) is not dict:
                raise ValueError("a dict is needed")
            stack[-1].update(_pairs(values))
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._from_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            raise ValueError(f"it holds what is no plain value ({name})")

    def _from_mark(self) -> list[Any]:
        """The values above the last mark, which are taken from the stack."""
        values = list[Any]()
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]


def _pairs(values: list[Any]) -> dict[Any, Any]:
    return dict(zip(values[::2], values[1::2], strict=True))


def _look_up(module: Any, name: Any) -> _Name:
    """The stand-in of a name; ValueError for any other name."""
    stand_in = _STAND_INS.get((module, name))
    if stand_in is None:
        raise ValueError(f"it names {module}.{name}"[:120])
    return _Name(stand_in)


def load_restricted(data: bytes, label: str) -> Any:
    """The plain values in pickled bytes.

    Args:
        data: The bytes.
        label: The file, in messages.

    Raises:
        InvalidInput: The bytes are broken, or name anything but arrays and plain values.
    """
    try:
        return _Plain().convert(_Machine().run(data), 0)
    except Exception as error:  # whatever the opcodes of a broken pickle run into
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise InvalidInput(f"{label}: not read ({reason}); {VALID}") from None


class _Plain:
    """Replaces stand-ins by values; values are counted, since a pickle can repeat one often."""

    def __init__(self) -> None:
        self._left = _MOST_VALUES
        self._numbers_left = _MOST_NUMBERS

    def convert(self, value: Any, depth: int) -> Any:
        """The plain value; ValueError for anything that is none."""
        self._left -= 1
        if self._left < 0 or depth > _MAX_DEPTH:
            raise ValueError("it holds too many values, or too deep ones")
        if isinstance(value, _Array):
            plain = value.to_plain()
            if isinstance(plain, np.ndarray):
                self._numbers_left -= plain.size
                if self._numbers_left < 0:
                    raise ValueError("its arrays hold too many numbers")
                return plain.item() if plain.ndim == 0 else plain
            return self.convert(plain, depth)
        if value is None or type(value) in (bool, int, float, str):
            return value
        if type(value) in (list, tuple):
            return type(value)(self.convert(item, depth + 1) for item in value)
        if type(value) is dict:
            return {
                self.convert(key, depth + 1): self.convert(item, depth + 1)
                for key, item in value.items()
            }
        raise ValueError(f"a value is a {type(value).__name__.strip('_')}")


def read_pickle(path: Path) -> Any:
    """The plain values in a pickle file; InvalidInput where it is missing or refused."""
    return load_restricted(read_file(path, "pickle", _MOST), str(path))


def read_npz(path: Path, name: str) -> Any:
    """The array `name` of a .npz file, which may be pickled.

    Raises:
        InvalidInput: The file is missing or broken, or there is no such array.
    """
    data = read_file(path, ".npz file", _MOST)
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            member = archive.getinfo(f"{name}.npy")
            if member.file_size > _MOST:
                raise ValueError(f"{name} unpacks to {member.file_size} bytes")
            with archive.open(member) as file:
                content = BytesIO(file.read(_MOST))
        version = npy.read_magic(content)
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        shape, is_fortran, dtype = read_header[version](content)
    except Exception as error:  # zipfile and numpy raise whatever their parsers run into
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise InvalidInput(
            f"{path}: no array {name!r} can be read ({reason}); a .npz file with it is valid"
        ) from None
    rest = content.read()
    if dtype.hasobject:
        return load_restricted(rest, str(path))
    array = _from_buffer(rest, _DType(dtype.str), shape, "F" if is_fortran else "C")
    try:
        return _Plain().convert(array, 0)
    except ValueError as error:
        raise InvalidInput(f"{path}: {name!r} is broken ({error}); {VALID}") from None
