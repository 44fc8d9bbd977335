"""Outputs that say exactly the truth, as each kind of detector would write it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from onnxprune.detection.heads import YOLOX_STRIDES, cells

SIZE = (96, 128)
"""Height and width."""
CLASSES = 3
GRID = cells(SIZE, YOLOX_STRIDES)
SCORE = 0.9

Objects = Sequence[np.ndarray]
Encoded = dict[str, np.ndarray]


def scenes(images: int = 6, each: int = 7, seed: int = 0) -> list[np.ndarray]:
    """Objects whose boxes do not overlap: each in its own field of a grid. Shapes: [m, 6]."""
    rng = np.random.default_rng(seed)
    fields = [(x, y) for x in range(0, SIZE[1], 32) for y in range(0, SIZE[0], 32)]
    result = []
    for _ in range(images):
        rows = []
        for place in rng.permutation(len(fields))[:each]:
            low = np.array(fields[place]) + rng.uniform(1, 8, 2)
            high = low + rng.uniform(8, 20, 2)
            rows.append([*low, *high, rng.integers(CLASSES), 0])
        result.append(np.array(rows))
    return result


def centred(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)


def spread(objects: Objects, anchors: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and scores on anchors, nothing on most. Shapes: [N, A, 4], [N, A, K]."""
    rng = np.random.default_rng(1)
    boxes = np.tile([10.0, 10.0, 20.0, 20.0], (len(objects), anchors, 1))
    scores = np.zeros((len(objects), anchors, CLASSES))
    for image, held in enumerate(objects):
        places = rng.permutation(anchors)[: len(held)]
        boxes[image, places] = held[:, :4]
        scores[image, places, held[:, 4].astype(int)] = SCORE
    return boxes, scores


def middles(boxes: np.ndarray) -> np.ndarray:
    return np.stack([centred(one) for one in boxes])


def yolov8(objects: Objects) -> Encoded:
    boxes, scores = spread(objects, GRID)
    return {"output0": np.concatenate([middles(boxes), scores], 2).transpose(0, 2, 1)}


def yolov8_turned(objects: Objects) -> Encoded:
    return {"output0": yolov8(objects)["output0"].transpose(0, 2, 1)}


def yolov5(objects: Objects) -> Encoded:
    boxes, scores = spread(objects, 3 * GRID)
    there = scores.max(2, keepdims=True) / SCORE
    return {"output": np.concatenate([middles(boxes), there, scores], 2)}


