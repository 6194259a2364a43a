"""What an item asked, expected and got, as a person reads it, from what lm-eval logs of it."""

from collections.abc import Mapping, Sequence
from typing import Any

Logged = Mapping[str, Any]


def prompt_of(entry: Logged) -> str:
    """Return what was given; nothing where a text is read from its beginning."""
    return "" if _is_text(entry) else str(entry["arguments"][0][0])


def target_of(entry: Logged) -> str:
    """Return what was expected: an answer, the right option, or the text that is read."""
    target = entry["target"]
    if _has_options(entry) and isinstance(target, int) and 0 <= target < len(_options(entry)):
        return str(_options(entry)[target])
    return str(target)


def answer_of(entry: Logged, metric: str) -> str:
    """Return what was generated or chosen; of a given text, how likely it is."""
    if _is_text(entry):
        return f"log-likelihood {float(entry['resps'][0][0]):.6g}"
    if not _has_options(entry):
        return str(entry["resps"][0][0])
    if len(entry["arguments"]) == 1:
        log_likelihood, is_greedy = entry["resps"][0][0]
        found = "the likeliest" if is_greedy else "not the likeliest"
        return f"{found}, log-likelihood {float(log_likelihood):.6g}"
    options, ranked = _options(entry), _ranked(entry, metric)
    return options[ranked.index(max(ranked))]


def _is_text(entry: Logged) -> bool:
    """Return whether a whole text was read, with nothing before it."""
    return len(entry["arguments"][0]) == 1


def _has_options(entry: Logged) -> bool:
    """Return whether given texts were read, each after a context."""
    return not _is_text(entry) and isinstance(entry["arguments"][0][1], str)


def _num_options(entry: Logged) -> int:
    """Return how many options there are: with acc_mutual_info each is read a second time, alone."""
    texts, half = [pair[1] for pair in entry["arguments"]], len(entry["arguments"]) // 2
    alone = [pair[0] == "" for pair in entry["arguments"]]
    is_doubled = half and texts[:half] == texts[half:] and alone == [False] * half + [True] * half
    return half if is_doubled else len(texts)


def _options(entry: Logged) -> Sequence[str]:
    """Return the options; where they stand in the context, what differs is shown with it."""
    pairs = entry["arguments"][: _num_options(entry)]
    texts = [str(text) for _, text in pairs]
    if len(set(texts)) == 1 and len(pairs) > 1:
        return [f"{context}{text}" for context, text in pairs]
    return texts


def _ranked(entry: Logged, metric: str) -> Sequence[float]:
    """Return what the options are ranked by, for each of lm-eval's metrics."""
    num = _num_options(entry)
    scores = [float(answers[0][0]) for answers in entry["resps"]]
    if metric == "acc_mutual_info" and num < len(scores):
        return [given - alone for given, alone in zip(scores[:num], scores[num:], strict=True)]
    texts = (str(pair[1]) for pair in entry["arguments"][:num])
    return [s / _divisor(metric, text) for s, text in zip(scores, texts, strict=False)]


def _divisor(metric: str, option: str) -> int:
    """Return what lm-eval divides an option's log-likelihood by."""
    text = option.lstrip()  # requests carry the delimiter in front, lm-eval's lengths do not
    lengths = {"acc_norm": len(text), "acc_bytes": len(text.encode())}
    return max(lengths.get(metric, 1), 1)
