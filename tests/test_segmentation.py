"""Networks that classify pixels: scored, searched, compensated and reported as classifiers are."""

import importlib
import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import ModelProto
from PIL import Image
from sklearn.metrics import jaccard_score

import onnxprune
from onnxprune.channels.groups import find_groups
from onnxprune.cli.commands import main
from onnxprune.data import Data
from onnxprune.data.label_maps import IGNORED
from onnxprune.errors import DataError, InvalidModel
from onnxprune.graph.graph import Graph
from onnxprune.ops._torch import torch
from onnxprune.relevance.criteria import score
from onnxprune.relevance.lrp import pixel_weights, start
from onnxprune.search.assemble import open_model
from onnxprune.search.settings import Settings
from tests.support.models import model, run
from tests.support.small_net import Small

CLASSES, SIDE, COUNT = 3, 8, 12

MAPS = f"""
maps (float[N,1,{SIDE},{SIDE}] x) => (float[N,3,{SIDE},{SIDE}] y)
<float[8,1,3,3] w1, float[8] b1, float[6,8,3,3] w2, float[6] b2, float[6,8,2,2] w3,
 float[3,16,1,1] w4> {{
  one = Conv<pads=[1,1,1,1]>(x, w1, b1)
  r = Relu(one)
  two = Conv<pads=[1,1,1,1], strides=[2,2]>(r, w2, b2)
  s = Relu(two)
  up = ConvTranspose<strides=[2,2]>(s, w3)
  c = Concat<axis=1>(up, r)
  y = Conv(c, w4)
}}
"""
TINY = """
tiny (float[N,2,1,1] x) => (float[N,3,1,1] y)
<float[6,2,1,1] w1, float[6] b1, float[5,6,1,1] w2, float[3,5,1,1] w3> {
  one = Conv(x, w1, b1)
  r = Relu(one)
  two = Conv(r, w2)
  s = Relu(two)
  y = Conv(s, w3)
}
"""


@pytest.fixture(scope="module")
def net() -> ModelProto:
    return model(MAPS, seed=3)


@pytest.fixture(scope="module")
def scenes(net: ModelProto) -> Data:
    """Images with the maps that the network itself gives them, a corner of each not counting."""
    x = np.random.default_rng(0).normal(size=(COUNT, 1, SIDE, SIDE)).astype(np.float32)
    y = run(net, x)[0].argmax(1)
    assert np.bincount(y.ravel()).min() > 20
    y[:, :2, :2] = IGNORED
    return Data(x, y, ("a", "b", "c"))


def iou(proto: ModelProto, data: Data) -> np.ndarray:
    """The IoU of every class, of onnxruntime's outputs, by scikit-learn."""
    valid = data.y != IGNORED
    given = run(proto, data.x)[0].argmax(1)[valid]
    return np.asarray(jaccard_score(data.y[valid], given, labels=range(CLASSES), average=None))


# Relevance starts


@pytest.mark.parametrize("last", [False, True], ids=["NCHW", "NHWC"])
def test_relevance_starts_at_every_pixel_of_a_map(last: bool) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, CLASSES, 5, 6))
    maps = rng.choice([0, 1, 2, 2, 2, IGNORED], (4, 5, 6))
    expected = np.zeros_like(logits)
    for n, row, column in np.argwhere(maps != IGNORED).tolist():
        z, label = logits[n, :, row, column], maps[n, row, column]
        relevance = (np.eye(CLASSES)[label] - 1 / CLASSES) * z
        expected[n, :, row, column] = relevance / (maps[n] == label).sum()
    expected /= np.abs(expected).sum((1, 2, 3), keepdims=True)
    given, wanted = (np.moveaxis(a, 1, -1) if last else a for a in (logits, expected))
    found = start(torch.from_numpy(given), torch.from_numpy(maps)).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-12)


def test_the_classes_of_a_map_weigh_alike() -> None:
    maps = torch.tensor([[[0, 0, 0, 2], [0, 0, 255, 2]], [[255, 255, 255, 255]] * 2])
    weights = pixel_weights(maps)
    assert weights[maps == IGNORED].tolist() == [0.0] * 9
    assert float(weights[0].sum()) == pytest.approx(1)
    assert float(weights[0][maps[0] == 0].sum()) == pytest.approx(0.5)


