"""Tests of this folder read released weights: they run when `-m weights` asks for them."""

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "weights" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("weights")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
