# docker build --target cpu -t onnxprune .
# docker build --target cuda -t onnxprune:cuda .
# docker run --rm -v "$PWD:/work" onnxprune inspect model.onnx        (cuda: with --gpus all)

FROM python:3.12-slim AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim AS base
COPY --from=wheel /wheels /wheels
COPY constraints.txt /wheels/
RUN useradd --create-home --uid 1000 user
WORKDIR /work
ENTRYPOINT ["onnxprune"]
CMD ["--help"]

FROM base AS cuda
# torch brings the libraries of CUDA; the driver is the host's. onnxruntime-gpu comes last, as it
# writes the same files as onnxruntime.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN pip install --no-cache-dir -c /wheels/constraints.txt \
        --find-links /wheels "onnxprune[gpu,detection]" \
    && pip install --no-cache-dir --force-reinstall --no-deps -c /wheels/constraints.txt \
        onnxruntime-gpu \
    && python -c "import onnxruntime as o; assert 'CUDAExecutionProvider' in o.get_available_providers()"
USER 1000

FROM base AS cpu
# The usual index has torch for Linux with CUDA only, which takes 3 GB. PyTorch names an index of
# builds without it: docker build --build-arg TORCH_INDEX=URL.
ARG TORCH_INDEX
RUN pip install --no-cache-dir -c /wheels/constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch \
    && pip install --no-cache-dir -c /wheels/constraints.txt \
        --find-links /wheels "onnxprune[cpu,detection]"
USER 1000
