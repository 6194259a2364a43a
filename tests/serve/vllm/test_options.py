"""What `--engine-arg` may set: exact names of vLLM's parser, and nothing that harness decides."""

import dataclasses
from collections.abc import Iterator

import pytest
from pydantic import TypeAdapter

from harness.artifacts import EngineSpec
from harness.errors import PrerequisiteError, UsageError
from harness.serve import find_vllm, resolve_engine
from harness.serve.vllm.answers import ask_abilities
from harness.serve.vllm.environment import ask_vllm
from harness.serve.vllm.options import Option, Options, refuse_malformed, user_flags
from harness.serve.vllm.permitted import DECIDED, PERMITTED
from tests.serve.stand_in import How

from . import fake_vllm

PYTHON = find_vllm()
OPTIONS = Options(
    place="vLLM", known=TypeAdapter(tuple[Option, ...]).validate_python(fake_vllm.OPTIONS)
)
HOSTILE = (
    *"""
    hf-overrides={} hf_overrides={} hf-overrides.x=1 worker-cls=evil.Worker
    logits-processors=evil:P logits_processors=evil:P middleware=evil.m scheduler-cls=evil.S
    worker-extension-cls=evil.W tool-parser-plugin=/tmp/evil.py
    reasoning-parser-plugin=/tmp/evil.py io-processor-plugin=evil
    """.split(),  # noqa: SIM905 -- a name a line would be two screens
    'compilation-config={"backend": "evil.f"}',
    *"""
    compilation-config.backend=evil.f cc={} additional-config={} model-loader-extra-config={}
    load-format=dummy quantization=fp8 q=fp8 kv-cache-dtype=fp8 speculative-config={}
    lora-modules=a=/b enable-lora=true kv-transfer-config={} config=/tmp/c.yaml
    config-format=mistral hf-config-path=/tmp tokenizer=/tmp chat-template=/tmp/t.jinja
    generation-config=/tmp trust-remote-code=true trust-remote=true no-trust-remote-code=false
    hos=0.0.0.0 ho=0.0.0.0 host=0.0.0.0 HOST=0.0.0.0 --host=0.0.0.0 port=1 uds=/tmp/s api_key=x
    api=x ssl-keyfile=x allowed-origins=[] root-path=/x served-model-name=x model=x mode=x
    revision=x otlp-traces-endpoint=http://x profiler-config={}
    distributed-executor-backend=evil.Executor data-parallel-size=2 nnodes=2 master-addr=1.2.3.4
    enable-prompt-embeds=true logprobs-mode=raw_logits tp=2 -tp=2 O=3 h=1 help=all
    enforce-eager=--host=0.0.0.0 enforce-eager =x
    """.split(),  # noqa: SIM905 -- a name a line would be two screens
    "a b=1",
    "max-num-seqs=",
    "max-num-seqs=--host=0.0.0.0",
    "max-num-seqs=1\x00",
    "max-num-seqs=1\n--host",
    "max-num-seqs=\udc80",
    "max.num.seqs=1",
)


def test_users_arguments_become_flags_that_are_one_word_each() -> None:
    given = (
        "max_num_seqs=16",
        "enforce-eager=true",
        "--enable-prefix-caching=false",
        'limit-mm-per-prompt={"image": 0}',
        "device-memory-utilization=0.5",
        "max-num-batched-tokens=2k",
        "moe-backend=flashinfer-cutlass",
    )
    assert user_flags(given, OPTIONS) == (
        "--max-num-seqs=16",
        "--enforce-eager",
        "--no-enable-prefix-caching",
        '--limit-mm-per-prompt={"image": 0}',
        "--gpu-memory-utilization=0.5",
        "--max-num-batched-tokens=2k",
        "--moe-backend=flashinfer-cutlass",
    )


def test_a_key_that_is_given_twice_has_its_last_value() -> None:
    given = ("max-num-seqs=1", "enforce-eager=true", "max_num_seqs=2")
    assert user_flags(given, OPTIONS) == ("--max-num-seqs=2", "--enforce-eager")


