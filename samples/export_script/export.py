"""An export script as a TensorRT user has one, with a few lines of onnxprune in the middle.

    python samples/export_script/export.py -o small.onnx

The script takes a network, edits its graph with onnx-graphsurgeon, and writes the file that an
application loads. Between the two it prunes: the graph goes in as it is held and comes back in
kind. What that cost on test images is held against a condition, as `onnxprune compare --fail-if`
does; a network that lost too much is not written, and the exit code is 1.
"""

from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnx_graphsurgeon as gs

import onnxprune
from onnxprune.gate import Condition, figures
from onnxprune.integrations import callbacks
from onnxprune.samples import fashion_mnist


def held() -> gs.Graph:
    """The network as the script holds it; elsewhere it comes out of `torch.onnx.export`."""
    return gs.import_onnx(onnx.load(fashion_mnist.MODEL)).cleanup().toposort()


def with_answer(graph: gs.Graph) -> gs.Graph:
    """Add what the application reads: the probabilities, and the class of each image."""
    (logits,) = graph.outputs
    shares = gs.Variable("probabilities", np.float32, logits.shape)
    label = gs.Variable("label", np.int64, logits.shape[:1])
    nodes = (("Softmax", logits, shares, {}), ("ArgMax", shares, label, {"keepdims": 0}))
    for op, given, made, attributes in nodes:
        node = gs.Node(op, f"answer/{op}", {"axis": 1, **attributes}, [given], [made])
        graph.nodes.append(node)
    graph.outputs = [shares, label]
    return graph.cleanup().toposort()


def told(task: Any, state: Any) -> None:
    """Print a step; `callbacks.tensorboard("logs")` or one of the others may stand in its place."""
    found = callbacks.figures(task, state)
    click.echo(f"{found['macs']:12,.0f} multiply-adds, harmonic mean {found['harmonic']:.3f}")


@click.command()
@click.option("--macs", default=0.6, show_default=True, help="Share of multiply-adds to keep.")
@click.option(
    "--fail-if",
    default="harmonic_drop > 0.02 or macs_ratio > 0.7",
    show_default=True,
    help="What the pruned network must not come to.",
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
def main(macs: float, fail_if: str, threads: int, output: Path) -> None:
    """Export the Fashion-MNIST sample for an application, pruned."""
    failing = Condition(fail_if)
    graph = held()

    asked = onnxprune.Settings.of(preprocess="unit", macs=macs, round_to=8, threads=threads)
    result = onnxprune.prune(graph, fashion_mnist.REFERENCE, settings=asked, on_state=told)
    small = result.as_graphsurgeon()
    compared = onnxprune.compare(graph, small, fashion_mnist.TEST, asked)
    if reasons := failing.reasons(figures(compared)):
        raise click.ClickException(f"not exported: {'; '.join(reasons)}")

    onnx.save(gs.export_onnx(with_answer(small)), output)
    before, after = (compared[side]["accuracy"]["harmonic"] for side in ("before", "after"))
    click.echo(f"exported {output}: harmonic mean {before:.3f} -> {after:.3f} on test images")


if __name__ == "__main__":
    main()
