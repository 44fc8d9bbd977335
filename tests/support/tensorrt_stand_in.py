"""Stands in for `tensorrt` and `cuda` where there is no GPU: their calls, over onnxruntime.

It holds the order of the calls, the names and what goes where in memory, as NVIDIA documents them
for TensorRT 10. That TensorRT itself agrees only a GPU can tell.
"""

from pathlib import Path

TENSORRT = """
import ctypes, json
import numpy as np, onnxruntime
from cuda.bindings import runtime as cuda

class BuilderFlag: TF32 = "TF32"
class TensorIOMode: INPUT, OUTPUT = "in", "out"
class Logger:
    WARNING = 2
    def __init__(self, severity): assert severity == self.WARNING

def nptype(kind): return {"tensor(float)": np.float32, "tensor(int64)": np.int64}[kind]

class Error:
    def desc(self): return "In node 3: unsupported"

class Config:
    def __init__(self): self.flags = {BuilderFlag.TF32}  # as TensorRT's own
    def clear_flag(self, flag): self.flags.discard(flag)

class Network:
    model = b""

class Builder:
    def __init__(self, logger): assert isinstance(logger, Logger)
    def create_network(self, flags): return Network()
    def create_builder_config(self): return Config()
    def build_serialized_network(self, network, config):
        return json.dumps(sorted(config.flags)).encode() + b"\\n" + network.model

class OnnxParser:
    def __init__(self, network, logger): self.network = network
    def parse_from_file(self, path):
        self.network.model = open(path, "rb").read()
        return b"refuse me" not in self.network.model
    def get_error(self, number): return Error()

class Runtime:
    def __init__(self, logger): pass
    def deserialize_cuda_engine(self, engine):
        flags, newline, model = engine.partition(b"\\n")
        return Engine(json.loads(flags), model) if newline else None

class Engine:
    def __init__(self, flags, model):
        self.flags = flags
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        ports = self.session.get_inputs() + self.session.get_outputs()
        self.ports = {one.name: one for one in ports}
        self.num_io_tensors = len(self.ports)
    def get_tensor_name(self, number): return list(self.ports)[number]
    def get_tensor_shape(self, name): return self.ports[name].shape
    def get_tensor_dtype(self, name): return self.ports[name].type
    def get_tensor_mode(self, name):
        inputs = [one.name for one in self.session.get_inputs()]
        return TensorIOMode.INPUT if name in inputs else TensorIOMode.OUTPUT
    def create_execution_context(self): return Context(self)

class Context:
    def __init__(self, engine): self.engine, self.places = engine, {}
    def set_tensor_address(self, name, place): self.places[name] = place
    def execute_async_v3(self, stream):
        assert stream in cuda.STREAMS
        held = {}
        for name, one in self.engine.ports.items():
            kind = np.dtype(nptype(one.type))
            room = cuda.ROOMS[self.places[name]]
            held[name] = np.frombuffer(room, kind).reshape(one.shape)
        outputs = [one.name for one in self.engine.session.get_outputs()]
        feeds = {name: value for name, value in held.items() if name not in outputs}
        for name, value in zip(outputs, self.engine.session.run(outputs, feeds)):
            held[name][...] = value.astype(np.float16) if self.engine.flags else value
        cuda.pending = True
        return True
"""

CUDA = """
import ctypes, enum

ROOMS, STREAMS, pending = {}, {7}, False

class cudaError_t(enum.IntEnum): cudaSuccess, cudaErrorInvalidValue = 0, 1
class cudaMemcpyKind(enum.IntEnum): cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost = 1, 2

def cudaStreamCreate(): return cudaError_t.cudaSuccess, 7

def cudaMalloc(size):
    room = (ctypes.c_byte * size)()
    ROOMS[ctypes.addressof(room)] = room
    return cudaError_t.cudaSuccess, ctypes.addressof(room)

def cudaMemcpy(to, of, size, kind):
    inside, outside = (to, of) if kind == cudaMemcpyKind.cudaMemcpyHostToDevice else (of, to)
    if inside not in ROOMS or outside in ROOMS or size != len(ROOMS[inside]) or pending:
        return (cudaError_t.cudaErrorInvalidValue,)
    ctypes.memmove(to, of, size)
    return (cudaError_t.cudaSuccess,)

def cudaStreamSynchronize(stream):
    global pending
    pending = False
    return (cudaError_t.cudaSuccess,)
"""


def write_stand_in(folder: Path) -> Path:
    """Write both packages into a folder, which belongs into PYTHONPATH."""
    for name, text in (
        ("tensorrt/__init__.py", TENSORRT),
        ("cuda/__init__.py", ""),
        ("cuda/bindings/__init__.py", ""),
        ("cuda/bindings/runtime.py", CUDA),
    ):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder
