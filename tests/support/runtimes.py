"""Runtimes of one's own for tests: onnxruntime, and what goes wrong with others."""

from pathlib import Path

TEMPLATE = """
import os, shutil, sys, time
from pathlib import Path

PACKAGES = {packages}

def convert(model, folder):
    print("noise " * 3)
    os.write(1, b"more noise\\n")
    {converting}
    file = folder / (model.stem + ".own")
    shutil.copyfile(model, file)
    return file

class Session:
    def __init__(self, file, threads):
        from onnxruntime import InferenceSession
        self.own = InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
        self.inputs = [(i.name, "float32", i.shape) for i in self.own.get_inputs()]
        self.outputs = ["out%d" % k for k, _ in enumerate(self.own.get_outputs())]

    def run(self, feeds):
        rows = self.own.run(None, dict(feeds))
        {running}
        return dict(zip(self.outputs, rows))

def load(file, threads):
    {loading}
    return Session(file, threads)
"""


def write_runtime(
    path: Path,
    *,
    packages: str = '("onnxruntime",)',
    converting: str = "pass",
    loading: str = "pass",
    running: str = "pass",
) -> Path:
    """Write the module of a runtime that copies ONNX; the arguments are code of each stage."""
    path.write_text(
        TEMPLATE.format(packages=packages, converting=converting, loading=loading, running=running),
        encoding="utf-8",
    )
    return path
