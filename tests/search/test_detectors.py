"""Detectors in a search: what is recognised is said, what does not fit is refused in one line."""

import logging
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.data import Data
from onnxprune.errors import NOTICE, DataError
from onnxprune.samples import detection
from onnxprune.search import Settings, check_baseline, make_evaluator, metric_name, open_model
from onnxprune.search.detectors import box_problem
from tests.detection.layouts import LAYOUTS, truth

MODEL = onnx.load(detection.MODEL)
ALONE = {"device": "cpu", "threads": 1}
SETTINGS = Settings.of(**ALONE)


def copy() -> ModelProto:
    model = ModelProto()
    model.CopyFrom(MODEL)
    return model


def named(*names: str) -> ModelProto:
    """The sample without what its metadata says, or with other names of its classes."""
    model = copy()
    del model.metadata_props[:]
    if names:
        helper.set_model_props(model, {"names": str(list(names))})
    return model


def score(model: ModelProto, source: Path = detection.REFERENCE, **more: object) -> np.ndarray:
    settings = SETTINGS.changed(**more)
    _, samples = open_model(model, source, settings)
    assert samples is not None
    return make_evaluator(samples, settings)(model).per_class


USUAL = score(MODEL)


def test_boxes_are_judged_by_their_precision(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "onnxprune"):
        _, samples = open_model(MODEL, detection.REFERENCE, SETTINGS)
    assert samples is not None
    assert metric_name(samples, SETTINGS) == "map"
    assert samples.preprocess == "unit"
    assert (USUAL > 0.8).all()
    said = {record.levelno: record.getMessage() for record in caplog.records[:1]}
    assert said == {
        NOTICE: "detector: head 'yolov8' of 4 classes; letterbox to 96 x 96 (--head names another)"
    }
    assert "40 images, 131 objects of 4 classes" in caplog.text


def test_ap50_is_asked_for_by_its_name() -> None:
    assert (score(MODEL, metric="map50") >= USUAL).all()


def test_fidelity_is_asked_for_by_its_name() -> None:
    settings = SETTINGS.changed(metric="fidelity")
    _, samples = open_model(MODEL, detection.REFERENCE, settings)
    assert samples is not None
    np.testing.assert_allclose(make_evaluator(samples, settings)(MODEL).per_class, 1)


def free(model: ModelProto, x: object = None, **more: object) -> Data:
    """The samples of a detector without labels: its images as the model takes them."""
    _, labelled = open_model(MODEL, detection.REFERENCE, SETTINGS)
    assert labelled is not None
    _, samples = open_model(model, labelled.x if x is None else x, SETTINGS.changed(**more))
    assert samples is not None
    return samples


@pytest.mark.parametrize("names", [(), ("disc", "square", "triangle", "cross")])
def test_without_labels_the_boxes_that_it_finds_are_the_reference(
    names: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(NOTICE, "onnxprune"):
        samples = free(named(*names))
    assert "head 'yolov8' of 4 classes (--head names another): the 132 boxes" in caplog.text
    assert metric_name(samples, SETTINGS) == "fidelity"
    judge = make_evaluator(samples, SETTINGS)
    assert judge.metric.parts == (names or ("0", "1", "2", "3"))
    np.testing.assert_allclose(judge(MODEL).per_class, 1)


def test_boxes_are_no_reference_where_there_are_few_or_outputs_are_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(NOTICE, "onnxprune"):
        grey = np.random.default_rng(0).uniform(0.4, 0.6, (12, 3, 96, 96)).astype(np.float32)
        assert free(MODEL, grey).detector is None
    assert "boxes, too few to judge by: outputs are compared as numbers" in caplog.text
    few = free(MODEL).x[:4]
    assert free(MODEL, few).detector is None and free(MODEL, few, head="yolov8").detector
    assert free(MODEL, outputs=(f"{MODEL.graph.output[0].name}=values",)).detector is None


def test_a_metric_of_ones_own_gets_the_objects(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def objects(outputs, targets, numbers):\n"
        "    assert outputs['output0'].shape == (40, 8, 180)\n"
        "    return min(sum(map(len, targets)) / 1000, 1)\n"
    )
    assert score(MODEL, metric=f"{tmp_path}/mine.py:objects") == [pytest.approx(0.131)]


def test_a_limit_takes_fewer_images() -> None:
    _, samples = open_model(MODEL, detection.TEST, SETTINGS.changed(per_class=10))
    assert samples is not None
    assert 10 <= len(samples) <= 40


# What does not fit


def problem(model: ModelProto, source: Path = detection.REFERENCE, **more: object) -> str:
    settings = SETTINGS.changed(**more)
    _, samples = open_model(model, source, settings)
    assert samples is not None
    return box_problem(model, samples, settings) or ""


def test_what_fits_has_no_problem() -> None:
    assert problem(MODEL) == ""


def test_a_wrong_preset_is_named() -> None:
    assert "--preprocess unit it is" in problem(MODEL, preprocess="raw")
    _, samples = open_model(MODEL, detection.REFERENCE, SETTINGS.changed(preprocess="raw"))
    with pytest.raises(DataError, match=r"--preprocess unit it is .*--trust-baseline"):
        check_baseline(MODEL, samples, SETTINGS.changed(preprocess="raw"), decide=True)


def test_a_preset_that_is_a_guess_is_held_against_others(caplog: pytest.LogCaptureFixture) -> None:
    model = named()
    kernel = next(t for t in model.graph.initializer if t.name == model.graph.node[0].input[1])
    kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel) / 255, kernel.name))
    np.testing.assert_allclose(score(model), USUAL, atol=0.02)
    assert "preprocess: 'raw', by which AP50 is" in caplog.text


