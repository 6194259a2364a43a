"""What is fuzzed: for each reader a good folder, which of its files vary, and what reads them.

A reader must end in a value or in a HarnessError, whatever lies there.
"""

import dataclasses
import gzip
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from safetensors.torch import save_file

from harness import shipped
from harness.artifacts import (
    BaselineEntry,
    CalibrationSpec,
    CalibrationStats,
    Checkpoint,
    Deployment,
    IntegrityReport,
    Probe,
    RunRecord,
    Scorecard,
    SignOff,
    SmokeReport,
    TensorHeader,
    Verdict,
    load,
    made_from,
    read_samples,
    save,
    to_json,
)
from harness.baselines import import_baseline
from harness.calibrate import check_data, measure_extent
from harness.engines import read_declared, read_demands
from harness.errors import HarnessError
from harness.foreign import pair_recorded, read_recorded, suite_of_recorded
from harness.gate import judge
from harness.models import (
    ids_beyond_embedding,
    open_source,
    read_inventory,
    sha256_of,
    vocabulary_size,
)
from harness.models.headers import read_file_header, read_headers
from harness.reading import examine_weights, read_json_text, render_chats
from harness.reading.templates import Chat
from harness.recipe import Request, load_recipe, load_suite
from harness.recipe.smoke import load_smoke
from harness.recipe.waivers import load_waivers
from harness.rundir import read_recipe, read_times
from harness.score.asking import AnswerRequest, Limits
from harness.score.client import HttpReply
from harness.score.local_data import read_local_splits
from harness.score.replies import read_answer, read_chat, read_chosen
from harness.serve.vllm.answers import Said, read_answers
from harness.signoff import Proof, Signer, check_bundle, sign_off
from harness.tasks import read_own_tasks
from harness.verify import check_template, checks_tokenizer, verify
from tests.conftest import _make_qwen3_moe, _write
from tests.fuzz.mutations import (
    Content,
    changed,
    damaged,
    json_of,
    lines_of,
    weights_of,
    yaml_of,
)
from tests.serve.vllm import fake_vllm
from tests.signoff.conftest import Run as SmallRun
from tests.signoff.conftest import recipe as small_recipe
from tests.verify.conftest import Checkpoint as CheckpointFiles

NOUNS: tuple[type[object], ...] = (
    BaselineEntry,
    CalibrationStats,
    Checkpoint,
    Deployment,
    IntegrityReport,
    Probe,
    RunRecord,
    Scorecard,
    SmokeReport,
    Verdict,
)


@dataclass(frozen=True, slots=True)
class Target:
    """One reader."""

    name: str
    make: Callable[[Path], None]
    """Writes the good folder."""
    varied: Mapping[str, Callable[[bytes], Content]]
    """Files of it, and what becomes of their contents; each is there."""
    read: Callable[[Path], object]
    share: int = 1
    """Of all examples, in parts; what is quick gets more."""


def _each(*reads: Callable[[], object]) -> None:
    """Call all of them, for what one refuses the next may take.

    Raises:
        HarnessError: all refused; the first refusal.
    """
    refusals = []
    for read in reads:
        try:
            read()
        except HarnessError as error:
            refusals.append(error)
    if len(refusals) == len(reads):
        raise refusals[0]


def _make_header(folder: Path) -> None:
    tensors = {"a.weight": torch.zeros(4, 2), "b.scale": torch.ones(3).bfloat16()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _read_header(folder: Path) -> None:
    path = folder / "model.safetensors"
    _each(lambda: examine_weights(path), lambda: read_file_header(path))


def _make_index(folder: Path) -> None:
    for number, name in enumerate("ab"):
        save_file({f"{name}.weight": torch.zeros(2)}, folder / f"{number}.safetensors")
    index = {
        "metadata": {},
        "weight_map": {"a.weight": "0.safetensors", "b.weight": "1.safetensors"},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _make_model(folder: Path) -> None:
    shutil.copytree(_tiny_model(folder.parent / "tiny-model"), folder, dirs_exist_ok=True)
    (folder / "texts.jsonl").write_text('{"text": "the quick brown fox"}\n')


def _tiny_model(folder: Path) -> Path:
    if not folder.exists():
        _write(_make_qwen3_moe, folder)
    return folder


def _read_model(folder: Path) -> None:
    source = open_source(str(folder))
    _each(
        lambda: read_inventory(source),
        lambda: vocabulary_size(source),
        lambda: read_declared(source),
        lambda: read_demands(source),
    )


def _read_tokenizer(folder: Path) -> None:
    source = open_source(str(folder))
    spec = CalibrationSpec(
        data=str(folder / "texts.jsonl"), size=1, seq=8, seed=0, batch_tokens=64, layerwise=False
    )
    _each(lambda: measure_extent(spec, source), lambda: check_template("suite", folder))


def _make_checkpoint(folder: Path) -> None:
    folder.rmdir()
    CheckpointFiles(folder, "NVFP4", "FP8").seal()


_OF_TOKENIZERS = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "generation_config.json"),
)


