"""A server that somebody else runs, looked at before a suite is sent to it.

What it computes cannot be seen from outside, so its Deployment says so, and a verdict made of its
scores covers nothing but the address. The API key comes from the environment variable
HARNESS_API_KEY, goes to the server alone, and never over a connection that others can read.
"""

import ipaddress
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from harness.artifacts import Deployment, Endpoint, Gap, Suite, digest_of
from harness.errors import PrerequisiteError, ReasonCode, UsageError
from harness.models import has_tokenizer
from harness.over_http import in_words
from harness.score.catalog import check_protocol
from harness.score.client import Connection, HttpReply, read_key

API_KEY_VARIABLE = "HARNESS_API_KEY"
ARM_KEYS = {arm: f"HARNESS_{arm.upper()}_API_KEY" for arm in ("candidate", "baseline")}
"""Of two deployments whose keys differ."""
_log = logging.getLogger("harness.score")
_UNKNOWN = "not recorded"
_UNKNOWN_ENGINE = "url"
"""Of a server that does not say which it is."""
_OWNERS = {"vllm": "vllm", "sglang": "sglang", "tensorrt_llm": "trtllm"}
"""By what a server says of who owns its models."""
_VERSIONS = ("/version", "/server_info", "/get_server_info")
"""Where engines say theirs: vLLM and TensorRT-LLM, SGLang, SGLang before 0.5."""
_PARTS = ("linear", "experts", "attention", "kv_cache")
_REFUSALS = (401, 403)
_LONGEST_NAME = 1000
_NUM_CONCURRENT = 32
"""Requests that are sent at once."""


def endpoint_of(
    url: str,
    suite: Suite,
    *,
    model: str | None = None,
    tokenizer: Path | None = None,
    arm: str = "",
) -> Endpoint:
    """Return the server at `url`, checked as far as it can be from outside.

    Args:
        url: such as `https://host/v1`; one that ends in /chat/completions has its chats rendered
            by the server.
        suite: that is to be scored.
        model: name that the server knows; needed where it has several.
        tokenizer: folder of the model's tokenizer; needed where the server does not share our
            disk. Not used for chats that the server renders.
        arm: `candidate` or `baseline` of two deployments; its API key may be in a variable of its
            own.

    Raises:
        UsageError: the address, the model or the tokenizer is wrong, or the key would be readable.
        SuiteError: the suite cannot be answered by a server that only has chats.
        PrerequisiteError: the server cannot be reached, or refuses us.
    """
    base_url, protocol = _split(url)
    check_protocol(suite, protocol)
    variable = _key_variable(arm)
    key = read_key(variable)
    if key is not None:
        _refuse_readable(base_url, variable)
    with Connection(base_url, key=key) as server:
        listed = _list_models(base_url, server, variable, has_key=key is not None)
        version = _version(server)
    entry = _choose(base_url, model, listed)
    name = str(entry["id"])
    dialect = _OWNERS.get(str(entry.get("owned_by")), "")
    max_model_len = _max_model_len(base_url, entry, suite)
    folder = "" if protocol == "chat" else str(_find_tokenizer(base_url, entry, tokenizer))
    return Endpoint(
        base_url=base_url,
        model=name,
        also_called=_other_names(entry, listed),
        tokenizer=folder,
        max_model_len=max_model_len,
        num_concurrent=_NUM_CONCURRENT,
        api_key_variable=variable if key is not None else None,
        protocol=protocol,
        dialect=dialect,
        deployment=_deployment(base_url, name, dialect or _UNKNOWN_ENGINE, version),
    )


def _deployment(base_url: str, name: str, engine: str, version: str) -> Deployment:
    """Return what is known of a server: what it says it is, and where."""
    return Deployment(
        engine=engine,
        version=version,
        model=name,
        checkpoint_digest=digest_of(_UNKNOWN_ENGINE, base_url, name),
        device=_UNKNOWN,
        dtype=_UNKNOWN,
        arguments=(base_url,),
        kernels=dict.fromkeys(_PARTS, _UNKNOWN),
        exercised=(),
        declared=(),
        log=None,
        address=base_url,
        not_observed=(
            Gap(
                reason=ReasonCode.LOAD_NOT_RECONCILED,
                message=f"nothing shows which files the server at {base_url} runs, nor that it "
                "loaded all of them",
            ),
            Gap(
                reason=ReasonCode.KERNELS_UNKNOWN,
                message=f"the server at {base_url} does not tell which kernels it chose",
            ),
        ),
    )


