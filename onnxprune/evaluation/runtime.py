"""Models on onnxruntime: sessions on CPU, CUDA or TensorRT, bound inputs and outputs, latency."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import io
import logging
import sys
import time
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from onnxprune.checks import DEVICE
from onnxprune.data import Inputs, Samples
from onnxprune.errors import (
    LESS,
    InvalidModel,
    MissingPackage,
    OutOfMemory,
    OutputError,
    out_of_memory,
)
from onnxprune.evaluation.cards import no_card
from onnxprune.evaluation.net import Batch, Net, Port, as_arrays
from onnxprune.graph import (
    ModelSource,
    fits_message,
    has_heavy_kernel,
    is_foreign,
    load_model,
    session_source,
)
from onnxprune.progress import track

logger = logging.getLogger(__name__)

Model: TypeAlias = ModelSource
Runnable: TypeAlias = Model | Net

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

EXACT = {
    "cudnn_conv_algo_search": "HEURISTIC",
    "use_tf32": "0",
    "arena_extend_strategy": "kSameAsRequested",
}
"""Makes CUDA compute as the CPU does: without TF32, whose 10-bit products move a logit by 1e-3. And
without a search for the fastest convolution, which costs more than it saves on few samples and
depends on what else the card does. Memory grows by what is asked for, as torch needs some, too."""

PRECISE = {"trt_fp16_enable": "0", "trt_int8_enable": "0"}
"""Makes TensorRT compute in single precision."""

BLOCKED = "NchwcTransformer"
"""What puts the weights of convolutions into blocks of channels, as wide as the CPU's vectors."""

DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype("float32"),
    "tensor(double)": np.dtype("float64"),
    "tensor(float16)": np.dtype("float16"),
    "tensor(uint8)": np.dtype("uint8"),
    "tensor(int8)": np.dtype("int8"),
    "tensor(int32)": np.dtype("int32"),
    "tensor(int64)": np.dtype("int64"),
    "tensor(bool)": np.dtype("bool"),
}
"""The types that an input may have, by onnxruntime's names."""


def block_width(device: str = "auto") -> int:
    """Return how many channels onnxruntime computes at once on this machine.

    Widths between two multiples of it cost what the larger one does. On a CPU it is the width of
    the vectors that onnxruntime's blocked layout holds.
    Source: NCHWc block size of onnxruntime's MLAS, 16 with AVX-512 and 8 with AVX.
    """
    found = np.show_config(mode="dicts") or {}
    vectors = found.get("SIMD Extensions", {}).get("found", ())
    return 16 if {"AVX512F", "X86_V4"}.intersection(vectors) and device in ("auto", "cpu") else 8


def session(
    model: Model,
    *,
    device: str = "auto",
    threads: int = 0,
    exact: bool = True,
    saturates: bool = True,
    profile: str = "",
) -> Any:
    """Start an `onnxruntime.InferenceSession` on a device.

    `auto` is CUDA where onnxruntime offers it and it starts, else the CPU. `tensorrt` is
    onnxruntime's TensorRT, with CUDA for what that does not run. `threads` 0 means all cores.
    `exact` asks for deterministic kernels, and for `EXACT` on CUDA; without it the session has
    onnxruntime's defaults, as a user's would, but for kernels that are too heavy for blocks. Unless
    it `saturates`, sums of 8-bit products are right on CPUs whose fast instructions cut them off,
    too. With `profile`, the beginning of a path, it writes how long every node took into a file,
    when `end_profiling` is called.
    Raises: InvalidModel where onnxruntime refuses the model; MissingPackage without onnxruntime, or
    without the device that is asked for, naming what is missing; OutputError without room for the
    file that a model of over 2 GB is read from.
    """
    DEVICE("device", device)
    runtime = _onnxruntime()
    start = functools.partial(
        _start, runtime, model, threads=threads, exact=exact, saturates=saturates, profile=profile
    )
    wanted = TENSORRT if device == "tensorrt" else CUDA
    offered = wanted in runtime.get_available_providers()
    if device not in ("auto", "cpu") and not offered:
        has = "TensorRT" if device == "tensorrt" else "CUDA"
        problem = _hidden() or f'this onnxruntime has no {has}; pip install "onnxprune[gpu]"'
        raise MissingPackage(f"device '{device}': {problem}")
    if device == "auto" and not offered:
        _warn_of_hidden()
    if device == "cpu" or not offered:
        return start([CPU])
    with contextlib.redirect_stdout(io.StringIO()):  # it prints which libraries it cannot find
        getattr(runtime, "preload_dlls", lambda: None)()
    reason = "onnxruntime left it out"
    try:
        there = start([*_providers(wanted, exact), CPU])
        if wanted in there.get_providers():
            return there
    except InvalidModel as error:
        reason = str(error)
    reason = no_card() or reason
    started = start([CPU])  # raises if the model is to blame
    if device != "auto":
        raise MissingPackage(
            f"device '{device}' does not start ({reason}); use cpu or repair {REPAIRS[device]}"
        )
    logger.warning("CUDA does not start (%s): running on the CPU", reason)
    return started