def cells_of(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    places, sizes = [], []
    for stride in YOLOX_STRIDES:
        for row in range(size[0] // stride):
            for column in range(size[1] // stride):
                places.append([column, row])
                sizes.append([stride])
    return np.array(places, float), np.array(sizes, float)


def yolox(objects: Objects, *, decoded: bool = False) -> Encoded:
    """An object is found by the cell of 8 pixels that its centre lies in, as in training."""
    place, stride = cells_of(SIZE)
    rows = np.zeros((len(objects), len(place), 5 + CLASSES))
    rows[..., :2] = (place + 0.5) * stride
    rows[..., 2:4] = stride
    columns = SIZE[1] // 8
    for image, held in enumerate(objects):
        middle = centred(held[:, :4])
        for box, kind in zip(middle, held[:, 4].astype(int), strict=True):
            cell = int(box[1] // 8) * columns + int(box[0] // 8)
            rows[image, cell] = [*box, 1, *(SCORE * (np.arange(CLASSES) == kind))]
    if not decoded:
        rows[..., :2] = rows[..., :2] / stride - place
        rows[..., 2:4] = np.log(rows[..., 2:4] / stride)
    return {"output": rows}


def yolox_decoded(objects: Objects) -> Encoded:
    return yolox(objects, decoded=True)


def listed(objects: Objects, most: int) -> np.ndarray:
    """Corners, score, class; the rest is empty. Shapes: [N, most, 6]."""
    rows = np.zeros((len(objects), most, 6))
    for image, held in enumerate(objects):
        rows[image, : len(held), :4] = held[:, :4]
        rows[image, : len(held), 4] = SCORE
        rows[image, : len(held), 5] = held[:, 4]
    return rows


def end_to_end(objects: Objects) -> Encoded:
    return {"output0": listed(objects, 300)}


def shares(boxes: np.ndarray) -> np.ndarray:
    return boxes / np.array([SIZE[1], SIZE[0], SIZE[1], SIZE[0]])


def logits(scores: np.ndarray) -> np.ndarray:
    """The numbers of which the sigmoid is these scores."""
    p = np.clip(scores, 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))


def rt_detr(objects: Objects) -> Encoded:
    boxes, scores = spread(objects, 30)
    return {"output0": np.concatenate([shares(middles(boxes)), scores], 2)}


def detr(objects: Objects) -> Encoded:
    boxes, scores = spread(objects, 30)
    nothing = 1 - scores.sum(2, keepdims=True)
    likely = np.log(np.concatenate([scores, nothing], 2) + 1e-6)
    return {"logits": likely, "pred_boxes": shares(middles(boxes))}


def detr_sigmoid(objects: Objects) -> Encoded:
    boxes, scores = spread(objects, 30)
    return {"logits": logits(scores), "pred_boxes": shares(middles(boxes))}


def ssd(objects: Objects) -> Encoded:
    boxes, scores = spread(objects, 200)
    background = 1 - scores.sum(2, keepdims=True)
    return {"scores": np.concatenate([background, scores], 2), "boxes": shares(boxes)}


def ssd_logits(objects: Objects) -> Encoded:
    found = ssd(objects)
    return {"boxes": found["boxes"], "confidence": np.log(found["scores"] + 1e-6)}


def retinanet(objects: Objects) -> Encoded:
    boxes, scores = spread(objects, 200)
    return {"scores": logits(scores).transpose(0, 2, 1), "boxes": boxes}


def nms(objects: Objects) -> Encoded:
    rows = listed(objects, 20)
    count = np.array([[len(held)] for held in objects])
    return {
        "num_dets": count,
        "boxes": rows[..., :4],
        "scores": rows[..., 4],
        "labels": rows[..., 5].astype(np.int32),
    }


def tensorflow(objects: Objects) -> Encoded:
    rows = listed(objects, 20)
    return {
        "detection_boxes": shares(rows[..., :4])[..., [1, 0, 3, 2]],
        "detection_classes": rows[..., 5],
        "detection_scores": rows[..., 4],
        "num_detections": np.array([float(len(held)) for held in objects]),
    }


def torchvision(objects: Objects) -> Encoded:
    """One image at a time, so that there are as many boxes as it shows."""
    found: dict[str, list[np.ndarray]] = {"boxes": [], "labels": [], "scores": []}
    for held in objects:
        found["boxes"].append(held[:, :4])
        found["labels"].append(held[:, 4].astype(np.int64) + 1)
        found["scores"].append(np.full(len(held), SCORE))
    return {name: ragged(arrays) for name, arrays in found.items()}


def ragged(arrays: Sequence[np.ndarray]) -> np.ndarray:
    held = np.empty(len(arrays), object)
    held[:] = list(arrays)
    return held


ANCHORS = (8.0, 8.0, 16.0, 16.0, 24.0, 24.0) * 3
"""Widths and heights of three anchors of each of three levels."""


def in_cells(objects: Objects) -> Iterator[tuple[int, int, int, Any, Any]]:
    """Image, row and column of the cell of 8 pixels of each object, its box and class."""
    for image, held in enumerate(objects):
        for box, kind in zip(held[:, :4], held[:, 4].astype(int), strict=True):
            x, y = (box[:2] + box[2:]) / 2
            yield image, int(y // 8), int(x // 8), box, kind


def empty_maps(objects: Objects, *channels: int) -> dict[int, np.ndarray]:
    """Maps of logits that say nothing, by stride."""
    return {
        stride: np.full((len(objects), *channels, SIZE[0] // stride, SIZE[1] // stride), -20.0)
        for stride in YOLOX_STRIDES
    }


def yolov8_maps(objects: Objects) -> Encoded:
    """Each side of a box is shared by the two whole numbers of cells beside it."""
    maps = empty_maps(objects, 64 + CLASSES)
    for image, row, column, box, kind in in_cells(objects):
        middle = np.array([column, row]) + 0.5
        for k, side in enumerate([*(middle - box[:2] / 8), *(box[2:] / 8 - middle)]):
            part = maps[8][image, 16 * k : 16 * (k + 1), row, column]
            part[int(side)], part[int(side) + 1] = np.log([1 - side % 1, side % 1])
        maps[8][image, 64 + kind, row, column] = logits(SCORE)
    return {f"p{stride}": one for stride, one in maps.items()}


def yolov8_maps_apart(objects: Objects) -> Encoded:
    whole = yolov8_maps(objects)
    scores = {f"cls_{name}": one[:, 64:] for name, one in whole.items()}
    return scores | {f"box_{name}": one[:, :64] for name, one in whole.items()}


def yolov5_maps(objects: Objects) -> Encoded:
    """The second anchor of a cell, 16 pixels wide, finds the object."""
    maps = empty_maps(objects, 3, 5 + CLASSES)
    for image, row, column, box, kind in in_cells(objects):
        centre, extent = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        place = (centre / 8 - [column, row] + 0.5) / 2
        own = maps[8][image, 1, :, row, column]
        own[:4] = logits(np.concatenate([place, np.sqrt(extent / 16) / 2]))
        own[4], own[5 + kind] = logits(SCORE), 20
    return {f"p{s}": one.reshape(len(one), -1, *one.shape[3:]) for s, one in maps.items()}


def yolov5_maps_apart(objects: Objects) -> Encoded:
    """The same with an axis for the anchors, and the numbers of a box last."""
    return {
        name: one.reshape(len(one), 3, -1, *one.shape[2:]).transpose(0, 1, 3, 4, 2)
        for name, one in yolov5_maps(objects).items()
    }


def picodet(objects: Objects) -> Encoded:
    """As `yolov8_maps`, in rows of cells, of levels of 8 to 64 pixels."""
    scores, shares = {}, {}
    for stride in (8, 16, 32, 64):
        cells = -(-SIZE[0] // stride) * -(-SIZE[1] // stride)
        scores[f"transpose_{stride}"] = np.zeros((len(objects), cells, CLASSES))
        shares[f"transpose_{stride}_box"] = np.full((len(objects), cells, 32), -20.0)
    for image, row, column, box, kind in in_cells(objects):
        cell = row * (SIZE[1] // 8) + column
        middle = np.array([column, row]) + 0.5
        for k, side in enumerate([*(middle - box[:2] / 8), *(box[2:] / 8 - middle)]):
            part = shares["transpose_8_box"][image, cell, 8 * k : 8 * (k + 1)]
            part[int(side)], part[int(side) + 1] = np.log([1 - side % 1, side % 1])
        scores["transpose_8"][image, cell, kind] = SCORE
    return scores | shares


def nano(objects: Objects, strides: Sequence[int], into: float) -> Encoded:
    """As `picodet`, all levels in one output, sides from so far into a cell."""
    counts = [-(-SIZE[0] // stride) * -(-SIZE[1] // stride) for stride in strides]
    rows = np.zeros((len(objects), sum(counts), CLASSES + 32))
    for image, _, _, box, kind in in_cells(objects):
        column, row = np.floor((box[:2] + box[2:]) / 16 - into + 0.5).astype(int)
        own, point = rows[image, row * (SIZE[1] // 8) + column], np.array([column, row]) + into
        own[kind], own[CLASSES:] = SCORE, -20
        for k, side in enumerate([*(point - box[:2] / 8), *(box[2:] / 8 - point)]):
            part = own[CLASSES + 8 * k :]
            part[int(side)], part[int(side) + 1] = np.log([1 - side % 1, side % 1])
    return {"output": rows}


def nanodet(objects: Objects) -> Encoded:
    return nano(objects, (8, 16, 32), 0.5)


def nanodet_plus(objects: Objects) -> Encoded:
    return nano(objects, (8, 16, 32, 64), 0.0)


CELL = 4
"""Pixels of a place of the maps of centres."""


def centres(objects: Objects, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, sides in cells, and how far into its cell a centre is; x before y."""
    rows, columns = SIZE[0] // CELL, SIZE[1] // CELL
    scores = np.zeros((len(objects), classes, rows, columns))
    sides, into = (np.full((len(objects), 2, rows, columns), value) for value in (1.0, 0.5))
    for image, held in enumerate(objects):
        for box, kind in zip(centred(held[:, :4]) / CELL, held[:, 4].astype(int), strict=True):
            column, row = box[:2].astype(int)
            for place, score in ((column, SCORE), (column + 1, SCORE / 2)):  # a peak, and beside it
                scores[image, kind % classes, row, place] = score
                sides[image, :, row, place] = box[2:]
                into[image, :, row, place] = box[:2] - [place, row]
    return scores, sides, into


def centernet(objects: Objects) -> Encoded:
    scores, sides, into = centres(objects, CLASSES)
    return {"hm": logits(scores), "reg": into, "wh": sides}


def centernet_unnamed(objects: Objects) -> Encoded:
    return dict(zip(("1", "2", "3"), centres(objects, CLASSES), strict=True))


def centerface(objects: Objects) -> Encoded:
    """Logarithms, y before x, and places by the middle of a cell."""
    scores, sides, into = centres(objects, 1)
    points = np.zeros((len(scores), 10, *scores.shape[2:]))
    return {
        "537": scores,
        "538": np.log(sides[:, ::-1]),
        "539": into[:, ::-1] - 0.5,
        "540": points,
    }


ENCODERS: dict[str, tuple[str, Callable[[Objects], Encoded]]] = {
    "yolov8": ("yolov8", yolov8),
    "yolov8, turned": ("yolov8", yolov8_turned),
    "yolov5": ("yolov5", yolov5),
    "yolox": ("yolox", yolox),
    "yolox, decoded": ("yolox", yolox_decoded),
    "end-to-end": ("end-to-end", end_to_end),
    "rt-detr": ("rt-detr", rt_detr),
    "detr": ("detr", detr),
    "detr, each class by itself": ("detr", detr_sigmoid),
    "ssd": ("ssd", ssd),
    "ssd, logits": ("ssd", ssd_logits),
    "retinanet": ("retinanet", retinanet),
    "nms": ("nms", nms),
    "nms, TensorFlow": ("nms", tensorflow),
    "torchvision": ("torchvision", torchvision),
    "yolov8-maps": ("yolov8-maps", yolov8_maps),
    "yolov8-maps, apart": ("yolov8-maps", yolov8_maps_apart),
    "yolov5-maps": ("yolov5-maps", yolov5_maps),
    "yolov5-maps, numbers last": ("yolov5-maps", yolov5_maps_apart),
    "picodet": ("picodet", picodet),
    "nanodet": ("nanodet", nanodet),
    "nanodet-plus": ("nanodet", nanodet_plus),
    "centernet": ("centernet", centernet),
    "centernet, without names": ("centernet", centernet_unnamed),
    "centerface": ("centerface", centerface),
}
"""Name -> the head, and what writes its outputs."""
FACES = "centerface"
"""The head that knows one class alone."""
