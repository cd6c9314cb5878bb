"""A pretended GPU: code that mixes tensors of two devices, or CPU generators with a GPU, fails where there is no GPU.

Within `pretended_gpu()` device="cuda" gives tensors that say they are there and hold their numbers on the CPU. What a
real GPU refuses is refused; numbers, random ones too, are those of the CPU. It holds for the thread that entered it.
Torch without CUDA asks a device of it even so what it cannot say; a few lines of C++, compiled when first asked for,
answer, and stay for the rest of the process.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch
from weakref import WeakValueDictionary

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
CROSSING = {aten.copy_, aten.copy, aten._to_copy, aten._foreach_copy_}  # may take tensors of two devices
INDEXING = {
    aten.index,
    aten._unsafe_index,
    aten.index_put,
    aten.index_put_,
    aten._unsafe_index_put,
    aten._index_put_impl_,
}
STRICT = {aten.cat, aten.stack, aten._stack}  # take not even a number of another device
GUARD = """
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <new>
using namespace c10;
static Device here() { return Device(DeviceType::CUDA, 0); }
struct Guard : impl::NoOpDeviceGuardImpl<DeviceType::CUDA> {
  Device getDevice() const override { return here(); }
  Device exchangeDevice(Device) const override { return here(); }
  Stream getStream(Device) const noexcept override { return Stream(Stream::DEFAULT, here()); }
  Stream exchangeStream(Stream) const noexcept override { return Stream(Stream::DEFAULT, here()); }
};
struct Hooks : at::CUDAHooksInterface {  // backward asks them which devices have streams
  bool isBuilt() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
};
static_assert(sizeof(Hooks) == sizeof(at::CUDAHooksInterface));
static auto* hooks = new (const_cast<at::CUDAHooksInterface*>(&at::detail::getCUDAHooks())) Hooks;
C10_REGISTER_GUARD_IMPL(CUDA, Guard)
"""
_marked: WeakValueDictionary = WeakValueDictionary()  # pretended generators by their address: torch wraps them anew


class Pretended(Tensor):
    """A tensor that says it is on the GPU.

    Attributes:
        inner: what it holds, on the CPU; views of it share this one's memory.
    """

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner):
        new = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=CUDA,
            requires_grad=False,
        )
        new.inner = inner.detach() if inner.requires_grad else inner
        return new

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents=None):
        return f"{self.inner!r} (pretended on {self.device})"

    def numpy(self, *, force=False):
        if force:
            return self.detach().cpu().numpy()
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *given, **named):
        self.numpy()

    def tolist(self):
        return self.inner.tolist()

    def __reduce_ex__(self, protocol):
        raise NotImplementedError("a pretended tensor is not saved; take .cpu() of it")


class _Kind(type(torch.Generator)):
    def __instancecheck__(cls, thing):
        return isinstance(thing, GENERATOR)


GENERATOR = torch.Generator


class PretendedGenerator(GENERATOR):
    """A generator that says it is the GPU's; its numbers are those of a CPU's of this seed."""

    def __new__(cls, device: torch.device | str = CUDA):
        new = super().__new__(cls)
        _marked[new._cdata] = new
        return new

    device = property(lambda self: CUDA)

    def clone_state(self):
        return PretendedGenerator().set_state(self.get_state())


class _Generator(GENERATOR, metaclass=_Kind):
    """In place of torch.Generator: that of the device."""

    def __new__(cls, device: torch.device | str = CPU):
        return PretendedGenerator() if torch.device(device).type == "cuda" else GENERATOR(device)


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Says which GPU is meant, which torch without CUDA cannot find out."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is Tensor.cuda:
            func, args = Tensor.to, (args[0], *(args[1:] or (kwargs.pop("device", None) or CUDA,)))
        if kwargs.get("device") is not None:
            kwargs["device"] = _numbered(kwargs["device"])
        if func is Tensor.to and isinstance(args[1] if args[1:] else None, str | int):
            args = (args[0], _numbered(args[1]), *args[2:])
        args = tuple(_numbered(a) if isinstance(a, torch.device) else a for a in args)
        if func is torch.nn.functional.scaled_dot_product_attention and isinstance(args[0], Pretended):
            return _attention(*args, **kwargs)
        return func(*args, **kwargs)


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """There is a GPU; generators and modules made before are as they were."""
    _guard()
    lifted, swapped = torch._C._only_lift_cpu_tensors(), torch.__future__.get_swap_module_params_on_conversion()
    cuda = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda device=None: "pretended",
        "set_device": lambda device: None,
        "synchronize": lambda device=None: None,
        "empty_cache": lambda: None,
        "_lazy_init": lambda: None,
        "_lazy_call": lambda *given, **named: None,
    }
    with ExitStack() as stack:
        stack.callback(torch._C._set_only_lift_cpu_tensors, lifted)
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, swapped)
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") is made on the CPU, and sent
        torch.__future__.set_swap_module_params_on_conversion(True)  # Module.to: `.data` cannot be set to these
        for name, value in cuda.items():
            stack.enter_context(patch.object(torch.cuda, name, value))
        stack.enter_context(patch.object(torch, "Generator", _Generator))
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))  # backward stays in this thread
        stack.enter_context(_Functions())
        stack.enter_context(_Dispatch())
        yield


@cache
def _guard():
    """What torch asks of each device."""
    if torch.version.cuda is not None:
        torch._C._ensureCUDADeviceGuardSet()  # it has one of its own for where there is no GPU
        return
    torch.zeros((), requires_grad=True).backward()  # the first one starts a thread for each device: none of this one
    with TemporaryDirectory() as folder:
        source, library = Path(folder, "guard.cpp"), Path(folder, "guard.so")
        source.write_text(GUARD)
        home = Path(torch.__file__).parent
        flags = [
            "-std=c++20",
            "-shared",
            "-fPIC",
            f"-I{home / 'include'}",
            source,
            f"-L{home / 'lib'}",
            "-lc10",
            "-ltorch_cpu",
        ]
        command = [os.environ.get("CXX", "g++"), *flags, "-o", library]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except FileNotFoundError:
            pytest.skip("the pretended GPU needs a C++ compiler where torch is without CUDA")
        ctypes.CDLL(str(library))


def _numbered(device):
    device = torch.device("cuda", device) if isinstance(device, int) else _device(device)
    if isinstance(device, torch.device) and device.type == "cuda":
        if device.index not in (None, 0):
            raise RuntimeError("CUDA error: invalid device ordinal")
        return CUDA
    return device


def _device(named):
    """Its device, if a name is of one and not of a type."""
    try:
        return torch.device(named)
    except RuntimeError:
        return named


def _attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """Torch would ask a kernel of its CUDA build which way to go."""
    return torch._scaled_dot_product_attention_math(
        query, key, value, attn_mask, dropout_p, is_causal, None, scale=scale, enable_gqa=enable_gqa
    )[0]


def _run(func, args, kwargs):
    """An operation on what the tensors hold."""
    kwargs = dict(kwargs)
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    there = any(isinstance(t, Pretended) for t in tensors)
    if there and func.overloadpacket not in CROSSING:
        _same_device(func, args, kwargs, tensors)
    wraps = there
    if kwargs.get("device") is not None:
        wraps = kwargs["device"].type == "cuda"
        kwargs["device"] = CPU if wraps else kwargs["device"]
    if kwargs.get("pin_memory"):
        kwargs["pin_memory"] = False
    if kwargs.get("generator") is not None:
        _same_generator(kwargs["generator"], wraps)
    found = func(
        *tree_map_only(Pretended, lambda t: t.inner, args), **tree_map_only(Pretended, lambda t: t.inner, kwargs)
    )
    if torch.Tag.inplace_view in func.tags and there:
        _reshape(func, args, kwargs)
    found = tree_map_only(Tensor, Pretended, found) if wraps else found
    return _given(func, args, kwargs, found)


def _same_device(func, args, kwargs, tensors):
    here = [t for t in tensors if not isinstance(t, Pretended)]
    packet = func.overloadpacket
    if packet in INDEXING and isinstance(args[0], Pretended):  # its indices may be on the CPU
        chosen = {id(t) for t in tree_leaves(args[1]) if isinstance(t, Tensor)}
        here = [t for t in here if id(t) not in chosen]
    if not here:
        return
    written = [_argument(func, k, args, kwargs) for k in _written(func)[0]]
    if (
        packet in STRICT
        or (packet in INDEXING and not isinstance(args[0], Pretended))
        or any(t.dim() for t in here)  # numbers of a CPU may go with tensors of a GPU
        or any(isinstance(t, Tensor) and not isinstance(t, Pretended) for t in tree_leaves(written))
    ):
        raise RuntimeError(f"expected all tensors on one device, found cpu and cuda in {func}")


def _same_generator(generator, wraps):
    if (generator._cdata in _marked) != wraps:
        wanted, found = ("cuda", "cpu") if wraps else ("cpu", "cuda")
        raise RuntimeError(f"Expected a '{wanted}' device type for generator but found '{found}'")


@cache
def _written(func):
    """Which arguments it writes to, and which of them each of its returns is (None for what is new)."""
    writes = [k for k, a in enumerate(func._schema.arguments) if a.alias_info is not None and a.alias_info.is_write]
    sets = {k: set(func._schema.arguments[k].alias_info.before_set) for k in writes}
    returns = []
    for one in func._schema.returns:
        names = set(one.alias_info.before_set) if one.alias_info is not None and one.alias_info.is_write else set()
        returns.append(next((k for k in writes if names & sets[k]), None))
    return writes, returns


def _argument(func, k, args, kwargs):
    return args[k] if k < len(args) else kwargs.get(func._schema.arguments[k].name)


def _given(func, args, kwargs, found):
    """What it returns, its own arguments where it wrote to them."""
    writes, returns = _written(func)
    for t in tree_leaves([_argument(func, k, args, kwargs) for k in writes]):
        if isinstance(t, Pretended) and t.shape != t.inner.shape:
            raise NotImplementedError(f"a pretended tensor keeps its shape; {func} gave it another")
    if all(k is None for k in returns):
        return found
    several = isinstance(found, tuple | list)
    same = [
        one if k is None else _argument(func, k, args, kwargs)
        for one, k in zip(found if several else [found], returns, strict=True)
    ]
    return type(found)(same) if several else same[0]


def _reshape(func, args, kwargs):
    """The shape of the outer tensor follows, as of x.unsqueeze_(0)."""
    with no_dispatch():
        before = torch._C._meta_in_tls_dispatch_include()
        torch._C._set_meta_in_tls_dispatch_include(True)
        try:
            func(*args, **kwargs)
        finally:
            torch._C._set_meta_in_tls_dispatch_include(before)
