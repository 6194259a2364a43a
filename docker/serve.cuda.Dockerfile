# vLLM's own CUDA image with harness's plugin. Untested here: see README.md.
# `--engine docker --image` takes the base itself just as well; this adds a user and a health
# check for serving by hand. Build from the repository's root.

ARG BASE=vllm/vllm-openai:v0.25.0@sha256:fc56161ee42a011aeee78b65d0a81b6683c7d04402fd40503d14d4d6c98f07cb
FROM ${BASE}
# Its own number: the base may have a user 1000 already.
RUN groupadd --gid 10001 vllm \
 && useradd --uid 10001 --gid 10001 --home-dir /tmp/home --no-create-home vllm
COPY harness/plugin /opt/harness-plugin
ENV PYTHONPATH=/opt/harness-plugin \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp/home \
    VLLM_NO_USAGE_STATS=1 \
    HARNESS_PORT=8000
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=30m --retries=3 \
  CMD ["python3", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['HARNESS_PORT'] + '/health', timeout=4)"]
ENTRYPOINT ["python3", "-m", "vllm.entrypoints.openai.api_server"]
