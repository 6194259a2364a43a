"""Greedy answers to a batch: each row as if it were alone."""

from pathlib import Path

from harness.artifacts import EngineSpec
from harness.score.asking import Limits
from harness.score.generation import generate
from harness.score.recording import Finish
from harness.serve import Served, serve

ENGINE = EngineSpec(name="reference", numerics="declared", device="cpu", dtype="float32")
PROMPTS = ("a", "a much longer prompt, to be padded for", "0123456789")


def test_padding_changes_no_answer_of_a_model_with_linear_attention(
    tiny_qwen3_5_moe: Path,
) -> None:
    limits = Limits(stops=("x",), answer_budget=8)
    with serve(ENGINE, tiny_qwen3_5_moe) as served:
        assert isinstance(served, Served)
        tokens = [served.tokenizer.encode(prompt) for prompt in PROMPTS]
        together = generate(served.model, served.tokenizer, tokens, limits)
        alone = [generate(served.model, served.tokenizer, [t], limits)[0] for t in tokens]
    assert together == alone
    assert len({answer.text for answer in alone}) > 1


def test_rows_of_a_batch_end_each_at_its_own_stop(tiny_qwen3_5_moe: Path) -> None:
    with serve(ENGINE, tiny_qwen3_5_moe) as served:
        assert isinstance(served, Served)
        tokens = [served.tokenizer.encode(prompt) for prompt in PROMPTS]
        whole = generate(served.model, served.tokenizer, tokens, Limits(stops=(), answer_budget=8))
        stop = next(letter for letter in whole[0].text[2:] if letter not in whole[0].text[:2])
        cut = generate(
            served.model, served.tokenizer, tokens, Limits(stops=(stop,), answer_budget=8)
        )
    for before, after in zip(whole, cut, strict=True):
        assert after.text == before.text.split(stop)[0]
        assert after.finish is (Finish.STOP if stop in before.text else before.finish)
    assert whole[0].finish is Finish.LENGTH
