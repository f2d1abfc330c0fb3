# The service as an image, for CPUs or for NVIDIA GPUs. Models and logs are mounted, settings come from the environment.
#
#   docker build --target cpu  -t inference:cpu .
#   docker build --target cuda -t inference:cuda .
#   docker build --target cuda -t inference:vllm --build-arg REQUIREMENTS="requirements.txt requirements-vllm.txt" .
#
# Linted (hadolint) and its contents run by the tests outside of a container, but never built: where it was written there
# was no Docker engine.

ARG PYTHON_IMAGE=python:3.12-slim-bookworm
ARG CUDA_VERSION=12.8.1

# llama.cpp is compiled without the builder's own CPU features: the image is for any x86-64 CPU with AVX2, or any ARMv8.
FROM ${PYTHON_IMAGE} AS cpu-build
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++=4:12.* \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/inference
COPY requirements*.txt ./
COPY scripts/install scripts/phase.sh scripts/llama-build.cmake scripts/llama-amx.h scripts/
ARG REQUIREMENTS="requirements.txt"
# hadolint ignore=SC2086 # several files
RUN CMAKE_ARGS="-DGGML_NATIVE=OFF" ./scripts/install ${REQUIREMENTS} && rm -rf /root/.cache

FROM ${PYTHON_IMAGE} AS cpu
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1=12.* \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /opt/inference/cache inference
WORKDIR /opt/inference
COPY --from=cpu-build /opt/inference/.venv .venv
COPY run.py gunicorn.conf.py ./
COPY scripts scripts
COPY src src
RUN mkdir models logs cache && chown inference models logs cache
USER 10001
# In a container the loopback address reaches nobody. The service refuses to listen elsewhere without keys: set API_KEY or API_KEYS_FILE.
ENV HOST=0.0.0.0 PORT=8001 XDG_CACHE_HOME=/opt/inference/cache
EXPOSE 8001
VOLUME ["/opt/inference/models", "/opt/inference/logs"]
HEALTHCHECK --interval=15s --timeout=10s --start-period=10m \
    CMD [".venv/bin/python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/health', timeout=8)"]
CMD [".venv/bin/python", "run.py", "--mode", "prod"]

FROM nvidia/cuda:${CUDA_VERSION}-devel-ubuntu24.04 AS cuda-build
# hadolint ignore=DL3008 # Ubuntu removes the versions it has replaced
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3 python3-venv python3-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/inference
COPY requirements*.txt ./
COPY scripts/install scripts/phase.sh scripts/llama-build.cmake scripts/llama-amx.h scripts/
ARG REQUIREMENTS="requirements.txt"
# The driver's library comes with the host: at the build there is only a stub to link with.
# hadolint ignore=SC2086 # several files
RUN CMAKE_ARGS="-DGGML_CUDA=ON -DGGML_NATIVE=OFF -DCMAKE_EXE_LINKER_FLAGS=-Wl,--allow-shlib-undefined" ./scripts/install ${REQUIREMENTS} \
    && rm -rf /root/.cache

FROM nvidia/cuda:${CUDA_VERSION}-runtime-ubuntu24.04 AS cuda
# hadolint ignore=DL3008 # Ubuntu removes the versions it has replaced
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /opt/inference/cache inference
WORKDIR /opt/inference
COPY --from=cuda-build /opt/inference/.venv .venv
COPY run.py gunicorn.conf.py ./
COPY scripts scripts
COPY src src
RUN mkdir models logs cache && chown inference models logs cache
USER 10001
ENV HOST=0.0.0.0 PORT=8001 XDG_CACHE_HOME=/opt/inference/cache
EXPOSE 8001
VOLUME ["/opt/inference/models", "/opt/inference/logs"]
HEALTHCHECK --interval=15s --timeout=10s --start-period=10m \
    CMD [".venv/bin/python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/health', timeout=8)"]
CMD [".venv/bin/python", "run.py", "--mode", "prod"]