def _key_variable(arm: str) -> str:
    own = ARM_KEYS.get(arm, API_KEY_VARIABLE)
    return own if os.environ.get(own) else API_KEY_VARIABLE


def _version(server: Connection) -> str:
    """Return the version that a server says it has, as far as it says one."""
    for path in _VERSIONS:
        found = (server.get(path).body or {}).get("version")
        if isinstance(found, str) and found:
            return in_words(found)
    return _UNKNOWN


def _other_names(entry: Mapping[str, Any], listed: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the names of the same model; a server answers by the first of them."""
    root = entry.get("root")
    same = [one for one in listed if _is_name(root) and one.get("root") == root]
    return tuple(str(one["id"]) for one in same if one["id"] != entry["id"])


def _split(url: str) -> tuple[str, str]:
    """Return the address without what follows /v1, and the protocol that it asks for."""
    parts = _parse(url)
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        message = (
            "the address holds a user, a password, a query or a fragment, which would be "
            f"recorded. Type it without, and set the key as {API_KEY_VARIABLE}."
        )
        raise UsageError(message)
    path = parts.path.rstrip("/")
    protocol = "chat" if path.endswith("/chat/completions") else "completions"
    for ending in ("/completions", "/chat", "/v1"):
        path = path.removesuffix(ending)
    return f"{parts.scheme}://{parts.netloc}{path}", protocol


def _parse(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0:
            return parts
    except ValueError:  # a bad port or a bad IPv6 address
        pass
    message = "this is no address of a server. Type one such as http://127.0.0.1:8000."
    raise UsageError(message)


def _refuse_readable(base_url: str, variable: str) -> None:
    parts = urlsplit(base_url)
    if parts.scheme == "https" or _is_this_machine(parts.hostname or ""):
        return
    message = (
        f"the API key in {variable} would be sent readable to '{parts.hostname}'. "
        "Use https, or a tunnel to this machine, or unset the variable."
    )
    raise UsageError(message)


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _list_models(
    base_url: str, server: Connection, variable: str, *, has_key: bool
) -> list[Mapping[str, Any]]:
    reply = server.get("/v1/models")
    if reply.status in _REFUSALS:
        what = f"refuses the API key in {variable}" if has_key else "wants an API key"
        message = f"the server at {base_url} {what}. Set {variable} to a valid one."
        raise PrerequisiteError(message)
    listed = _entries(reply)
    if not listed:
        message = (
            f"no server that lists its models answers at {base_url} "
            f"({reply.error or 'the list is empty'}). Check the address, and that it is up."
        )
        raise PrerequisiteError(message)
    return listed


def _entries(reply: HttpReply) -> list[Mapping[str, Any]]:
    data = (reply.body or {}).get("data")
    found = data if isinstance(data, list) else []
    return [entry for entry in found if isinstance(entry, dict) and _is_name(entry.get("id"))]


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME and value.isprintable()


def _choose(
    base_url: str, model: str | None, entries: list[Mapping[str, Any]]
) -> Mapping[str, Any]:
    wanted = [entry for entry in entries if model in {None, entry["id"]}]
    if len(wanted) == 1:
        return wanted[0]
    names = ", ".join(f"'{entry['id']}'" for entry in entries[:10])
    what = "has several models" if model is None else f"has no model '{model}'"
    message = f"the server at {base_url} {what}. Name one with --served-model: {names}."
    raise UsageError(message)


def _max_model_len(base_url: str, entry: Mapping[str, Any], suite: Suite) -> int:
    found = entry.get("max_model_len")
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        _log.info("score: the server does not say how long a prompt may be; the suite's is taken")
        return suite.max_model_len
    if found < suite.max_model_len:
        message = (
            f"the server at {base_url} takes {found} tokens, the suite '{suite.name}' needs "
            f"{suite.max_model_len}. Start it so that it takes as many, as 'harness serve "
            f"--max-model-len {suite.max_model_len}' does."
        )
        raise UsageError(message)
    return found


def _find_tokenizer(base_url: str, entry: Mapping[str, Any], tokenizer: Path | None) -> Path:
    root = entry.get("root") if _is_name(entry.get("root")) else None
    folder = tokenizer if tokenizer is not None else Path(str(root or ""))
    if folder.is_absolute() or tokenizer is not None:
        if has_tokenizer(folder):
            return folder.resolve()
        if tokenizer is not None:
            message = f"'{tokenizer}' holds no tokenizer. Name the model's folder with --tokenizer."
            raise UsageError(message)
    message = (
        f"the tokenizer of the model at {base_url} is not on this machine. "
        "Name the model's folder with --tokenizer."
    )
    raise UsageError(message)
