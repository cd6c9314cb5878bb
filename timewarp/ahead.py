"""A function compiled before it is called, and kept on disk for all processes of a user, which load it in no time.

`torch.compile` keeps what the compiler made, but traces the function anew in each process: seconds, for a function of
a thousand steps. What is kept here needs no tracing, and none of the machinery for it is imported.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

COMPILERS = ("g++", "clang++", "c++")
WRAPPING: dict[str, Any] = {  # of the code around the loops, which takes microseconds to run and seconds to compile
    "aot_inductor.precompile_headers": False,
    "aot_inductor.compile_wrapper_opt_level": "O0",
}
Flat = Callable[[list[Tensor]], list[Tensor]]


def ahead(
    function: Callable[..., Sequence[Tensor]],
    example: Sequence[Tensor],
    free: Sequence[Sequence[int]],
    options: Mapping[str, Any],
    kind: str,
    sources: Sequence[ModuleType],
) -> Flat:
    """The function of a list of tensors on the CPU; compiled now, if no process of this user did before.

    Args:
        function: of tensors as many as `example` has, in terms that the compiler can trace.
        example: of the sizes that it is to be fast for; the values do not matter.
        free: for each tensor the dimensions that may have other sizes, from 2 on.
        options: of the compiler.
        kind: what tells this function from others of the same sources.
        sources: the modules that the function is written in; it is compiled anew when one changes.

    Raises:
        RuntimeError: without a C++ compiler.
        Exception: of any kind, if the compiler cannot do it.
    """
    options = dict(options) | WRAPPING
    with _folder() as folder:
        path = folder / f"{kind}-{_digest(kind, options, sources)}.pt2"
        with _alone(path.with_suffix(".lock")):
            if path.exists():
                try:
                    return _loaded(path)
                except Exception:  # it was cut short or spoiled, and is made anew
                    path.unlink()
            compiler()  # without one it would be found out late
            with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as made:
                _make(function, example, free, options, Path(made) / path.name)
                (Path(made) / path.name).replace(path)
            return _loaded(path)


def kept(options: Mapping[str, Any], kind: str, sources: Sequence[ModuleType]) -> bool:
    """Whether `ahead` would find the function made."""
    with _folder() as folder:
        return (folder / f"{kind}-{_digest(kind, dict(options) | WRAPPING, sources)}.pt2").exists()


def compiler() -> str:
    """The C++ compiler's name.

    Raises:
        RuntimeError: if there is none.
    """
    name = os.environ.get("CXX", "")
    for one in [name] if name else COMPILERS:
        if shutil.which(one):
            return one
    raise RuntimeError(f"expected a C++ compiler, {name or ' or '.join(COMPILERS)}, found none")


def _make(function, example, free, options, path: Path) -> None:
    from torch._inductor import aoti_compile_and_package

    class Module(torch.nn.Module):
        def forward(self, *tensors):
            return tuple(function(*tensors))

    anything = torch.export.Dim.AUTO
    shapes = (tuple(dict.fromkeys(dimensions, anything) for dimensions in free),)
    apart = tuple(tensor.clone() for tensor in example)  # what is one tensor here would be one for good
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch to itself
        exported = torch.export.export(
            Module(), apart, dynamic_shapes=shapes, strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )  # fmt: skip
        aoti_compile_and_package(exported, package_path=str(path), inductor_configs=options)


def _loaded(path: Path) -> Flat:
    # the same as torch._inductor.aoti_load_package, whose import takes longer than all else here
    return torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1).boxed_run


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """Where compiled functions are kept; if that cannot be written to, somewhere for this process alone."""
    home = os.environ.get("TIMEWARP_CACHE_DIR") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "timewarp")
    folder = Path(home).expanduser() / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if writable:
        yield folder
    else:
        with tempfile.TemporaryDirectory(prefix="timewarp-") as own:
            yield Path(own)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time: others wait, and then find what it made."""
    with path.open("ab") as file:
        with contextlib.suppress(OSError):  # where a file system has no locks it is made twice, and the last one stays
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _digest(kind: str, options: Mapping[str, Any], sources: Sequence[ModuleType]) -> str:
    """Of all that the machine code depends on."""
    found = hashlib.sha256(repr((kind, sorted(options.items()), torch.__version__, os.environ.get("CXX"))).encode())
    found.update(_processor().encode())
    for module in sources:
        found.update(Path(str(module.__file__)).read_bytes())
    return found.hexdigest()[:16]


@functools.cache
def _processor() -> str:
    """What the compiler makes code for: the processor's name and what it can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        lines = [platform.processor()]
    kept = [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU"))]
    return "\n".join([platform.machine(), platform.system(), *(kept or lines)])
