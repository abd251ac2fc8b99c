"""Bytes of a YAML file that a person writes to plain values; what is wrong of them is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import yaml

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.schema.decoding import describe


def parse_yaml(data: bytes, path: Path, what: str) -> Any:
    """Read YAML as plain values.

    Args:
        data: Bytes of the file.
        path: Of the file, for messages.
        what: Kind of the file, for messages.

    Raises:
        InvalidInput: It is no YAML, or has aliases or doubled keys.
    """
    try:
        return _PlainLoader(data.decode()).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = "" if mark is None else f", line {mark.line + 1}"
        reason = f"{error.problem or error.context}{line}"
    except RecursionError:
        reason = "lists or objects lie too deep"
    except (yaml.YAMLError, ValueError) as error:
        reason = describe(error)
    raise InvalidInput(f"{path}: not a valid {what} ({reason})")


class _PlainLoader(yaml.SafeLoader):
    """Reads plain values; aliases, which may grow without bound, and doubled keys are refused."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            self._refuse("an alias", self.peek_event())
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in keys:
                self._refuse(f"two entries {key.value[:80]!r} in one place", key)
            keys.add(str(key.value))
        return super().construct_mapping(node, deep)

    def _refuse(self, what: str, where: Any) -> NoReturn:
        raise yaml.constructor.ConstructorError(
            None, None, f"{what} is not valid", where.start_mark
        )
