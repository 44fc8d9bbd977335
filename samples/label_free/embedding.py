"""Train a small embedding of pictures, prune it, and see whether it still finds a picture again.

    python samples/label_free/embedding.py -o DIR

There is no label anywhere. The network learns that two views of one picture, cut out elsewhere,
mirrored and lit otherwise, are nearer to each other than to other pictures (SimCLR). Filters go as
long as the embeddings of 60 reference pictures stay where they are. Then both networks look for
each of 400 other pictures among all of them, by another view of it. The pictures are the scenes of
the sample `detection`, drawn here.
"""

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional

import onnxprune
from onnxprune.samples.detection.train import compose, layer, to_input

SIDE = 48
BATCH = 100
OPSET, IR_VERSION = 17, 8
SHARP = 0.2
"""The temperature: how much nearer the right view has to be."""
OUTPUT = "embedding"
OTHERS = 400
"""Pictures that neither the training nor the pruning has seen."""
JUDGED = (f"{OUTPUT}=vector",)
"""What holds the answer: its numbers are one vector, of which the direction counts."""


def pictures(count: int, rng: np.random.Generator) -> Tensor:
    """Scenes at half their size. Shapes: [N, 3, 48, 48] in 0..1."""
    return functional.avg_pool2d(to_input(compose(count, rng).images), 2)


def view(x: Tensor) -> Tensor:
    """Each picture cut out elsewhere, mirrored or not, lit otherwise. Shapes: as they come."""
    n = len(x)
    scale = torch.empty(n).uniform_(0.7, 1.0)
    flip = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    place = torch.zeros(n, 2, 3)
    place[:, 0, 0], place[:, 1, 1] = scale * flip, scale
    place[:, :, 2] = torch.empty(n, 2).uniform_(-1, 1) * (1 - scale[:, None])
    grid = functional.affine_grid(place, list(x.shape), align_corners=False)
    cut = functional.grid_sample(x, grid, align_corners=False)
    gain, shift = (
        torch.empty(n, 3, 1, 1).uniform_(0.7, 1.3),
        torch.empty(n, 3, 1, 1).uniform_(-0.1, 0.1),
    )
    return (cut * gain + shift).clamp(0, 1)


def network() -> nn.Module:
    """Shapes: [N, 3, 48, 48] -> [N, 64]."""
    widths = ((3, 32), (32, 48), (48, 64), (64, 96))
    layers = [layer(one, other, stride=2) for one, other in widths]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 64))


def fit(module: nn.Module, steps: int, rng: np.random.Generator) -> Iterator[float]:
    """Train in place, and yield the loss of every step (NT-Xent of Chen et al. 2020)."""
    x = pictures(20 * BATCH, rng)
    optimizer = torch.optim.AdamW(module.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    same = torch.arange(2 * BATCH).roll(BATCH)
    module.train()
    for _ in range(steps):
        batch = x[torch.randperm(len(x))[:BATCH]]
        found = functional.normalize(module(torch.cat([view(batch), view(batch)])), dim=1)
        near = (found @ found.T / SHARP).fill_diagonal_(-torch.inf)
        loss = functional.cross_entropy(near, same)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        yield loss.item()


def export(module: nn.Module, path: Path) -> None:
    """Write the network as ONNX, BatchNorm folded into the convolutions, the batch size free."""
    torch.onnx.export(
        module.eval(),
        (torch.zeros(1, 3, SIDE, SIDE),),
        path,
        input_names=["image"],
        output_names=[OUTPUT],
        opset_version=OPSET,
        dynamic_axes={"image": {0: "batch"}, OUTPUT: {0: "batch"}},
        dynamo=False,  # the classic exporter names each node after its module
    )
    proto = onnx.load(path)
    proto.ir_version = IR_VERSION
    onnx.save(proto, path)


def found_again(model: Path, views: tuple[Tensor, Tensor]) -> float:
    """The share of pictures of which another view is the nearest of all, on onnxruntime."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    one, other = (
        functional.normalize(torch.from_numpy(session.run([OUTPUT], {"image": x.numpy()})[0]))
        for x in views
    )
    return float(((one @ other.T).argmax(1) == torch.arange(len(one))).float().mean())


@click.command()
@click.option("--steps", type=click.IntRange(min=1), default=300, show_default=True)
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="Agreement with the unpruned network that may be lost.",
)
@click.option("--reference-pictures", type=click.IntRange(min=8), default=60, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for the models and the reference pictures.",
)
def main(
    steps: int, max_drop: float, reference_pictures: int, seed: int, threads: int, output: Path
) -> None:
    """Train an embedding without labels, prune it without labels and compare."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    streams = [np.random.default_rng([seed, part]) for part in range(3)]
    module = network()
    for step, loss in enumerate(fit(module, steps, streams[0]), 1):
        if step % 50 == 0:
            click.echo(f"step {step}/{steps}: loss {loss:.3f}")
    output.mkdir(parents=True, exist_ok=True)
    model, small = output / "model.onnx", output / "small.onnx"
    export(module, model)
    reference = output / "reference.npz"
    np.savez(reference, image=view(pictures(reference_pictures, streams[1])))

    settings = onnxprune.Settings.of(
        outputs=JUDGED, max_drop=max_drop, aim="macs", round_to=8, threads=threads
    )
    result = onnxprune.prune(model, reference, settings=settings)
    onnx.save(result.model, small)

    others = pictures(OTHERS, streams[2])
    views = view(others), view(others)
    test = output / "test.npz"
    np.savez(test, image=views[0])
    found = onnxprune.compare(model, small, test, settings)
    before, after = found["before"], found["after"]
    click.echo(f"on {OTHERS} other pictures             before   after")
    click.echo(
        f"{'fidelity':28} {before['accuracy']['mean']:8.3f} {after['accuracy']['mean']:7.3f}"
    )
    again = [found_again(path, views) for path in (model, small)]
    click.echo(f"{'found again':28} {again[0]:8.3f} {again[1]:7.3f}")
    for key in ("filters", "params", "macs"):
        click.echo(f"{key:24} {before[key]:12,} {after[key]:12,}")


if __name__ == "__main__":
    main()
