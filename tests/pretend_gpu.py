"""A GPU made of CPU memory: real numbers, a GPU's rules, and a list of what the host waits for.

PyTorch's own FakeTensorMode knows the rules too, but has no numbers, and without a card it cannot
run a backward pass. Here every tensor is in RAM and every storage is marked as the host's or the
card's. What a card refuses is refused: products of tensors that lie apart, NumPy's view of a card's
memory, a generator of the other side. Copies are real, so that what is left behind is found.

Marks belong to threads that entered the block; tensors made by others are the host's.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

CARD = torch.device("cuda", 0)
HOST = torch.device("cpu")
_MAY_MIX = {
    "copy_", "_to_copy", "_foreach_copy_", "index", "index_put_", "_index_put_impl_",
    "_has_compatible_shallow_copy_type", "native_batch_norm",
    "native_batch_norm_backward",
}  # fmt: skip
"""Operations that take tensors of both sides: copies, and indices that PyTorch brings over. For
batch norm `vmap` makes neutral weights beside its input, which truly is in RAM."""
_WAITING = {"_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique2"}
"""Operations whose result, or its size, the host has to know."""


class PretendGpu(TorchFunctionMode):
    """While it is on, `device="cuda"` means this card. `waits` names all that the host waited for.

    `generators` are made by `PretendGenerator`, which a test puts in the place of
    `torch.Generator`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._marks = _Marks()
        self.waits = self._marks.waits

    def __enter__(self) -> "PretendGpu":
        super().__enter__()
        self._marks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._marks.__exit__(*error)
        super().__exit__(*error)

    def holds(self, tensor: Tensor) -> bool:
        """Whether the tensor is in the card's memory."""
        return self._marks.holds(tensor)

    def within(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with this mode on. `torch.func` calls the `vmap` of an autograd function
        without it; a real card needs no such help."""

        @wraps(function)
        def call(*args: Any) -> Any:
            with _Inner(self):
                return function(*args)

        return call

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "__get__" and args and isinstance(args[0], Tensor):
            return self._property(func, args[0])
        if func in (Tensor.numpy, Tensor.__array__) and self.holds(args[0]):
            raise TypeError(f"can't convert a {CARD} tensor to numpy: copy it with .cpu() first")
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return self._move(func, args, given)
        if func is torch.Tensor.pin_memory:
            return args[0]
        asked = given.pop("device", None)
        given.pop("pin_memory", None)
        if isinstance(func, OpOverload) and asked == HOST:
            # Of a recorded list: there a card's name would stand, had it been recorded on one.
            asked = CARD
        self._check_generator(args, given, asked)
        found = func(*args, **given)
        if asked is not None:
            on_card = torch.device(asked).type == CARD.type
            if on_card and func in (torch.tensor, torch.as_tensor):
                self.waits.append(f"{name} with device={CARD}")
            for tensor in _tensors(found):
                self._marks.mark(tensor, on_card)
        return found

    def _property(self, func: Any, tensor: Tensor) -> Any:
        if func == Tensor.device.__get__ and self.holds(tensor):
            return CARD
        if func == Tensor.is_cuda.__get__:
            return self.holds(tensor)
        return func(tensor)

    def _move(self, func: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Tensor:
        tensor, *rest = args
        to = {Tensor.cpu: HOST, Tensor.cuda: CARD}.get(func, given.pop("device", None))
        dtype = given.pop("dtype", None)
        for value in rest:
            if isinstance(value, Tensor):
                to, dtype = CARD if self.holds(value) else HOST, value.dtype
            elif isinstance(value, torch.dtype):
                dtype = value
            elif isinstance(value, str | torch.device):
                to = value
        from_card = self.holds(tensor)
        on_card = from_card if to is None else torch.device(to).type == CARD.type
        is_async = given.pop("non_blocking", False)
        given["copy"] = given.get("copy", False) or on_card != from_card
        if on_card != from_card and not (is_async and on_card):
            self.waits.append(f"copy to {CARD if on_card else HOST}")
        found = Tensor.to(tensor, dtype or tensor.dtype, **given)
        self._marks.mark(found, on_card)
        return found

    def _check_generator(self, args: Any, given: Mapping[str, Any], asked: Any) -> None:
        generator = given.get("generator")
        if generator is None:
            return
        first = next(_tensors(args), None)
        on_card = torch.device(asked or HOST).type == CARD.type
        on_card = on_card if first is None else self.holds(first)
        if on_card != (generator.device.type == CARD.type):
            side = CARD if on_card else HOST
            raise RuntimeError(f"expected a {side} generator, found one of {generator.device}")


class _Inner(TorchFunctionMode):
    """Another mode's eyes, without its marks' second entry."""

    def __init__(self, gpu: PretendGpu) -> None:
        super().__init__()
        self._gpu = gpu

    def __torch_function__(self, *given: Any) -> Any:
        return self._gpu.__torch_function__(*given)


class PretendGenerator(torch.Generator):
    """`torch.Generator`, on the pretended card too."""

    def __new__(cls, device: str | torch.device = "cpu") -> "PretendGenerator":
        made: PretendGenerator = super().__new__(cls)
        made.side = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        return self.side


class _Marks(TorchDispatchMode):
    """Whose every storage is. Sees each single operation, those of the backward pass too."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        # A weak reference keeps a storage's address from being used again.
        self._on_card: dict[int, StorageWeakRef] = {}

    def holds(self, tensor: Tensor) -> bool:
        return _plain(tensor).untyped_storage()._cdata in self._on_card

    def mark(self, tensor: Tensor, on_card: bool) -> None:
        storage = _plain(tensor).untyped_storage()
        if on_card:
            self._on_card[storage._cdata] = StorageWeakRef(storage)
        else:
            self._on_card.pop(storage._cdata, None)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        name = func.overloadpacket.__name__
        read = list(_tensors((args, given)))
        on_card = [tensor for tensor in read if self.holds(tensor)]
        # A single number of the host's is sent along with the operation.
        apart = [tensor for tensor in read if tensor.ndim and not self.holds(tensor)]
        if on_card and apart and name not in _MAY_MIX:
            raise RuntimeError(
                f"{name}: expected all tensors on the same device, found {len(on_card)} on {CARD} "
                f"and {len(apart)} on {HOST}"
            )
        if on_card and (name in _WAITING or _is_chosen_by_mask(name, read)):
            self.waits.append(name)
        elif on_card and apart and name in ("index", "index_put_", "_index_put_impl_"):
            self.waits.append(f"{name} with indices on {HOST}")
        found = func(*args, **given)
        if on_card and name != "copy_":
            for tensor in _tensors(found):
                self.mark(tensor, True)
        return found


def _is_chosen_by_mask(name: str, read: Iterable[Tensor]) -> bool:
    return name == "index" and any(tensor.dtype == torch.bool for tensor in list(read)[1:])


def _plain(tensor: Tensor) -> Tensor:
    """The tensor below what `torch.func` wraps round it."""
    wrapped = torch._C._functorch
    while wrapped.is_functorch_wrapped_tensor(tensor):
        tensor = wrapped.get_unwrapped(tensor)
    return tensor


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_iter(tree) if isinstance(leaf, Tensor))