REPAIRS = {"cuda": "CUDA", "tensorrt": "TensorRT (pip install tensorrt), or use cuda"}
"""What to do where a device does not start."""


def _providers(wanted: str, exact: bool) -> list[Any]:
    """The providers of a device on a card, first the one that is wanted."""
    cuda = (CUDA, EXACT if exact else {})
    return [(TENSORRT, PRECISE if exact else {}), cuda] if wanted == TENSORRT else [cuda]


def _hidden() -> str:
    """Return how to bring back a build with CUDA over which one without was installed, or "".

    Both write the same files, so that the one installed last is the one that is imported.
    """
    try:
        importlib.metadata.distribution("onnxruntime-gpu")
    except importlib.metadata.PackageNotFoundError:
        return ""
    return f"onnxruntime was installed over onnxruntime-gpu and hides it; {REINSTALL}-gpu"


REINSTALL = "pip install --force-reinstall --no-deps onnxruntime"


@functools.cache
def _warn_of_hidden() -> None:
    if problem := _hidden():
        logger.warning("running on the CPU: %s", problem)


def _onnxruntime() -> Any:
    """Import onnxruntime, which is only needed to measure."""
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingPackage(
            "running a model needs onnxruntime; pip install onnxruntime"
        ) from error
    if not hasattr(runtime, "InferenceSession"):  # what removing one of the two builds leaves
        raise MissingPackage(f"onnxruntime is broken; {REINSTALL}, or onnxruntime-gpu for CUDA")
    return runtime


def _start(
    runtime: Any,
    model: Model,
    providers: list[Any],
    *,
    threads: int,
    exact: bool,
    saturates: bool,
    profile: str,
) -> Any:
    """Start a session on these providers, no others."""
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # its errors are raised, not printed
    options.intra_op_num_threads = threads
    options.use_deterministic_compute = exact
    if not saturates:
        options.add_session_config_entry("session.x64quantprecision", "1")
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    try:
        with session_source(model) as (source, mapped):
            # What is neither packed nor in blocks is summed in other pieces on many threads.
            huge = mapped is not None and not fits_message(mapped)
            if huge and exact:  # its weights stay in the file
                options.add_session_config_entry("session.disable_prepacking", "1")
            left = [BLOCKED] if huge and mapped and has_heavy_kernel(mapped) else []
            return runtime.InferenceSession(
                source, options, providers=providers, enable_fallback=0, disabled_optimizers=left
            )
    except OutputError:  # no room for the file that a large model is read from
        raise
    except Exception as error:  # onnxruntime's errors have no root of their own
        if (exhausted := out_of_memory(_name(model), error)) is not None:
            raise exhausted from error
        raise InvalidModel(
            f"{_name(model)}: onnxruntime refuses it: {reason(error)}; expected a model that it "
            "runs (only prune --control one-shot with a target and no --data does without)"
        ) from error