def _make_tokenizers(folder: Path) -> None:
    """Twice the same: one in a folder within."""
    (folder / "source").mkdir()
    token = {"content": "<t>", "special": True}
    contents = {
        "tokenizer.json": {"added_tokens": [{"id": 3, **token}], "model": {"vocab": {"a": 0}}},
        "tokenizer_config.json": {"added_tokens_decoder": {"3": token}, "eos_token": token},
        "special_tokens_map.json": {"eos_token": "<t>", "additional_special_tokens": ["<t>"]},
        "added_tokens.json": {"<t>": 3},
        "generation_config.json": {"eos_token_id": [3], "suppress_tokens": [1]},
    }
    for name, content in contents.items():
        for place in (folder, folder / "source"):
            (place / name).write_text(json.dumps(content))


def _read_tokenizers(folder: Path) -> None:
    rows = TensorHeader(shard="a", dtype="BF16", shape=(4, 4), num_bytes=32, offset=0)
    assert all(ids_beyond_embedding(folder, {}, {"embed_tokens.weight": rows}))
    source = folder / "source"
    for one, other in ((source, folder), (folder, source)):
        assert all(str(fault) for fault in checks_tokenizer.faults_of(one, other))


def _make_compressed(folder: Path) -> None:
    """The same tensors, declared in the words of compressed-tensors."""
    _make_checkpoint(folder)
    group = {
        "targets": ["Linear", "re:.*mlp.*"],
        "weights": {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16},
        "input_activations": {"num_bits": 4, "type": "float", "strategy": "tensor_group"},
        "format": "nvfp4-pack-quantized",
    }
    section = {
        "quant_method": "compressed-tensors",
        "ignore": ["lm_head", "re:.*visual.*", "re:.*mlp\\.gate$"],
        "config_groups": {"group_0": group},
    }
    config = {"model_type": "qwen3_5_moe", "quantization_config": section}
    (folder / "config.json").write_text(json.dumps(config))


def _read_checkpoint(folder: Path) -> None:
    report = verify(folder, engine="vllm==0.32.0")
    assert all(str(check) for check in report.checks)


_PIECES = st.sampled_from(
    [
        "{{ messages }}",
        "{% for m in messages %}{{ m.content }}{% endfor %}",
        "{{ messages[0].role.x.y }}",
        "{% if add_generation_prompt %}a{% endif %}",
        "{{ 1 // 0 }}",
        "{{ raise_exception('no') }}",
        "{{ tools | tojson }}",
        "{{ messages | length ** 99 }}",
        "{{ 'a' * 100000 }}",
        "{{ 'é\\ud800' }}",
        "{% set x = messages[9] %}",
        "{{ range(10 ** 6) | list | length }}",
        "{{ messages.__class__ }}",
        "{{ '%c' % 1114112 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ strftime_now('%Q') }}",
        "{%",
        "}}",
        "{{",
        "{# ",
        "\x00",
    ]
)


def _templates(_: bytes) -> Content:
    text = st.lists(st.one_of(_PIECES, st.text(max_size=5)), max_size=4).map("".join)
    spelled = text.map(lambda t: t.encode("utf-8", "surrogatepass"))
    return st.one_of(spelled, spelled, spelled.flatmap(damaged))


def _make_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages }}")


def _read_template(folder: Path) -> None:
    template = (folder / "chat_template.jinja").read_text(errors="replace")
    chat = Chat([{"role": "user", "content": "hello"}], {"add_generation_prompt": True})
    _each(lambda: check_template("suite", folder), lambda: render_chats(template, [chat]))


