"""Build the VGG16 experiment: a pre-trained network on few labelled images.

    python samples/vgg16_cifar10.py --reference reference.tar --test test.tar -o DIR

The convolutions of VGG16, trained on ImageNet, stay as they are; on top of them a linear head
(logistic regression with an L2 penalty) learns the classes of the reference images. DIR receives
`model.onnx`, which takes RGB images in 0..1, and the chosen images as `reference/<class>/*.png`
and `test/<class>/*.png`: all that `onnxprune curve` needs. The images may be CIFAR-10's or any
others sorted into one folder per class.

The graph is Sub, thirteen Conv and Relu, five MaxPool, Flatten and Gemm. The scale of the pixels
and the order of their colours are folded into the first convolution, which is exact. The mean is
not, because the padding's zeros come after it: it stays as the one Sub.
"""

import shlex
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

import click
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, UnidentifiedImageError

OPSET = 17
IR_VERSION = 8
BATCH = 50
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png")
BGR_MEAN = (103.939, 116.779, 123.68)  # of the Oxford weights, on 0..255

FloatArray = npt.NDArray[np.float32]
LabelArray = npt.NDArray[np.int64]
Weights = Mapping[str, FloatArray]
Head = tuple[FloatArray, FloatArray]


# ---------------------------------------------------------------------------------------- images


@dataclass(frozen=True)
class Picture:
    """One image file: its name without suffix, and what Pillow read."""

    name: str
    image: Image.Image


def read_pictures(source: Path) -> dict[str, list[Picture]]:
    """The images of a folder or tar that holds one folder per class, classes and names sorted."""
    classes: dict[str, list[Picture]] = {}
    try:
        for path, data in sorted(_read_files(source)):
            if path.suffix.lower() in SUFFIXES:
                image = Image.open(BytesIO(data)).convert("RGB")
                classes.setdefault(path.parent.name, []).append(Picture(path.stem, image))
    except (OSError, tarfile.TarError, UnidentifiedImageError) as error:
        raise click.ClickException(f"cannot read the images in {source}: {error}") from error
    if not classes:
        raise click.ClickException(
            f"{source} holds no images ({', '.join(SUFFIXES)}); expected one folder per class"
        )
    return classes


