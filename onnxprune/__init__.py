"""Prune convolution filters of a trained CNN on its ONNX graph, guided by relevance."""

__version__ = "0.1.0"
