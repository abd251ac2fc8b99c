"""What a bag says of its topics and message types, before messages are made of it.

A bag holds the definitions of its messages. Who reads a message needs the fields that ROS gives its
type, whatever the bag says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

_MOST_MESSAGES = 2**63 - 1
# of the stores of open bags: the types that were checked
_CHECKED: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


def check_connections(connections: Iterable[Any]) -> None:
    """ValueError where a topic has no name, no type, or no number of messages."""
    for connection in connections:
        if not (isinstance(connection.topic, str) and isinstance(connection.msgtype, str)):
            raise ValueError("a topic has a name or a type that is no text")
        count = connection.msgcount
        if not (type(count) is int and 0 <= count <= _MOST_MESSAGES):
            raise ValueError(f"{connection.topic}: its number of messages is none")


def check_definition(typestore: Any, name: str) -> None:
    """ValueError where a type, or a part of it, lacks a field that ROS gives it.

    More fields, other numbers and types that ROS does not know are valid: ROS 1 and other
    distributions have them.

    Args:
        typestore: The types of a bag, of `rosbags`.
        name: The type, such as sensor_msgs/msg/Image.
    """
    checked = _CHECKED.setdefault(typestore, set())
    reached, waiting = set[str](), {name} - checked
    while waiting:
        part = waiting.pop()
        reached.add(part)
        fields = {_plain(field): kind for field, kind in typestore.fielddefs[part][1]}
        for field, kind in _fields_of_ros().get(part, ()):
            given = fields.get(field)
            if given is None or _shape(given) != _shape(kind):
                raise ValueError(f"its {part} has no such field {field} as that of ROS")
        waiting |= {inner for kind in fields.values() for inner in _messages_in(kind)}
        waiting -= reached | checked
    checked |= reached


def _plain(field: str) -> str:
    """The name of a field; ROS 1 writes D, K, R and P of CameraInfo in capitals."""
    return field.lower() if len(field) == 1 else field


def _messages_in(kind: Any) -> Iterator[str]:
    """The type of the messages that a field holds, if it holds any."""
    while isinstance(kind[1][0], tuple):
        kind = kind[1][0]
    if _shape(kind) == "message":
        yield kind[1]


def _shape(kind: Any) -> Any:
    """What a field is: a message, a text, a number, or an array of them with its length."""
    from rosbags.interfaces import Nodetype

    if kind[0] == Nodetype.NAME:
        return "message"
    if kind[0] == Nodetype.BASE:
        return "text" if "string" in kind[1][0] else "number"
    inner, length = kind[1]
    return _shape(inner), length if kind[0] == Nodetype.ARRAY else None


@cache
def _fields_of_ros() -> Mapping[str, Any]:
    """Fields by type."""
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    return {name: fields for name, (_, fields) in store.fielddefs.items()}
