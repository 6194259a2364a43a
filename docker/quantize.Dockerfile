# harness itself: quantize, export, verify, score, judge, report; `--engine docker` with a socket.
# CPU by default; for CUDA see README.md. Build from the repository's root.

# Any image with Python 3.11 or newer, venv and pip will do (scripts/docker-base makes one).
ARG BASE=python:3.11.16-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${BASE} AS build
ARG TORCH=torch==2.13.0+cpu
# An index of PyTorch's CPU builds, asked beside the package index; not needed where
# docker/wheels/ or the package index has this build of torch.
ARG TORCH_INDEX=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv /opt/harness
# torch first and by itself: a range that another package asks for must not choose its build.
RUN --mount=type=bind,source=docker/wheels,target=/wheels \
    /opt/harness/bin/pip install --find-links /wheels \
      ${TORCH_INDEX:+--extra-index-url ${TORCH_INDEX}} "${TORCH}"
COPY pyproject.toml scripts/constraints.txt ./
RUN python -c 'import tomllib; \
project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
print(*project["dependencies"], *project["optional-dependencies"]["docker"], sep="\n")' > needed.txt \
 && /opt/harness/bin/pip install -c constraints.txt -r needed.txt
COPY LICENSE README.md ./
COPY recipes recipes
COPY evals evals
COPY harness harness
RUN /opt/harness/bin/pip install --no-deps .

FROM ${BASE}
RUN groupadd --gid 1000 harness \
 && useradd --uid 1000 --gid 1000 --home-dir /home/harness --create-home harness
COPY --from=build /opt/harness /opt/harness
# Everything that is written goes to /home/harness (a volume) and /tmp (a tmpfs): the root may be read-only.
ENV PATH=/opt/harness/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/home/harness/.cache/huggingface \
    XDG_CACHE_HOME=/home/harness/.cache \
    MPLCONFIGDIR=/tmp/matplotlib
USER 1000:1000
WORKDIR /home/harness
# A job, not a service: it is healthy as long as it runs.
HEALTHCHECK NONE
ENTRYPOINT ["harness"]
CMD ["--help"]
