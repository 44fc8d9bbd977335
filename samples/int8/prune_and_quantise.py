"""Prune the Fashion-MNIST sample, quantise what is left, and measure float, pruned, INT8 and both.

    python samples/int8/prune_and_quantise.py -o DIR

The 200 reference images decide which filters go, and how far nodes may be in INT8; the 300 test
images only report. `DIR` gets `small.onnx`, and in `edge/` what `onnxprune deploy` writes: the
verified files of each runtime, and `deploy.json` with all figures. It is the same as

    onnxprune prune MODEL --data REFERENCE --macs 0.5 --round-to 8 -o small.onnx
    onnxprune deploy small.onnx --original MODEL --int8 --calibrate REFERENCE --data TEST -o edge
"""

from pathlib import Path

import click
import onnx

import onnxprune
from onnxprune.deploy import deploy, problems
from onnxprune.samples import fashion_mnist

PREPROCESS = "unit"
"""Pixels from 0 to 1, as the network was trained."""


@click.command()
@click.option("--macs", default=0.5, show_default=True, help="Share of multiply-adds to keep.")
@click.option("--max-drop", default=0.01, show_default=True, help="What INT8 itself may cost.")
@click.option("--to", default="onnxruntime", show_default=True, help="Runtimes, by commas.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for small.onnx and edge/.",
)
def main(macs: float, max_drop: float, to: str, threads: int, output: Path) -> None:
    """Prune and quantise the Fashion-MNIST sample, and say what each of both gives."""
    output.mkdir(parents=True, exist_ok=True)
    common = {"preprocess": PREPROCESS, "threads": threads}
    result = onnxprune.prune(
        fashion_mnist.MODEL, fashion_mnist.REFERENCE, macs=macs, round_to=8, **common
    )
    onnx.save(result.model, output / "small.onnx")
    record = deploy(
        output / "small.onnx",
        output / "edge",
        fashion_mnist.TEST,
        original=fashion_mnist.MODEL,
        int8="onnxruntime",
        calibrate=fashion_mnist.REFERENCE,
        to=tuple(to.split(",")),
        max_drop=max_drop,
        **common,
    )
    click.echo("runtime      variant   kB      ms   harmonic")
    for row in record["rows"]:
        name = f"{row['runtime']:12} {row['variant']:7}"
        if row["accuracy"] is None:
            click.echo(f"{name} {row['status']}: {row['reason']}")
            continue
        score = row["accuracy"]["harmonic"]
        click.echo(f"{name} {row['size_bytes'] / 1000:4.0f} {row['latency_ms']:7.3f} {score:10.3f}")
    for told in record["int8"]:
        kept = ", ".join(node["name"] for node in told.get("kept", ())) or "none"
        click.echo(f"{told['variant']}: nodes that stay in float: {kept}")
    if problem := problems(record):
        raise click.ClickException(problem)


if __name__ == "__main__":
    main()
