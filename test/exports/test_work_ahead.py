"""Results come in the order of the items, and an error comes with its own item."""

from __future__ import annotations

import time

from uns_pose_ros.exports.work_ahead import work_ahead


def test_results_and_errors_come_in_order_although_later_work_is_faster() -> None:
    begun: list[int] = []

    def halve(item: int) -> float:
        time.sleep(0.01 if item % 2 else 0.0)
        return 4 / item

    def items() -> list[int]:
        return [1, 2, 0, 3, 4, 5, 6, 7]

    taken = []
    for item, result in work_ahead(halve, items()):
        begun.append(item)
        error = result.exception()
        taken.append("error" if error else result.result())
    assert begun == items()
    assert taken == ["error" if item == 0 else 4 / item for item in items()]


def test_only_few_items_are_begun_before_the_first_is_taken() -> None:
    begun: list[int] = []
    results = work_ahead(begun.append, range(100))
    next(results)
    assert len(begun) <= 6
    assert len(list(results)) == 99 and sorted(begun) == list(range(100))
