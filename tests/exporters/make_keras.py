"""Writes the graphs that Keras and TensorFlow export.

    python -m tests.exporters.make_keras            # TensorFlow: keras_*.onnxtxt
    KERAS_BACKEND=torch python -m tests.exporters.make_keras     # keras_torch_*.onnxtxt

Made with keras 3.15, tensorflow 2.21, tf2onnx 1.17, torch 2.13.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import onnx
from keras import layers

from tests.exporters.text import save

TENSORFLOW = keras.config.backend() == "tensorflow"


def residual() -> Any:
    """Two residual units and a Flatten, as in Keras's guides."""
    image = keras.Input((16, 16, 3))
    x = layers.Rescaling(1 / 255.0)(image)
    x = layers.Conv2D(12, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for width, strides in ((12, 1), (16, 2)):
        y = layers.Conv2D(width, 3, strides=strides, padding="same", activation="relu")(x)
        y = layers.BatchNormalization()(layers.Conv2D(width, 3, padding="same")(y))
        same = strides == 1
        skip = x if same else layers.Conv2D(width, 1, strides=strides)(x)
        x = layers.ReLU()(layers.Add()([y, skip]))
    x = layers.Dropout(0.2)(layers.Flatten()(layers.MaxPooling2D()(x)))
    return keras.Model(image, layers.Dense(10, activation="softmax")(x))


def two_heads() -> Any:
    """Of an image and numbers beside it, two answers in a dict whose keys are no layer's names."""
    image, numbers = keras.Input((16, 16, 3), name="image"), keras.Input((4,), name="numbers")
    x = layers.Conv2D(12, 3, activation="relu")(image)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(12, 3, activation="gelu")(x))
    x = layers.Concatenate()([x, numbers])
    answers = {"kind": layers.Dense(5)(x), "age": layers.Dense(5)(x)}
    return keras.Model([image, numbers], answers)


def grouped() -> Any:
    """A block as ConvNeXt's, whose depthwise convolution Keras writes as a grouped one."""
    image = keras.Input((16, 16, 3), name="image")
    a = layers.LayerNormalization()(layers.Conv2D(12, 2, strides=2)(image))
    b = layers.LayerNormalization()(layers.Conv2D(12, 7, padding="same", groups=12)(a))
    b = layers.Dense(12)(layers.Dense(48, activation="gelu")(b))
    c = layers.Conv2D(16, 3, groups=4, activation="relu")(layers.Add()([a, b]))
    return keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(c)))


def segment() -> Any:
    """A U-Net for images of any size."""
    image = keras.Input((None, None, 3))
    a = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    b = layers.MaxPooling2D()(a)
    b = layers.LeakyReLU()(layers.SeparableConv2D(12, 3, padding="same")(b))
    c = layers.AveragePooling2D(2)(b)
    c = layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(16, 3, padding="same")(c))
    up = layers.Conv2DTranspose(12, 3, strides=2, padding="same")(c)
    up = layers.Conv2D(8, 3, padding="same", activation="elu")(layers.Concatenate()([up, b]))
    up = layers.Conv2DTranspose(8, 2, strides=2)(up)
    up = layers.Concatenate()([up, a])
    return keras.Model(image, layers.Conv2D(4, 1)(up))


def upsample() -> Any:
    """A U-Net that goes up by repeating pixels."""
    image = keras.Input((16, 16, 3))
    a = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    b = layers.Conv2D(12, 3, padding="same", activation="silu")(layers.MaxPooling2D()(a))
    up = layers.Concatenate()([layers.UpSampling2D()(b), a])
    return keras.Model(image, layers.Conv2D(4, 1)(up))


def cut(net: Any, last: str) -> Any:
    """The network up to a layer, with a head of its own."""
    x = layers.GlobalAveragePooling2D()(net.get_layer(last).output)
    return keras.Model(net.input, layers.Dense(10)(x))


def mobilenet_v2() -> Any:
    net = keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), alpha=0.35, weights=None, include_top=False
    )
    return cut(net, "block_4_add")


def mobilenet_v3() -> Any:
    net = keras.applications.MobileNetV3Small(
        input_shape=(32, 32, 3), weights=None, include_top=False
    )
    return cut(net, "expanded_conv_4_add")


def xception() -> Any:
    net = keras.applications.Xception(input_shape=(71, 71, 3), weights=None, include_top=False)
    return cut(net, next(layer.name for layer in net.layers if "add" in layer.name))


def densenet() -> Any:
    net = keras.applications.DenseNet121(input_shape=(32, 32, 3), weights=None, include_top=False)
    return cut(net, "pool2_pool")


def randomise(net: Any) -> None:
    """Statistics that make batch normalisation do something, so that nothing folds away."""
    rng = np.random.default_rng(0)
    for layer in net.layers:
        if isinstance(layer, layers.BatchNormalization):
            shape = layer.moving_mean.shape
            layer.moving_mean.assign(rng.normal(0, 0.1, shape))
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, shape))


def export(net: Any, opset: int | None) -> onnx.ModelProto:
    """By `Model.export`, or by tf2onnx where an opset is asked for."""
    randomise(net)
    shape = (None, *net.input_shape[1:])
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "net.onnx")
        if opset is None:
            net(np.zeros([n or 1 for n in shape], np.float32))
            spec = [keras.InputSpec(shape=shape, dtype="float32", name="x")]
            net.export(path, format="onnx", verbose=False, input_signature=spec)
        else:
            import tensorflow as tf
            import tf2onnx

            signature = [tf.TensorSpec(shape, tf.float32, name="x")]
            function = tf.function(lambda x: net(x, training=False), input_signature=signature)
            tf2onnx.convert.from_function(
                function, input_signature=signature, opset=opset, output_path=path
            )
        return onnx.load(path)


NETS: dict[str, tuple[Any, int | None]] = {
    "residual": (residual, None),
    "segment": (segment, 13),
    "upsample": (upsample, None),
    "mobilenet_v2": (mobilenet_v2, 9),
    "mobilenet_v3": (mobilenet_v3, 11),
    "xception": (xception, 8),
    "densenet": (densenet, None),
}
ON_TORCH = ("residual", "upsample", "densenet")

if __name__ == "__main__":
    for name in NETS if TENSORFLOW else ON_TORCH:
        keras.utils.set_random_seed(0)
        build, opset = NETS[name]
        how = "Model.export" if opset is None or not TENSORFLOW else f"tf2onnx at opset {opset}"
        backend = "" if TENSORFLOW else "torch_"
        save(
            export(build(), opset if TENSORFLOW else None),
            f"keras_{backend}{name}",
            f"Keras {keras.__version__} on {keras.config.backend()}, by {how}; make_keras.py",
        )