def _read_files(source: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    if source.is_dir():
        for file in source.glob("*/*"):
            if file.is_file():
                yield PurePosixPath(file.relative_to(source)), file.read_bytes()
        return
    with tarfile.open(source) as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            if (content := archive.extractfile(member)) is not None and path.parent.name:
                yield path, content.read()


def draw(
    pictures: Mapping[str, Sequence[Picture]],
    classes: Sequence[str],
    per_class: int,
    rng: np.random.Generator,
) -> dict[str, list[Picture]]:
    """Equally many images of each class, chosen at random."""
    chosen = {}
    for name in classes:
        found = pictures.get(name, ())
        if len(found) < per_class:
            raise click.ClickException(
                f"class {name!r} has {len(found)} images, but {per_class} were asked for; "
                f"the source holds {', '.join(f'{key} ({len(pictures[key])})' for key in pictures)}"
            )
        picks = np.sort(rng.choice(len(found), per_class, replace=False))
        chosen[name] = [found[pick] for pick in picks]
    return chosen


def write_pictures(pictures: Mapping[str, Sequence[Picture]], folder: Path) -> None:
    """Write folder/<class>/<name>.png in the images' own size, without loss."""
    for name, members in pictures.items():
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        for picture in members:
            picture.image.save(target / f"{picture.name}.png")


def to_arrays(
    pictures: Mapping[str, Sequence[Picture]], size: int
) -> tuple[FloatArray, LabelArray]:
    """Images resized as onnxprune resizes a folder's, and the index of each one's class.

    Shapes: [N, 3, size, size] in 0..1, [N].
    """
    images, labels = [], []
    for label, members in enumerate(pictures.values()):
        for picture in members:
            resized = picture.image.resize((size, size), Image.Resampling.BILINEAR)
            images.append(np.asarray(resized, np.float32).transpose(2, 0, 1) / np.float32(255))
            labels.append(label)
    return np.stack(images), np.array(labels, np.int64)


# --------------------------------------------------------------------------------------- weights


def read_weights(path: Path) -> tuple[dict[str, FloatArray], FloatArray]:
    """The Oxford weights, made for RGB images in 0..1; and the mean to subtract from these.

    The file holds `block1_conv1.weight` [out, in, 3, 3], `block1_conv1.bias` [out] and so on, for
    images in the order BGR, 0..255 minus their mean.
    """
    try:
        with np.load(path) as file:
            weights = {name: file[name].astype(np.float32) for name in sorted(file)}
        first = weights["block1_conv1.weight"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise click.ClickException(
            f"cannot read VGG weights from {path}: {error}; expected an .npz with "
            "block1_conv1.weight, block1_conv1.bias, ..."
        ) from error
    weights["block1_conv1.weight"] = first[:, ::-1] * np.float32(255)
    return weights, np.array(BGR_MEAN[::-1], np.float32) / np.float32(255)


def download_weights() -> tuple[dict[str, FloatArray], FloatArray]:
    """The same from torchvision, whose IMAGENET1K_FEATURES take RGB: (image - mean) / (1 / 255)."""
    try:
        from torchvision.models import VGG16_Weights, vgg16
    except (ImportError, RuntimeError) as error:
        raise click.ClickException(
            f"torchvision cannot be imported ({error}); name a weight file with --weights"
        ) from error
    choice = VGG16_Weights.IMAGENET1K_FEATURES
    try:
        layers = vgg16(weights=choice).features
    except OSError as error:
        raise click.ClickException(
            f"cannot download {choice.url}: {error}; name a weight file with --weights"
        ) from error
    weights: dict[str, FloatArray] = {}
    block = conv = 1
    for layer in layers:
        kind = type(layer).__name__
        if kind == "Conv2d":
            weights[f"block{block}_conv{conv}.weight"] = layer.weight.detach().numpy()
            weights[f"block{block}_conv{conv}.bias"] = layer.bias.detach().numpy()
            conv += 1
        elif kind == "MaxPool2d":
            block, conv = block + 1, 1
    transforms = choice.transforms()
    scale = np.array(transforms.std, np.float32).reshape(1, 3, 1, 1)
    weights["block1_conv1.weight"] = weights["block1_conv1.weight"] / scale
    return weights, np.array(transforms.mean, np.float32)


# ----------------------------------------------------------------------------------------- model


def build(
    weights: Weights, mean: FloatArray, *, size: int, head: Head | None = None
) -> onnx.ModelProto:
    """VGG as ONNX, as wide and deep as its weights; without a head it ends in the features.

    Shapes: image [batch, 3, size, size] in 0..1 -> features [batch, F] or logits [batch, classes].
    """
    constants: dict[str, FloatArray] = {"mean": mean.reshape(1, 3, 1, 1)}
    nodes = [helper.make_node("Sub", ["image", "mean"], ["centred"], "subtract_mean")]
    tensor, channels, side = "centred", 3, size

    def add(kind: str, name: str, *parameters: str, **attributes: int | list[int]) -> None:
        nonlocal tensor
        node = helper.make_node(kind, [tensor, *parameters], [name], name)
        node.attribute.extend(helper.make_attribute(*item) for item in attributes.items())
        nodes.append(node)
        tensor = name

    names = [key.removesuffix(".weight") for key in sorted(weights) if key.endswith(".weight")]
    for index, name in enumerate(names):
        weight, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
        expected = (len(weight), channels, 3, 3)
        if weight.shape != expected or bias is None or bias.shape != expected[:1]:
            raise click.ClickException(
                f"{name}.weight has the shape {weight.shape} and {name}.bias "
                f"{None if bias is None else bias.shape}; expected {expected} and {expected[:1]}"
            )
        constants |= {f"{name}.weight": weight, f"{name}.bias": bias}
        add("Conv", name, f"{name}.weight", f"{name}.bias", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        add("Relu", f"{name}_relu")
        channels = len(weight)
        block = name.split("_")[0]
        if index + 1 == len(names) or names[index + 1].split("_")[0] != block:
            add("MaxPool", f"{block}_pool", kernel_shape=[2, 2], strides=[2, 2])
            side //= 2
    if side < 1:
        raise click.ClickException(f"images of {size} pixels are too small for this network")
    add("Flatten", "features")
    width = channels * side * side
    if head is not None:
        constants |= {"head.weight": head[0], "head.bias": head[1]}
        add("Gemm", "logits", "head.weight", "head.bias", transB=1)
        width = len(head[0])

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, size, size])
    result = helper.make_tensor_value_info(tensor, TensorProto.FLOAT, ["batch", width])
    initializers = [
        numpy_helper.from_array(np.ascontiguousarray(value), name)
        for name, value in constants.items()
    ]
    graph = helper.make_graph(nodes, "vgg16", [image], [result], initializers)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="onnxprune.samples.vgg16_cifar10",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: onnx.ModelProto, images: FloatArray, *, threads: int) -> FloatArray:
    """The model's only output on onnxruntime, batch by batch.

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
    """Multinomial logistic regression: mean cross-entropy + penalty / 2 * |weight|^2.

    It sees features centred and divided by one scale for all, and comes back folded into a weight
    and a bias for the features as they are.

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