@pytest.mark.parametrize("criterion", ["lrp", "lrp:zplus", "taylor", "gradient", "activation"])
def test_maps_of_one_pixel_score_as_samples_do(criterion: str) -> None:
    graph = Graph(model(TINY, seed=1))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 2, 1, 1)).astype(np.float32), rng.integers(0, CLASSES, 9)
    samples, maps = Data(x, y, ("a", "b", "c")), Data(x, y[:, None, None], ("a", "b", "c"))
    groups = find_groups(graph)
    expected, found = (
        score(graph, groups, data, criterion, device="cpu") for data in (samples, maps)
    )
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("control", ["one-shot", "iterative", "accuracy-aware"])
def test_maps_of_one_pixel_are_pruned_as_samples_are(control: str) -> None:
    net = model(TINY, seed=7)
    x = np.random.default_rng(0).normal(size=(40, 2, 1, 1)).astype(np.float32)
    y = run(net, x)[0].argmax(1)[:, 0, 0]
    assert np.bincount(y, minlength=CLASSES).min() > 3
    ask = {"control": control, "compensate": "none", "device": "cpu", "threads": 1}
    plans = [
        onnxprune.prune(net, Data(x, labels, ("a", "b", "c")), rate=0.4, **ask).plan
        for labels in (y, y[:, None, None])
    ]
    assert plans[0].removed == plans[1].removed != {}


def test_an_image_counts_for_every_class_in_it(net: ModelProto, scenes: Data) -> None:
    """Activation knows no labels, so a class's mean is that over the images which show it."""
    graph = Graph(net)
    y = np.where(np.arange(COUNT)[:, None, None] < 4, 0, scenes.y)
    maps = Data(scenes.x, y, scenes.classes)
    found = score(graph, find_groups(graph), maps, "activation,layer-none", device="cpu").values
    kind = ("a", "b")
    first, rest = (
        score(
            graph,
            find_groups(graph),
            Data(scenes.x[rows], np.zeros(len(scenes.x[rows]), np.int64), kind),
            "activation,layer-none",
            device="cpu",
        ).values[0]
        for rows in (slice(0, 4), slice(4, None))
    )
    held = [[(one == k).any() for k in range(CLASSES)] for one in y[4:]]
    assert np.array(held).all(), "every other image shows all classes"
    np.testing.assert_allclose(found[1], rest)
    share = 8 / CLASSES
    np.testing.assert_allclose(found[0], (4 * first + share * rest) / (4 + share))


# Runs


@pytest.mark.parametrize("control", ["one-shot", "iterative", "accuracy-aware"])
@pytest.mark.parametrize("compensate", ["none", "least-squares"])
def test_a_run_reports_the_iou_of_its_model(
    net: ModelProto, scenes: Data, control: str, compensate: str
) -> None:
    ask = {"control": control, "compensate": compensate, "device": "cpu", "threads": 1}
    result = onnxprune.prune(net, scenes, metric="mean-iou", min_accuracy=0.3, aim="rate", **ask)
    report = result.report
    assert report["metric"] == "mean-iou"
    assert report["before"]["accuracy"] == {
        "mean": 1.0,
        "harmonic": 1.0,
        "shrunk_harmonic": 1.0,
        "per_class": [1.0] * 3,
    }
    expected = iou(result.model, scenes)
    assert report["after"]["accuracy"]["per_class"] == pytest.approx(expected.tolist())
    harmonic = 1 / np.mean(1 / expected)
    assert report["after"]["accuracy"]["harmonic"] == pytest.approx(harmonic)
    assert 0.3 <= harmonic < 1
    assert report["rate"] > 0