def _name(model: Model) -> str:
    """Name a model in an error."""
    return f"model {model.graph.name!r}" if isinstance(model, onnx.ModelProto) else str(model)


def reason(error: Exception) -> str:
    """Shorten onnxruntime's message to the first line of what it says."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.split(" : ", 3)[-1] if line.startswith("[ONNXRuntimeError]") else line


class Network(Net):
    """A session whose inputs and outputs are bound."""

    def __init__(
        self, model: Model, device: str, threads: int, *, exact: bool, profile: str = ""
    ) -> None:
        model = load_model(model) if is_foreign(model) else model
        self.session = session(model, device=device, threads=threads, exact=exact, profile=profile)
        self.binding = self.session.io_binding()
        self._most = sys.maxsize  # samples that fit into memory at once, as far as is known
        place = "cuda" if CUDA in self.session.get_providers() else "cpu"
        name, inputs = _name(model), self.session.get_inputs()
        ports = {one.name: self._port(name, one, len(inputs)) for one in inputs}
        super().__init__(name, ports, [one.name for one in self.session.get_outputs()], place)

    @staticmethod
    def _port(name: str, given: Any, inputs: int) -> Port:
        if given.type not in DTYPES:
            raise InvalidModel(
                f"{name}: input {given.name!r} is {given.type}, expected one of {', '.join(DTYPES)}"
            )
        sizes = [size if isinstance(size, int) else None for size in given.shape]
        known = bool(sizes) or inputs > 1
        return Port(given.name, DTYPES[given.type], tuple(sizes) if known else None)

    def bind(self, batch: Inputs, place: str) -> Batch:
        """Put a batch where the session reads it; the CPU needs no copy.

        What a card has no room for stays in the machine's memory.
        """
        feeds = {name: np.ascontiguousarray(array) for name, array in batch.feeds.items()}
        return Batch({name: self._put(array, place) for name, array in feeds.items()}, len(batch))

    def _put(self, array: npt.NDArray[Any], place: str) -> Any:
        value_of = _onnxruntime().OrtValue.ortvalue_from_numpy
        try:
            return value_of(array, place, 0)
        except Exception as error:  # as in _start
            exhausted = out_of_memory(self.name, error)
            if exhausted is None or place == "cpu":
                raise exhausted or error from error
            logger.info("the card has no room for the samples: they are sent batch by batch")
            return value_of(array, "cpu", 0)

    def run(self, batch: Batch, outputs: Sequence[str] = ()) -> dict[str, npt.NDArray[Any]]:
        """Run one bound batch and return the outputs named, by default the first.

        A batch that does not fit into memory is run in halves, and so are those that follow.
        Shapes: each as the model gives it.
        Raises: OutOfMemory where a single sample does not fit, or samples cannot be told apart.
        """
        names = tuple(outputs) or self.outputs[:1]
        if batch.size <= self._most:
            try:
                return self._run(batch, names)
            except OutOfMemory as error:
                half = batch.size // 2
                if not half or not self._has_rows(batch):
                    raise
                logger.warning("%s; going on with batches of %d", str(error).split(";")[0], half)
                self._most = half
        half = -(-batch.size // 2)
        parts = (self._rows(batch, slice(half)), self._rows(batch, slice(half, None)))
        found = [(part.size, self.run(part, names)) for part in parts]
        for name in names:
            if any(rows[name].shape[:1] != (size,) for size, rows in found):
                raise OutOfMemory(
                    f"{self.name}: out of memory, and output {name!r} has no row for each sample, "
                    f"so that a batch cannot be halved; {LESS}"
                )
        return {name: np.concatenate([rows[name] for _, rows in found]) for name in names}

    def seconds(self, batch: Batch) -> float:
        """Run one bound batch as it is and return how long that took. Units: s."""
        start = time.perf_counter()
        self._run(batch, self.outputs[:1])
        return time.perf_counter() - start

    def _has_rows(self, batch: Batch) -> bool:
        """Whether every input has a row for each sample, and the model takes any number."""
        shapes = (tuple(value.shape()) for value in batch.values.values())
        return self.batch is None and all(shape[:1] == (batch.size,) for shape in shapes)

    def _rows(self, batch: Batch, rows: slice) -> Batch:
        values = {name: value.numpy()[rows] for name, value in batch.values.items()}
        size = len(range(batch.size)[rows])
        return Batch({name: self._put(rows, self.place) for name, rows in values.items()}, size)

    def _run(self, batch: Batch, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        for name, value in batch.values.items():
            self.binding.bind_ortvalue_input(name, value)
        self.binding.clear_binding_outputs()  # the last batch may have another size
        for name in names:
            self.binding.bind_output(name)
        try:
            self.session.run_with_iobinding(self.binding)
        except Exception as error:  # as in _start
            if (exhausted := out_of_memory(self.name, error)) is not None:
                raise exhausted from error
            shapes = ", ".join(str(value.shape()) for value in batch.values.values())
            raise InvalidModel(
                f"{self.name}: fails on a batch {shapes}: {reason(error)}"
            ) from error
        values = as_arrays(self.name, names, self.binding.get_outputs())
        return dict(zip(names, values, strict=True))


def running(model: Runnable, device: str, threads: int, *, exact: bool) -> Net:
    """Return a model that runs: a session, unless it runs elsewhere already."""
    return model if isinstance(model, Net) else Network(model, device, threads, exact=exact)


LONG_ENOUGH = 0.25
"""Seconds that each model runs at least: shorter than that, one other process decides."""
MOST_TURNS = 1000
QUICK = 0.25
"""Of all runs, the share that is faster than what is reported: others only add to a time."""


def latency(model: Runnable, **options: Any) -> float:
    """Return how long a model takes for one batch of noise: `latencies` of a single one."""
    return latencies([model], **options)[0]


def latencies(
    models: Sequence[Runnable],
    *,
    batch_size: int = 1,
    device: str = "auto",
    threads: int = 0,
    repeats: int = 50,
    patience: float = 5.0,
    warmup: int = 5,
    shape: Sequence[int] | None = None,
    samples: Samples | None = None,
) -> list[float]:
    """Return how long each model takes for one batch; a fixed batch size is kept.

    It is a batch of noise, or of `samples`, as a model of several inputs needs them.

    They run in turn, to and fro, so that whatever else the machine does meets all of them alike:
    `repeats` times, and as often again as it takes to fill `LONG_ENOUGH`. The runs end early, but
    not before 5, once they took more than `patience` seconds for each model.
    Shapes: shape, that of one sample; needed only where a model leaves an axis open.
    Units: ms, the lower quartile of the runs after `warmup`: what is added by others is left out.
    Raises: InvalidModel where an axis is open and no shape is given; otherwise as `session`.
    """
    nets = [running(model, device, threads, exact=False) for model in models]
    batches = [net.batch_of(batch_size, shape, samples) for net in nets]
    times = np.zeros((warmup + MOST_TURNS, len(nets)))
    order, enough = list(enumerate(zip(nets, batches, strict=True))), LONG_ENOUGH * len(nets)
    for turn in track("measuring latency", range(warmup + MOST_TURNS), warmup + repeats):
        for number, (net, batch) in order if turn % 2 else reversed(order):
            times[turn, number] = net.seconds(batch)
        measured = times[warmup : turn + 1]
        spent = measured.sum()
        if len(measured) >= repeats and spent > enough:
            break
        if len(measured) >= 5 and spent > patience * len(nets):
            break
    return [float(found) * 1e3 for found in np.quantile(measured, QUICK, axis=0)]
