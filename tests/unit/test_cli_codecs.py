"""`--codec` as it is typed."""

import pytest
import typer

from clare_cache.cli.stage_one import _codecs


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], None),
        (["blosc"], "blosc"),
        (["error_map=zstd:3"], {"error_map": "zstd:3"}),
        (["a=int8", "b=bitround:5"], {"a": "int8", "b": "bitround:5"}),
    ],
)
def test_one_for_all_or_one_for_each(given, expected):
    assert _codecs(given) == expected


def test_two_for_all_are_refused():
    with pytest.raises(typer.BadParameter) as caught:
        _codecs(["zstd", "a=int8", "blosc"])
    assert str(caught.value) == (
        "--codec zstd blosc: expected ARRAY=CODEC where there is more than one"
    )