@pytest.mark.parametrize("criterion", ["lrp", "taylor"])
def test_a_network_with_one_map_is_pruned(scenes: Data, criterion: str) -> None:
    text = MAPS.replace("float[N,3,", "float[N,1,").replace("float[3,16,1,1]", "float[1,16,1,1]")
    net = model(text, seed=3)
    maps = (run(net, scenes.x)[0][:, 0] > 0).astype(np.int64)
    assert 0.2 < maps.mean() < 0.8
    ask = {"criterion": criterion, "compensate": "none", "device": "cpu", "threads": 1}
    data = Data(scenes.x, maps, ("background", "object"))
    result = onnxprune.prune(net, data, metric="mean-iou", min_accuracy=0.5, aim="rate", **ask)
    assert result.report["before"]["accuracy"]["per_class"] == [1.0, 1.0]
    given = run(result.model, scenes.x)[0][:, 0] > 0
    expected = jaccard_score(maps.ravel(), given.ravel(), labels=[0, 1], average=None)
    assert result.report["after"]["accuracy"]["per_class"] == pytest.approx(expected.tolist())
    assert result.report["rate"] > 0.1


def test_larger_maps_are_resized_once_and_for_all(net: ModelProto, scenes: Data) -> None:
    large = Data(scenes.x, scenes.y.repeat(3, axis=1).repeat(2, axis=2), scenes.classes)
    _, opened = open_model(net, large, Settings())
    assert opened is not None
    np.testing.assert_array_equal(opened.y, scenes.y)
    plans = [
        onnxprune.prune(net, data, metric="mean-iou", rate=0.3, device="cpu", threads=1).plan
        for data in (scenes, large)
    ]
    assert plans[0].removed == plans[1].removed


def test_labels_that_are_not_of_the_models_kind_are_refused(
    net: ModelProto, scenes: Data, small: Small
) -> None:
    with pytest.raises(InvalidModel, match=r"expected floats \[12, classes\].* give label maps"):
        onnxprune.prune(net, Data(scenes.x, np.zeros(COUNT, np.int64), ("a",)), threads=1)
    maps = Data(small.x, np.zeros((len(small.x), SIDE, SIDE), np.int64), ("a",))
    with pytest.raises(DataError, match=r"have label maps, but output 'y' has 2 axes, expected"):
        onnxprune.prune(small.proto, maps, rate=0.3, control="one-shot", threads=1)


# The command line


