"""Why an operator of ONNX is not described: every one has a reason, which `inspect` shows.

Each reason completes a sentence such as "feeds If 'x', which runs a graph of its own".
"""

from __future__ import annotations

from onnxprune.ops._op import OPS
from onnxprune.ops.node import Node

REASONS: dict[str, str] = {
    "which runs a graph of its own": "If Loop Scan SequenceMap",
    "which draws random numbers": (
        "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike"
    ),
    "which works on a sequence of tensors": (
        "ConcatFromSequence SequenceAt SequenceConstruct SequenceEmpty SequenceErase "
        "SequenceInsert SequenceLength SplitToSequence"
    ),
    "which works on a value that may be missing": (
        "Optional OptionalGetElement OptionalHasElement"
    ),
    "which works on text": (
        "RegexFullMatch StringConcat StringNormalizer StringSplit TfIdfVectorizer"
    ),
    "which decodes an image file": "ImageDecoder",
    "which is a loss, for training only": "NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss",
    "whose output size depends on the values it reads": "Unique",
    "which keeps what it has read for the next call": (
        "CausalConvWithState LinearAttention TensorScatter"
    ),
}
"""Reasons, and the operators of ONNX that each holds for."""

DOMAINS: dict[str, str] = {
    "ai.onnx.ml": "which belongs to a model that is no neural network",
    "ai.onnx.preview": "which ONNX may still change",
    "ai.onnx.preview.training": "which is a step of training",
    "com.microsoft": (
        "an operator of onnxruntime that onnxprune does not know; save the model before "
        "onnxruntime optimises it"
    ),
    "com.microsoft.nchwc": (
        "which onnxruntime wrote for one processor; save the model before onnxruntime optimises it"
    ),
}
"""Reasons that hold for all operators of a domain."""

_REASON_OF = {name: reason for reason, names in REASONS.items() for name in names.split()}


def why_unknown(node: Node) -> str:
    """Return why no description covers this node, to complete "feeds Add 'x', "."""
    if node.border is not None:
        return "which hands it from one run of its body to the next"
    described = OPS.get((node.domain, node.op_type), ())
    versions = sorted(version for op in described for version in op.since)
    if versions and node.version < versions[-1]:
        return (
            f"whose version {node.version} onnxprune does not know; convert the model to a newer "
            f"opset with onnx.version_converter"
        )
    if versions:
        return f"whose version {node.version} is newer than onnxprune knows ({versions[-1]})"
    known = DOMAINS.get(node.domain) if node.domain else _REASON_OF.get(node.op_type)
    return known or "an operator that onnxprune does not know"