def _make_written(folder: Path) -> None:
    """What people write."""
    shutil.copy(shipped.recipes() / "nvfp4_experts_only.yaml", folder / "recipe.yaml")
    shutil.copy(shipped.suites() / "canary.yaml", folder / "suite.yaml")
    shutil.copy(shipped.smoke() / "canary.yaml", folder / "smoke.yaml")
    shutil.copy(shipped.tasks() / "canary" / "canary_add.yaml", folder / "task.yaml")
    waiver = {
        "check": "scales-finite",
        "checkpoint": "c" * 64,
        "reason": "known",
        "approver": "somebody",
        "expires": "2999-12-31",
    }
    (folder / "waivers.yaml").write_text(json.dumps({"version": 1, "waivers": [waiver]}))
    numbers = {"num_bits": "e4m3", "axis": None}
    (folder / "numbers.yaml").write_text(json.dumps(numbers))
    (folder / "peer.yaml").write_text(json.dumps(_PEER))


_PEER = {
    "imports": {"numbers": "numbers"},
    "metadata": {"recipe_type": "ptq"},
    "quantize": {
        "algorithm": {"method": "max", "layerwise": {"enable": False}},
        "quant_cfg": [
            {"quantizer_name": "*", "enable": False},
            {"quantizer_name": "*weight_quantizer", "cfg": {"$import": "numbers"}},
            {"quantizer_name": "*[kv]_bmm_quantizer", "cfg": {"num_bits": [4, 3]}},
        ],
    },
}


def _make_lines(folder: Path) -> None:
    lines = '{"text": "the quick"}\n{"input_ids": [1, 2, 3]}\n'
    (folder / "lines.jsonl").write_text(lines)


def _read_lines(folder: Path) -> None:
    spec = CalibrationSpec(
        data=str(folder / "lines.jsonl"), size=2, seq=8, seed=0, batch_tokens=64, layerwise=False
    )
    splits = {"data_files": {"test": "lines.jsonl"}}
    _each(
        lambda: check_data(spec),
        lambda: read_local_splits(folder, splits),
        lambda: read_samples(folder / "lines.jsonl"),
    )


def _make_nouns(folder: Path) -> None:
    (folder / "noun.json").write_text("{}")


def _nouns(_: bytes) -> Content:
    def of(noun: object) -> Content:
        values = st.one_of(st.just(to_json(noun)), changed(to_json(noun)))
        return st.one_of(
            values.map(_sealed), changed(json.loads(_sealed(to_json(noun)))).map(_text)
        )

    made = st.sampled_from(NOUNS).flatmap(st.from_type).flatmap(of)
    return st.one_of(made, made, made, made.flatmap(damaged))


def _text(values: object) -> bytes:
    return json.dumps(values).encode()


def _sealed(values: object) -> bytes:
    """Return the text of a record with the digest that fits it, whatever is in it."""
    if not isinstance(values, dict):
        return _text(values)
    record = {"made_from": {"recipe": "0"}, **values}
    spelled = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return _text({"record_sha256": hashlib.sha256(spelled.encode()).hexdigest(), **record})


def _read_nouns(folder: Path) -> None:
    path = folder / "noun.json"
    _each(
        lambda: made_from(path),
        *(lambda noun=noun: load(noun, path) for noun in NOUNS),
    )


def _make_run(folder: Path) -> None:
    recipe = load_recipe(Request(model="canary", qformat="nvfp4"))
    (folder / "recipe.yaml").write_text(json.dumps({"digest": "0", **_dict(to_json(recipe))}))
    (folder / "stage_seconds.json").write_text('{"calibrate": 1.5}')


def _dict(values: object) -> dict[str, Any]:
    assert isinstance(values, dict)
    return values


def _read_run(folder: Path) -> None:
    _each(lambda: read_recipe(folder), lambda: read_times(folder))


