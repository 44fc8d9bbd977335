"""onnxprune inside other people's tools. Each module is imported by whoever uses that tool.

Stands on top of all rooms. A tool is imported when it is used; its extra has its name.

* `olive`: a pass of Olive; `optimum`: a pruner beside Optimum's quantiser
* `ultralytics`: YOLO models, judged by their own validator
* `callbacks`: the steps of a search in TensorBoard, MLflow or Weights & Biases
* `packages`: tools that may not be installed
"""