@pytest.mark.parametrize("argument", HOSTILE)
def test_what_may_load_code_or_change_what_is_judged_is_refused(argument: str) -> None:
    with pytest.raises(UsageError) as caught:
        user_flags((argument,), OPTIONS)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", sorted(DECIDED))
def test_what_harness_decides_is_refused_before_any_vllm_is_asked(name: str) -> None:
    for key in (name, name.replace("-", "_"), f"--{name}", f"no-{name}"):
        with pytest.raises(UsageError, match="harness itself decides"):
            refuse_malformed((f"{key}=x",))


def test_another_name_of_an_option_that_harness_decides_is_refused() -> None:
    with pytest.raises(UsageError, match="harness itself decides 'api-key'"):
        user_flags(("old-key=s3cret",), OPTIONS)


@pytest.mark.parametrize("argument", ["api-key=s3cret", "hf-token=s3cret", "s3=s3cret"])
def test_the_value_of_a_refused_argument_is_not_shown(argument: str) -> None:
    with pytest.raises(UsageError) as caught:
        user_flags((argument,), OPTIONS)
    assert "s3cret" not in str(caught.value)


def test_an_unknown_name_is_refused_with_those_that_look_like_it() -> None:
    with pytest.raises(UsageError, match=r"no option 'max-num-seq'. Did you mean max-num-seqs"):
        user_flags(("max-num-seq=4",), OPTIONS)


@pytest.mark.parametrize(
    "argument",
    [
        "max-num-seqs=many",
        "max-num-seqs=1e3",
        "gpu-memory-utilization=nan",
        "moe-backend=evil.module",
        "safetensors-load-strategy=torchao",
        "limit-mm-per-prompt=[1]",
        "limit-mm-per-prompt=" + "[" * 3000,
        "max-num-seqs=" + "9" * 4001,
    ],
)
def test_a_value_that_the_option_does_not_take_is_refused(argument: str) -> None:
    with pytest.raises(UsageError):
        user_flags((argument,), OPTIONS)


def test_arguments_are_checked_when_the_engine_is_resolved(engine: EngineSpec) -> None:
    with pytest.raises(UsageError, match="no option 'hos'"):
        resolve_engine(dataclasses.replace(engine, arguments=("hos=0.0.0.0",)))


def test_a_vllm_that_does_not_tell_its_options_is_given_none_of_the_users(
    engine: EngineSpec, how: How
) -> None:
    how(FAKE_ANSWERS='{"options": null}')
    resolve_engine(engine)
    with pytest.raises(PrerequisiteError, match=r"did not tell its options \(gone\)"):
        resolve_engine(dataclasses.replace(engine, arguments=("max-num-seqs=4",)))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Options]:
    if PYTHON is None:
        pytest.skip("no vLLM here: scripts/setup-vllm cpu makes one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        known = ask_abilities(ask_vllm(str(PYTHON))).options
        assert known is not None
        yield Options(place="vLLM", known=known)


def test_the_real_parsers_names_are_those_of_the_permitted_options(real: Options) -> None:
    names = {one.names[0] for one in real.known}
    assert len(names) > 200
    gone = {"swap-space", "max-num-partial-prefills", "max-long-partial-prefills"}
    assert set(PERMITTED) - names <= gone, "of an older version"


@pytest.mark.parametrize("argument", HOSTILE)
def test_the_real_parser_is_given_none_of_them(real: Options, argument: str) -> None:
    with pytest.raises(UsageError):
        user_flags((argument,), real)


def test_every_abbreviation_of_the_real_parser_is_refused(real: Options) -> None:
    names = {name for one in real.known for name in (*one.names, *one.negations)}
    short = {name[:end] for name in names for end in range(1, len(name))} - names
    assert len(short) > 1000
    for prefix in sorted(short):
        with pytest.raises(UsageError):
            user_flags((f"{prefix}=1",), real)


def test_the_real_parser_takes_what_is_usual(real: Options) -> None:
    given = ("max-num-seqs=4", "enforce-eager=true", "enable-prefix-caching=false", "block-size=32")
    expected = ("--max-num-seqs=4", "--enforce-eager", "--no-enable-prefix-caching")
    assert user_flags(given, real) == (*expected, "--block-size=32")