def _make_bundle(folder: Path) -> None:
    out = io.BytesIO()
    manifest = {
        "kind": "harness-baseline",
        "version": 1,
        "files": {"entry.json": {"sha256": hashlib.sha256(b"{}").hexdigest(), "num_bytes": 2}},
    }
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in (
            ("bundle.json", json.dumps(manifest).encode()),
            ("entry.json", b"{}"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    (folder / "baseline.tar").write_bytes(out.getvalue())
    (folder / "baseline.bundle").write_bytes(gzip.compress(out.getvalue()))


def _make_signoff(folder: Path) -> None:
    run = SmallRun(folder / "run", small_recipe()).make()
    sign_off(run.path, folder / "bundle", Signer())
    shutil.copytree(run.checkpoint, folder / "model")
    shutil.rmtree(run.path)


def _read_signoff(folder: Path) -> None:
    """Check a bundle as it is, and as one who names its changed files anew."""

    def forged() -> None:
        bundle = folder / "bundle"
        root = bundle / "bundle.json"
        said = load(SignOff, root)
        there = {name: bundle / name for name in said.files if (bundle / name).is_file()}
        known = {name: sha256_of(path) for name, path in there.items()}
        save(dataclasses.replace(said, files=known), root)
        check_bundle(bundle, folder / "model", Proof())

    _each(lambda: check_bundle(folder / "bundle", folder / "model", Proof()), forged)


def _bundles(content: bytes) -> Content:
    """Damage before and after the bundle is compressed."""
    inside = damaged(gzip.decompress(content)).map(lambda b: gzip.compress(b, compresslevel=1))
    return st.one_of(inside, inside, damaged(content))


_ASKED = AnswerRequest(0, ("task", 0, 0), [1, 2], Limits(stops=("\n",), answer_budget=4), cut=False)
_ANSWER = {
    "choices": [
        {
            "text": "a",
            "finish_reason": "stop",
            "message": {"content": "a", "reasoning": None},
            "logprobs": {
                "token_logprobs": [-0.5, -1.5],
                "top_logprobs": [{"a": -0.5}, {"b": -1.5}],
            },
        }
    ],
    "usage": {"prompt_tokens": 2},
}


def _make_answer(folder: Path) -> None:
    (folder / "answer.json").write_text(json.dumps(_ANSWER))


def _read_answer(folder: Path) -> None:
    body = read_json_text((folder / "answer.json").read_bytes(), "the answer")
    reply = HttpReply(body=body, error=None)  # type: ignore[arg-type]  # of any shape
    answers = read_answer(reply, _ASKED), read_chat(reply, _ASKED), read_chosen(reply, [1, 2], 0)
    assert all(isinstance(one.error, str | None) for one in answers)


def _make_lm_eval(folder: Path) -> None:
    stamp = "2026-01-01T00-00-00"
    hashes = {"doc_hash": "a", "prompt_hash": "b", "target_hash": "c"}
    asked = {"doc_id": 0, "arguments": {"gen_args_0": {"arg_0": "1+1", "arg_1": {}}}}
    sample = {"resps": [["2"]], "filter": "none", "metrics": ["acc"], "acc": 1.0, "doc": {}}
    values = {
        "results": {"t": {"acc,none": 1.0}},
        "configs": {"t": {"output_type": "generate_until"}},
        "n-samples": {"t": {"original": 1, "effective": 1}},
        "group_subtasks": {"g": ["t"]},
    }
    (folder / f"results_{stamp}.json").write_text(json.dumps(values))
    line = json.dumps(asked | hashes | sample | {"target": "2"})
    (folder / f"samples_t_{stamp}.jsonl").write_text(line + "\n")


def _make_nel(kind: str, folder: Path) -> None:
    kept = Path(__file__).parents[1] / "foreign_results" / "data" / "nel" / kind / "baseline"
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    for file in [*folder.glob("sums20/*")]:
        name = "eval-1-t.json" if file.name.startswith("eval-") else file.name
        file.rename(folder / name)


def _judge_records(path: Path) -> None:
    """Judge an arm against itself under another name, as far as the gate goes."""
    recorded = read_recorded(path)
    other = dataclasses.replace(recorded, runs=frozenset(), identity="", loaded="")
    suite = suite_of_recorded(recorded, other, 0.02)
    pairing = pair_recorded(recorded, other, suite, is_named=False)
    judge(suite, pairing.baseline, pairing.candidate, verified=True)


def _make_engine_answers(folder: Path) -> None:
    (folder / "answers.jsonl").write_text(fake_vllm.answers())


def _read_engine_answers(folder: Path) -> None:
    said = (folder / "answers.jsonl").read_bytes().decode(errors="replace")
    read_answers(Said(said, is_whole=True))


def _read_own_tasks(path: Path) -> None:
    own = read_own_tasks([path.parent])
    for name in own.definitions:
        own.digest_of(name)
        list(own.problems_of([name]))


def _yaml(name: str, file: str, read: Callable[[Path], object], share: int) -> Target:
    return Target(
        name, _make_written, {file: yaml_of}, lambda folder: read(folder / file), share=share
    )


TARGETS = (
    Target("header", _make_header, {"model.safetensors": weights_of}, _read_header, share=6),
    Target(
        "index",
        _make_index,
        {"model.safetensors.index.json": json_of, "0.safetensors": weights_of},
        read_headers,
        share=4,
    ),
    Target("config", _make_model, {"config.json": json_of}, _read_model, share=2),
    Target(
        "quantization config",
        _make_checkpoint,
        {"config.json": json_of, "hf_quant_config.json": json_of},
        _read_checkpoint,
    ),
    Target(
        "compressed-tensors config", _make_compressed, {"config.json": json_of}, _read_checkpoint
    ),
    Target(
        "checkpoint's files",
        _make_checkpoint,
        {
            "model-00001-of-00002.safetensors": weights_of,
            "model.safetensors.index.json": json_of,
            "tokenizer_config.json": json_of,
            "generation_config.json": json_of,
            "harness.json": json_of,
        },
        _read_checkpoint,
        share=2,
    ),
    Target(
        "tokenizer files",
        _make_model,
        {"tokenizer.json": json_of, "tokenizer_config.json": json_of},
        _read_tokenizer,
    ),
    Target(
        "tokenizer beside its source",
        _make_tokenizers,
        dict.fromkeys(_OF_TOKENIZERS, json_of),
        _read_tokenizers,
        share=3,
    ),
    Target(
        "template", _make_template, {"chat_template.jinja": _templates}, _read_template, share=2
    ),
    _yaml("recipe", "recipe.yaml", lambda p: load_recipe(Request(model="canary", recipe=p)), 2),
    _yaml("peer recipe", "peer.yaml", lambda p: load_recipe(Request(model="canary", recipe=p)), 2),
    _yaml("suite", "suite.yaml", lambda p: load_suite(str(p)), 3),
    _yaml("own task", "task.yaml", _read_own_tasks, 2),
    _yaml("smoke set", "smoke.yaml", lambda p: load_smoke(str(p)), 2),
    _yaml("waivers", "waivers.yaml", load_waivers, 4),
    Target("JSON lines", _make_lines, {"lines.jsonl": lines_of}, _read_lines, share=6),
    Target("nouns", _make_nouns, {"noun.json": _nouns}, _read_nouns, share=4),
    Target(
        "run directory",
        _make_run,
        {"recipe.yaml": yaml_of, "stage_seconds.json": json_of},
        _read_run,
        share=2,
    ),
    Target(
        "bundle",
        _make_bundle,
        {"baseline.bundle": _bundles},
        lambda folder: import_baseline(folder / "baseline.bundle"),
        share=3,
    ),
    Target(
        "sign-off bundle",
        _make_signoff,
        {
            "bundle/bundle.json": json_of,
            "bundle/statement.json": json_of,
            "bundle/verdict.json": json_of,
            "bundle/evidence/scorecard.json": json_of,
        },
        _read_signoff,
    ),
    Target(
        "engine's answers",
        _make_engine_answers,
        {"answers.jsonl": lines_of},
        _read_engine_answers,
        share=4,
    ),
    Target(
        "lm-eval's results",
        _make_lm_eval,
        {
            "results_2026-01-01T00-00-00.json": json_of,
            "samples_t_2026-01-01T00-00-00.jsonl": lines_of,
        },
        _judge_records,
        share=2,
    ),
    Target(
        "NeMo Evaluator's bundle",
        partial(_make_nel, "bundle"),
        {"eval-1-t.json": json_of, "results.jsonl": lines_of, "trajectories.jsonl": lines_of},
        _judge_records,
        share=2,
    ),
    Target(
        "NeMo Evaluator's artifacts",
        partial(_make_nel, "byob"),
        {
            "run_config.yml": yaml_of,
            "eval_factory_metrics.json": json_of,
            "sums20b/byob_predictions.jsonl": lines_of,
            "sums20b/byob_results.json": json_of,
        },
        _judge_records,
    ),
    Target("HTTP answer", _make_answer, {"answer.json": json_of}, _read_answer, share=6),
)
TOTAL_SHARES = sum(target.share for target in TARGETS)


def contents_of(target: Target, folder: Path) -> st.SearchStrategy[tuple[str, bytes]]:
    """One file of a target, and what lies in it."""
    return st.one_of(
        *(
            st.tuples(st.just(name), vary((folder / name).read_bytes()))
            for name, vary in target.varied.items()
        )
    )