# --------------------------------------------------------------------------------------- program


@click.command()
@click.option(
    "--reference",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    help="Tar or folder to draw the few labelled images from, one folder per class.",
)
@click.option(
    "--test",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    help="The same for the images that judge.",
)
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The Oxford weights as .npz.  [default: torchvision's IMAGENET1K_FEATURES]",
)
@click.option("--per-class", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--test-per-class", type=click.IntRange(min=1), default=40, show_default=True)
@click.option("--classes", help="Names, separated by commas.  [default: all]")
@click.option("--size", type=click.IntRange(min=1), default=64, show_default=True)
@click.option(
    "--penalty",
    type=click.FloatRange(min=0, min_open=True),
    default=0.1,
    show_default=True,
    help="L2 penalty of the head; more gives softer probabilities.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for model.onnx, reference/ and test/; must not hold images yet.",
)
def main(
    reference: Path,
    test: Path,
    weights: Path | None,
    per_class: int,
    test_per_class: int,
    classes: str | None,
    size: int,
    penalty: float,
    seed: int,
    threads: int,
    output: Path,
) -> None:
    """Build the VGG16 experiment: the model, its reference images and its test images."""
    for name in ("reference", "test"):
        if (output / name).exists():
            raise click.UsageError(f"{output / name} exists already; name another --output")
    references = read_pictures(reference)
    # a folder's labels are its classes in alphabetical order, so the head's must be, too
    names = sorted({name.strip() for name in classes.split(",")} if classes else references)
    if len(names) < 2:
        raise click.UsageError(f"a classifier needs two classes or more, not {', '.join(names)}")
    rng = np.random.default_rng(seed)
    references = draw(references, names, per_class, rng)
    tests = draw(read_pictures(test), names, test_per_class, rng)

    parameters, mean = download_weights() if weights is None else read_weights(weights)
    images, labels = to_arrays(references, size)
    features = run(build(parameters, mean, size=size), images, threads=threads)
    model = build(parameters, mean, size=size, head=fit_head(features, labels, penalty))

    output.mkdir(parents=True, exist_ok=True)
    path = output / "model.onnx"
    onnx.save(model, path)
    write_pictures(references, output / "reference")
    write_pictures(tests, output / "test")
    click.echo(f"wrote {path}: {len(names)} classes ({', '.join(names)})")
    for kind, pictures in (("reference", references), ("test", tests)):
        images, labels = to_arrays(pictures, size)
        right = run(model, images, threads=threads).argmax(1) == labels
        click.echo(f"{kind} accuracy {right.mean():.4f} on {len(labels)} images")
    folder = shlex.quote(str(output))
    click.echo(
        f"next: onnxprune curve {folder}/model.onnx --data {folder}/reference "
        f"--test {folder}/test --preprocess unit --method accuracy-aware/lrp "
        f"--method one-shot/lrp --method one-shot/magnitude -o {folder}/curve"
    )


if __name__ == "__main__":
    main()