def test_classes_in_another_order_are_said_so() -> None:
    said = problem(ModelProto.FromString(swapped()))
    assert "if classes do not matter, so the classes are in another order" in said


def swapped() -> bytes:
    """The sample with its scores in another order."""
    model = named()
    output = model.graph.output[0]
    order = np.array([0, 1, 2, 3, 5, 6, 7, 4])
    model.graph.initializer.append(numpy_helper.from_array(order, "order"))
    model.graph.node.append(helper.make_node("Gather", ["output0", "order"], ["turned"], axis=1))
    output.name = "turned"
    return model.SerializeToString()


def test_names_in_the_metadata_order_the_classes() -> None:
    model = ModelProto.FromString(swapped())
    helper.set_model_props(model, {"names": str(["square", "triangle", "cross", "disc"])})
    np.testing.assert_allclose(score(model), USUAL[[1, 2, 3, 0]], atol=1e-9)


def test_nothing_found_is_refused() -> None:
    model = named()
    for tensor in model.graph.initializer:
        if tensor.name.endswith("scores.0.1.bias") or "scores" in tensor.name:
            tensor.CopyFrom(numpy_helper.from_array(0 * numpy_helper.to_array(tensor), tensor.name))
    assert "next to nothing, and no other preset" in problem(model)


def test_a_model_of_other_classes_is_refused(tmp_path: Path) -> None:
    place = LAYOUTS["coco"](tmp_path, truth())
    with pytest.raises(DataError, match="class 'triangle' is none of the 2"):
        open_model(named("disc", "square"), place, SETTINGS)
    with pytest.raises(DataError, match=r"no head .* fits output0 \[1, 8, 180\] of 3 classes"):
        open_model(named(), place, SETTINGS)


def test_classes_of_few_objects_are_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    objects = truth()
    objects[0][:, 4], objects[1][:, 4], objects[2][:, 4] = 0, 0, [1, 1, 2]
    caplog.set_level(NOTICE)
    _, samples = open_model(MODEL, LAYOUTS["voc"](tmp_path, objects), SETTINGS)
    assert caplog.text.count("not judged, as they have fewer than 5 objects: square, triangle") == 1
    assert samples is not None
    found = make_evaluator(samples, SETTINGS)(MODEL).per_class
    assert np.isnan(found).tolist() == [False, True, True, True]


def test_too_few_objects_are_refused(tmp_path: Path) -> None:
    objects = [held[:1] for held in truth()]
    with pytest.raises(DataError, match=r"no class has 5 objects or more \(3 in all\)"):
        open_model(MODEL, LAYOUTS["voc"](tmp_path, objects), SETTINGS)


def test_an_open_size_is_that_of_the_metadata_or_is_asked_for() -> None:
    model = copy()
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side{axis}"
    with pytest.raises(DataError, match="leaves its size open; give it with --input-shape images"):
        open_model(model, detection.REFERENCE, SETTINGS)
    helper.set_model_props(model, {"imgsz": "[96, 96]", "onnxprune.preprocess": "unit"})
    _, samples = open_model(model, detection.REFERENCE, SETTINGS)
    assert samples is not None
    assert samples.x.shape == (40, 3, 96, 96)


def test_without_boxes_there_is_no_precision() -> None:
    settings = SETTINGS.changed(metric="map")
    source = (np.zeros((4, 3, 96, 96), np.float32), np.zeros(4, np.int64))
    _, samples = open_model(MODEL, source, settings)
    assert samples is not None
    with pytest.raises(DataError, match="average precision needs samples with boxes"):
        make_evaluator(samples, settings)(MODEL)


# Heads whose last nodes choose


