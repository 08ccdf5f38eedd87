"""A function of tensors as the flat list of operations that it does, recorded once and replayed.

What a stack does in a step are some hundred operations, the same in every step. `torch.vmap` finds
them anew each time, through several layers of Python: milliseconds, however narrow the heads. The
list is run without them, and without autograd, whose operations are in it. Same operations, same
numbers, to the bit.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from clare_cache.train.masks import Asked, HandedMasks, Masks, NotedMasks

RECORD_AT = 32
"""The call that is recorded: recording takes as long as some tens of calls."""

Found = list[Tensor | None]


class Recorder:
    """Calls a function of tensors of the same shapes every time, and of dropout masks; from the
    call `RECORD_AT` on by its recorded list.

    The function must do the same operations in every call: nothing may depend on the tensors'
    values or on anything that changes outside them. One that cannot be recorded, because it looks
    at values, is called as it is, always.
    """

    def __init__(self, function: Callable[[Sequence[Tensor], Masks], Found]) -> None:
        self._function = function
        self._n_calls = 0
        self._graph: GraphModule | None = None
        self._asked: list[Asked] = []

    @property
    def is_recorded(self) -> bool:
        return self._graph is not None

    def __call__(self, tensors: Sequence[Tensor], masks: Masks) -> Found:
        if self._graph is not None:
            drawn = [masks.draw(*asked) for asked in self._asked]
            # The list has its casts in it.
            on = tensors[0].device.type
            with torch.no_grad(), torch.autocast(on, enabled=False):
                replayed: Found = self._graph(*tensors, *drawn)
            return replayed
        noted = NotedMasks(masks)
        found = self._function(tensors, noted)
        self._n_calls += 1
        if self._n_calls == RECORD_AT:
            self._asked = noted.asked
            self._graph = self._record(tensors, [masks.draw(*asked) for asked in noted.asked])
        return found

    def _record(self, tensors: Sequence[Tensor], drawn: Sequence[Tensor]) -> GraphModule | None:
        def flat(*given: Tensor) -> Found:
            n = len(tensors)
            return self._function(given[:n], HandedMasks(given[n:]))

        # Recording computes: what it changes in place, such as batch norm's means, are copies.
        copies = [tensor if tensor.requires_grad else tensor.clone() for tensor in tensors]
        try:
            graph = make_fx(flat)(*copies, *drawn)
        except RuntimeError:
            return None
        for node in list(graph.graph.nodes):
            if _changes_nothing(node):
                node.replace_all_uses_with(node.args[0])
                graph.graph.erase_node(node)
        graph.recompile()
        return graph


def _changes_nothing(node: Node) -> bool:
    """Whether an operation gives its input as it is: a third of what vmap and autograd do."""
    if node.target is torch.ops.aten.permute.default:
        order = cast(list[int], node.args[1])
        return order == list(range(len(order)))
    return node.target in (torch.ops.aten.detach.default, torch.ops.aten.alias.default)
