"""Fit a linear head on frozen features, by logistic regression, and append it as a Gemm."""

import copy

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper, numpy_helper

BATCH = 50

FloatArray = npt.NDArray[np.float32]
LabelArray = npt.NDArray[np.int64]
Head = tuple[FloatArray, FloatArray]


def run(model: onnx.ModelProto, images: FloatArray, *, threads: int) -> FloatArray:
    """Run a model of one output on onnxruntime, batch by batch.

    Shapes: [N, 3, H, W] -> [N, F].
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    batches = np.array_split(images, -(-len(images) // BATCH))
    return np.concatenate([session.run(None, {"image": batch})[0] for batch in batches])


def fit_head(features: FloatArray, labels: LabelArray, penalty: float) -> Head:
    """Minimise the mean cross-entropy + penalty / 2 * |weight|^2 (logistic regression).

    The features are centred and divided by their standard deviation over all features. The weight
    and the bias that are returned take the features as they are.

    Shapes: [N, F], [N] -> [classes, F], [classes].
    """
    import torch

    mean = features.mean(0, dtype=np.float64)
    scale = float((features - mean).std()) or 1.0
    inputs = torch.from_numpy((features - mean) / scale)
    targets = torch.from_numpy(labels)
    classes = int(labels.max()) + 1
    weight = torch.zeros(classes, inputs.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=1000, tolerance_grad=1e-8, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = inputs @ weight.T + bias
        value = torch.nn.functional.cross_entropy(logits, targets)
        value = value + penalty / 2 * weight.square().sum()
        torch.autograd.backward(value)
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    folded = weight.detach().numpy() / scale
    shift = bias.detach().numpy() - folded @ mean
    return folded.astype(np.float32), shift.astype(np.float32)


def attach_head(features: onnx.ModelProto, head: Head) -> onnx.ModelProto:
    """Append a Gemm to the only output of a network, and call its output `logits`.

    Shapes: image -> features [batch, F] becomes image -> logits [batch, classes].
    """
    model = copy.deepcopy(features)
    graph = model.graph
    names = [graph.output[0].name, "head.weight", "head.bias"]
    graph.node.append(helper.make_node("Gemm", names, ["logits"], "logits", transB=1))
    for name, value in zip(names[1:], head, strict=True):
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    graph.output[0].name = "logits"
    graph.output[0].type.tensor_type.shape.dim[1].Clear()
    graph.output[0].type.tensor_type.shape.dim[1].dim_value = len(head[0])
    onnx.checker.check_model(model, full_check=True)
    return model