def with_topk(batch: bool = True) -> ModelProto:
    """The sample, end to end: its forty best boxes, their scores and classes."""
    model = copy()
    nodes, constants = (
        [],
        {
            "four": [4],
            "zero": [0],
            "eight": [8],
            "two": [2],
            "forty": [40],
            "one": [1],
        },
    )
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    nodes += [
        helper.make_node("Transpose", ["output0"], ["rows"], perm=[0, 2, 1]),
        helper.make_node("Slice", ["rows", "zero", "four", "two"], ["middle"]),
        helper.make_node("Slice", ["rows", "four", "eight", "two"], ["scores"]),
        helper.make_node("ReduceMax", ["scores"], ["best"], axes=[2], keepdims=0),
        helper.make_node("ArgMax", ["scores"], ["kind"], axis=2, keepdims=0),
        helper.make_node("TopK", ["best", "forty"], ["top", "place"], axis=1),
        helper.make_node("GatherElements", ["kind", "place"], ["kinds"], axis=1),
        helper.make_node("Unsqueeze", ["place", "two"], ["place2"]),
        helper.make_node("Constant", [], ["tiles"], value_ints=[1, 1, 4]),
        helper.make_node("Tile", ["place2", "tiles"], ["places"]),
        helper.make_node("GatherElements", ["middle", "places"], ["chosen"], axis=1),
        helper.make_node("Split", ["chosen"], ["centre", "extent"], axis=2),
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("Mul", ["extent", "half"], ["halves"]),
        helper.make_node("Sub", ["centre", "halves"], ["low"]),
        helper.make_node("Add", ["centre", "halves"], ["high"]),
        helper.make_node("Cast", ["kinds"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["floats", "two"], ["column"]),
        helper.make_node("Unsqueeze", ["top", "two"], ["likely"]),
        helper.make_node("Concat", ["low", "high", "likely", "column"], ["found"], axis=2),
    ]
    model.graph.node.extend(nodes)
    output = helper.make_tensor_value_info("found", TensorProto.FLOAT, ["batch", 40, 6])
    del model.graph.output[:]
    model.graph.output.append(output)
    onnx.checker.check_model(model)
    return model


def test_an_end_to_end_head_is_judged_and_pruned() -> None:
    model = with_topk()
    found = score(model)
    assert (found > 0.4).all(), "without suppression each object is found several times"
    _, samples = open_model(model, detection.REFERENCE, SETTINGS)
    assert samples is not None
    assert samples.detector.head == "end-to-end"  # type: ignore[union-attr]
    result = onnxprune.prune(
        model, detection.REFERENCE, rate=0.02, aim="macs", round_to=1, control="one-shot", **ALONE
    )
    assert result.report["after"]["filters"] < result.report["before"]["filters"]


def with_nms() -> ModelProto:
    """The sample for one image, with NonMaxSuppression behind it, as torchvision exports such."""
    model = copy()
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    constants = {"four": [4], "zero": [0], "eight": [8], "axis": [1], "two": [2], "most": [100]}
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    for name, number in {"overlap": 0.6, "least": 0.05, "half": 0.5}.items():
        array = np.array([number], np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    model.graph.node.extend(
        [
            helper.make_node("Slice", ["output0", "zero", "two", "axis"], ["centre"]),
            helper.make_node("Slice", ["output0", "two", "four", "axis"], ["extent"]),
            helper.make_node("Slice", ["output0", "four", "eight", "axis"], ["scores"]),
            helper.make_node("Mul", ["extent", "half"], ["halves"]),
            helper.make_node("Sub", ["centre", "halves"], ["low"]),
            helper.make_node("Add", ["centre", "halves"], ["high"]),
            helper.make_node("Concat", ["low", "high"], ["sides"], axis=1),
            helper.make_node("Transpose", ["sides"], ["corners"], perm=[0, 2, 1]),
            helper.make_node(
                "NonMaxSuppression", ["corners", "scores", "most", "overlap", "least"], ["kept"]
            ),
            helper.make_node("Slice", ["kept", "two", "three", "axis"], ["place"]),
            helper.make_node("Squeeze", ["place", "axis"], ["places"]),
            helper.make_node("Slice", ["kept", "axis", "two", "axis"], ["kind"]),
            helper.make_node("Squeeze", ["kind", "axis"], ["kinds"]),
            helper.make_node("Add", ["kinds", "axis"], ["labels"]),
            helper.make_node("Gather", ["corners", "places"], ["chosen"], axis=1),
            helper.make_node("Squeeze", ["chosen", "zero"], ["boxes"]),
            helper.make_node("GatherND", ["scores", "kept"], ["likely"]),
        ]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([3], np.int64), "three"))
    del model.graph.output[:]
    for name, kind, shape in (
        ("boxes", TensorProto.FLOAT, ["m", 4]),
        ("labels", TensorProto.INT64, ["m"]),
        ("likely", TensorProto.FLOAT, ["m"]),
    ):
        model.graph.output.append(helper.make_tensor_value_info(name, kind, shape))
    onnx.checker.check_model(model)
    return model


def test_suppression_in_the_graph_is_judged_and_pruned() -> None:
    model = with_nms()
    np.testing.assert_allclose(score(model), USUAL, atol=0.05)
    result = onnxprune.prune(
        model, detection.REFERENCE, rate=0.02, aim="macs", round_to=1, control="one-shot", **ALONE
    )
    assert result.report["after"]["filters"] < result.report["before"]["filters"]


def test_data_sets_that_lie_elsewhere_are_found(tmp_path: Path) -> None:
    shutil.copytree(detection.REFERENCE, tmp_path / "set")
    for source in (tmp_path / "set" / "data.yaml", tmp_path / "set" / "images"):
        np.testing.assert_allclose(score(MODEL, source), USUAL)
