"""Load checkpoints one after the other into one vLLM, and write down what each answers.

    VLLM_PYTHON vllm_loads.py JOBS.json

Runs in vLLM's environment and imports nothing of harness. Each job names a `model`, where its
`result` and load `report` go, and `prompts` of token ids; what has a result is passed over, so that
a job that took the process with it can be left out and the others go on. A model that fails can
leave vLLM in a state in which others fail too: the process ends, and a failure counts where it is
first.
"""

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from vllm import LLM, RequestOutput, SamplingParams
from vllm.distributed.parallel_state import cleanup_dist_env_and_memory
from vllm.model_executor.models import registry

_TOWERS = ("vision_config", "audio_config", "thinker_config", "projector_config")


def main() -> None:
    """Do the jobs that are not done."""
    # vLLM looks at each class in a process of its own, lest CUDA starts: ten seconds a family.
    registry._run_in_subprocess = lambda look: look()  # noqa: SLF001 -- there is no other way
    jobs = json.loads(Path(sys.argv[1]).read_bytes())
    left = [job for job in jobs if not Path(job["result"]).exists()]
    for number, job in enumerate(left):
        result = Path(job["result"])
        started = result.with_suffix(".started")
        started.touch()
        start = time.perf_counter()
        found: dict[str, Any] = {"error": None}
        try:
            found |= _answers(job)
        except Exception as error:  # noqa: BLE001 -- whatever stops vLLM is what is asked
            found["error"] = f"{type(error).__name__}: {error}"
            if number:
                started.unlink()
                return
        found["seconds"] = round(time.perf_counter() - start, 1)
        unfinished = result.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(found), encoding="utf-8")
        unfinished.rename(result)
        if found["error"]:
            return
        gc.collect()


def _answers(job: dict[str, Any]) -> dict[str, Any]:
    """Return log probabilities of the prompts' tokens, and greedy continuations."""
    os.environ["HARNESS_LOAD_REPORT"] = job["report"]
    config = json.loads((Path(job["model"]) / "config.json").read_bytes())
    llm = LLM(
        model=job["model"],
        distributed_executor_backend="uni",
        enforce_eager=True,
        language_model_only=any(key in config for key in _TOWERS),
        max_model_len=256,
        enable_prefix_caching=False,
        disable_log_stats=True,
        seed=0,
        **job.get("arguments", {}),
    )
    try:
        greedy = SamplingParams(temperature=0, max_tokens=8, prompt_logprobs=0, ignore_eos=True)
        prompts = [{"prompt_token_ids": ids} for ids in job["prompts"]]
        outputs = llm.generate(prompts, greedy, use_tqdm=False)
        return {
            "logprobs": [_of_prompt(output) for output in outputs],
            "greedy": [list(output.outputs[0].token_ids) for output in outputs],
        }
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm
        # A dense model makes no group of ranks for experts, and the next one may need it.
        cleanup_dist_env_and_memory()


def _of_prompt(output: RequestOutput) -> list[float]:
    pairs = zip(output.prompt_token_ids, output.prompt_logprobs, strict=True)
    return [found[token].logprob for token, found in pairs if found is not None]


if __name__ == "__main__":
    main()
