"""Prune the Fashion-MNIST sample hard, and win back what that cost by a minute of training.

    python samples/fashion_mnist/fine_tune.py -o DIR

What is needed is what everybody has: the ONNX model, the function that builds its module, and the
200 reference images. The pruned module learns to answer as the unpruned one does, on these images
moved and mirrored; their labels are not used. It is judged on the 300 test images, which neither
the pruning nor the training has seen.

The batch statistics stay as they are (`eval()`): the model that was exported has them folded into
its convolutions, and 200 images are too few for new ones.
"""

import copy
import time
from pathlib import Path

import click
import torch
from torch import Tensor, nn
from torch.nn import functional

import onnxprune
from onnxprune.samples import fashion_mnist
from onnxprune.samples.fashion_mnist.train import BATCH, augment, network

SOFT = 2.0
"""The temperature at which two answers are compared: also how sure of the other classes."""


def images(folder: Path) -> tuple[Tensor, Tensor]:
    """Shapes: [N, 1, 28, 28] in 0..1, [N]."""
    data = onnxprune.load_data(folder, shape=(1, 28, 28), preprocess="unit")
    return torch.from_numpy(data.x), torch.from_numpy(data.y)


def accuracy(module: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((module.eval()(x).argmax(1) == y).float().mean())


def fine_tune(
    student: nn.Module, teacher: nn.Module, x: Tensor, seconds: float, most: int | None = None
) -> int:
    """Train to answer as the teacher does, for a time or `most` steps; return their number."""
    student.eval(), teacher.eval()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    start = time.monotonic()
    steps = 0

    def done() -> float:
        return steps / most if most else (time.monotonic() - start) / seconds

    while (share := done()) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (1 - share)
        batch = augment(x[torch.randperm(len(x))[:BATCH]])
        with torch.no_grad():
            wanted = functional.softmax(teacher(batch) / SOFT, 1)
        answer = functional.log_softmax(student(batch) / SOFT, 1)
        loss = functional.kl_div(answer, wanted, reduction="batchmean")
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        steps += 1
    return steps


@click.command()
@click.option("--macs", default=0.25, show_default=True, help="Share of multiply-adds to keep.")
@click.option("--seconds", default=60.0, show_default=True, help="Time to train.")
@click.option("--steps", "most", type=click.IntRange(min=1), help="Steps to train, at any speed.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for small.onnx, plan.json and small.pt.",
)
def main(
    macs: float, seconds: float, most: int | None, seed: int, threads: int, output: Path
) -> None:
    """Prune the Fashion-MNIST sample, fine-tune the pruned module and say what that regains."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    output.mkdir(parents=True, exist_ok=True)
    result = onnxprune.prune(
        fashion_mnist.MODEL, fashion_mnist.REFERENCE, preprocess="unit", macs=macs, threads=threads
    )
    onnxprune.export_weights(result.model, result.plan, network(), output / "small.pt")
    # A plan that removes nothing brings the unpruned weights to torch.
    teacher = onnxprune.cut_module(network(), fashion_mnist.MODEL, onnxprune.Plan({}))
    student = onnxprune.load_pruned_module(network(), output / "small.pt")
    pruned = copy.deepcopy(student)
    (x, y), (seen, _) = images(fashion_mnist.TEST), images(fashion_mnist.REFERENCE)
    start = time.monotonic()
    steps = fine_tune(student, teacher, seen, seconds, most)
    spent = time.monotonic() - start
    onnxprune.save_pruned_module(student, output / "small.pt")
    kept = result.report["after"]["macs"] / result.report["before"]["macs"]
    click.echo(f"{kept:.0%} of the multiply-adds left; accuracy on {len(y)} unseen test images:")
    for name, module in (("unpruned", teacher), ("pruned", pruned), ("fine-tuned", student)):
        click.echo(f"  {name:10} {accuracy(module, x, y):.3f}")
    click.echo(f"{steps} steps in {spent:.0f} s: {output / 'small.pt'}")


if __name__ == "__main__":
    main()