USER_MODULE = """
import numpy as np

def area(outputs, targets):
    given = outputs.argmax(1)
    return [1 - min(abs((given == k).mean() - (targets == k).mean()), 1) for k in range(3)]
"""


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def folder(net: ModelProto, scenes: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    onnx.save(net, "net.onnx")
    np.savez("scenes.npz", x=scenes.x, y=scenes.y, classes=scenes.classes)
    Path("mine.py").write_text(USER_MODULE)
    return tmp_path


WORK = ("--threads", "1", "--device", "cpu")


@pytest.mark.parametrize("metric", ["mean-iou", "top-1", "mine.py:area"])
def test_a_metric_goes_through_every_command(folder: Path, metric: str) -> None:
    ask = ("--data", "scenes.npz", "--metric", metric, *WORK)
    done = call("prune", "net.onnx", "-o", "small.onnx", *ask, "--rate", "0.3", "--run-dir", "run")
    assert done.exit_code == 0, done.output
    what = {"mean-iou": "IoU", "top-1": "accuracy"}.get(metric, "area")
    assert f"Mean {what}" in done.output
    page = Path("run/report.html").read_text()
    assert f"Mean {what}" in page
    assert f'<td class="text">{metric}</td>' in page
    assert json.loads(Path("run/report.json").read_text())["metric"] == metric
    done = call("compare", "net.onnx", "small.onnx", *ask, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["metric"] == metric
    report = json.loads(Path("run/report.json").read_text())
    named = found["after"]["accuracy"]
    assert named == {**report["after"]["accuracy"], "per_class": named["per_class"]}
    assert list(named["per_class"].values()) == report["after"]["accuracy"]["per_class"]
    given = [
        run(onnx.load(name), np.load("scenes.npz")["x"])[0].argmax(1)
        for name in ("net.onnx", "small.onnx")
    ]
    assert found["agreement"] == pytest.approx((given[0] == given[1]).mean())
    done = call(
        *("curve", "net.onnx", "--test", "scenes.npz", *ask, "-o", "curves"),
        *("--method", "one-shot/magnitude"),
    )
    assert done.exit_code == 0, done.output
    assert json.loads(Path("curves/curve.json").read_text())["metric"] == metric
    assert f"Class {what}" in Path("curves/curve.svg").read_text()


def test_a_function_may_be_given_for_its_name(
    folder: Path, net: ModelProto, scenes: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / f"areas_{folder.name}.py").write_text(USER_MODULE)
    monkeypatch.syspath_prepend(folder)
    own = importlib.import_module(f"areas_{folder.name}")
    report = onnxprune.prune(net, scenes, metric=own.area, rate=0.2, device="cpu", threads=1).report
    assert report["metric"] == f"{own.__name__}:area"
    assert report["before"]["accuracy"]["per_class"] == own.area(run(net, scenes.x)[0], scenes.y)


def test_an_unfinished_run_shows_the_classes_that_are_there(folder: Path, scenes: Data) -> None:
    y = np.where(scenes.y == 1, IGNORED, scenes.y)
    y[0, 5:] = 2  # where the network also says 1, so that this class is predicted and never true
    np.savez("some.npz", x=scenes.x, y=y, classes=scenes.classes)
    ask = ("--data", "some.npz", "--metric", "mean-iou", *WORK, "--rate", "0.3", "--run-dir", "run")
    assert call("prune", "net.onnx", "-o", "small.onnx", *ask).exit_code == 0
    per_class = json.loads(Path("run/report.json").read_text())["after"]["accuracy"]["per_class"]
    assert [share is None for share in per_class] == [False, True, False]
    Path("run/report.json").unlink()
    assert call("report", "run").exit_code == 0
    page = Path("run/report.html").read_text()
    section = page[page.index('<section id="classes"') :].partition("</section>")[0]
    rows = re.findall(r'title="(\d)">.*?</th>\s*<td>\S+ %</td><td>(\S+) %</td>', section)
    assert sorted(rows) == [(str(k), f"{100 * per_class[k]:.1f}") for k in (0, 2)]


def test_a_resumed_run_has_the_same_counts(folder: Path) -> None:
    ask = (
        "--data",
        "scenes.npz",
        "--metric",
        "mean-iou",
        *WORK,
        "--rate",
        "0.3",
        "--run-dir",
        "run",
    )
    assert call("prune", "net.onnx", "-o", "one.onnx", *ask).exit_code == 0
    journal = Path("run/journal.jsonl")
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[: len(lines) // 2]))
    report = json.loads(Path("run/report.json").read_text())
    done = call("prune", "net.onnx", "-o", "two.onnx", *ask, "--resume")
    assert done.exit_code == 0, done.output
    assert (
        json.loads(Path("run/report.json").read_text())["after"]["accuracy"]
        == report["after"]["accuracy"]
    )
    assert Path("one.onnx").read_bytes() == Path("two.onnx").read_bytes()


def test_a_resumed_run_compares_the_images_without_labels(folder: Path) -> None:
    rng = np.random.default_rng(0)
    Path("more").mkdir()
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE), np.uint8)).save(f"more/{number}.png")
    ask = (
        "--data",
        "scenes.npz",
        "--metric",
        "mean-iou",
        *WORK,
        "--rate",
        "0.3",
        "--run-dir",
        "run",
    )
    ask += ("--unlabelled", "more")
    assert call("prune", "net.onnx", "-o", "one.onnx", *ask).exit_code == 0
    assert call("prune", "net.onnx", "-o", "two.onnx", *ask, "--resume").exit_code == 0
    assert Path("one.onnx").read_bytes() == Path("two.onnx").read_bytes()
    Image.fromarray(rng.integers(0, 256, (SIDE, SIDE), np.uint8)).save("more/0.png")
    done = call("prune", "net.onnx", "-o", "two.onnx", *ask, "--resume")
    assert done.exit_code == 1
    assert "was made with other images without labels; resume with the same" in done.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--metric", "iou"), "metric 'iou': unknown; expected one of auto, top-1, top-5"),
        (("--metric", "mine.py:nothing"), "mine.py:nothing: 'mine.py' has no 'nothing'"),
        (("--metric", "top-3"), "metric 'top-3': the model has 3 classes"),
    ],
)
def test_a_wrong_metric_is_refused_in_one_line(
    folder: Path, options: tuple[str, ...], message: str
) -> None:
    done = call("prune", "net.onnx", "-o", "o.onnx", "--data", "scenes.npz", *WORK, *options)
    assert done.exit_code == 1
    assert message in done.output
    assert len(done.output.splitlines()) == 1
