"""What readers of bags do again for every input is remembered: the same text gives the same.

Only functions of other projects that follow from their arguments alone are remembered: YAML, and
the code that `rosbags` makes of message definitions. A text that was spoiled is another text.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from functools import lru_cache
from typing import Any

_MOST = 200  # results of a function
_FAILURES = 300  # rows in a row that a salvaged database may lack; the bags have 30


def remember() -> None:
    """Patch `rosbags` and `ruamel.yaml` in this process; twice is as once."""
    from rosbags.highlevel import anyreader
    from rosbags.serde import utils
    from rosbags.typesys import store
    from rosbags.typesys.stores import empty
    from ruamel.yaml import YAML

    from uns_pose_ros.io.ros import bag_files

    if hasattr(utils, "exec"):
        return
    load, dump = YAML.load, YAML.dump
    stores = dict[str, dict[str, Any]]()

    class RememberedStore(store.Typestore):
        """A store that has what a store of the same definitions has generated."""

        def register(self, typs: Any) -> None:
            key = repr(typs)
            if key not in stores:
                super().register(typs)
                if len(stores) >= _MOST:
                    stores.clear()
                stores[key] = self.__dict__
            self.__dict__ = stores[key]

    def dumped(flow: bool | None, data: Any) -> str:
        yaml, stream = YAML(typ="safe"), io.StringIO()
        yaml.default_flow_style = flow
        dump(yaml, data, stream)
        return stream.getvalue()

    code = lru_cache(1000)(lambda text: compile(text, "<generated>", "exec"))

    def run(text: str, names: dict[str, Any]) -> None:
        exec(code(text), names)

    parsed = _remembered(anyreader.get_types_from_msg)
    loaded, written = (
        _remembered(lambda text: load(YAML(typ="safe"), text)),
        _remembered(dumped),
    )
    changes: tuple[tuple[Any, str, Any], ...] = (
        (utils, "exec", run),
        (store, "exec", run),
        (bag_files, "_MOST_FAILURES", _FAILURES),
        (anyreader, "get_types_from_msg", parsed),
        (anyreader, "get_typestore", lambda _: RememberedStore(empty)),
        (YAML, "official_plug_ins", lambda _: []),  # it looks for them on the disk
        (YAML, "load", lambda _, text: loaded(text)),
        (
            YAML,
            "dump",
            lambda yaml, data, stream: stream.write(written(yaml.default_flow_style, data)),
        ),
    )
    for owner, name, value in changes:
        setattr(owner, name, value)


def _remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that returns a copy of what it returned for equal arguments, or raises it."""
    results = dict[str, tuple[Any, Exception | None]]()

    def call(*arguments: Any) -> Any:
        key = repr(arguments)
        if key not in results:
            result: tuple[Any, Exception | None]
            try:
                result = function(*arguments), None
            except Exception as error:
                result = None, error
            if len(results) >= _MOST:
                results.clear()
            results[key] = result
        value, failure = results[key]
        if failure is not None:
            raise failure.with_traceback(None)
        return copy.deepcopy(value)

    return call
