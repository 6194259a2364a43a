"""Requests that are sent to a server before lm-eval asks for them, and noted as they come back.

lm-eval prepares a task, asks, and makes scores of the answers, one after the other, while a server
could already answer the next task.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Self

from lm_eval.models.api_models import TemplateAPI

from harness.artifacts import Endpoint, Suite
from harness.score.asking import AnswerRequest
from harness.score.client import RETRIES, Connection, HttpReply, connect
from harness.score.pace import METRICS
from harness.score.recording import Course, Recorder
from harness.score.replies import Answer, Shown


class Sent(NamedTuple):
    """Requests that are under way."""

    requests: Sequence[Any]
    """lm-eval's."""
    asked: Sequence[Any]
    """The same in our words: AnswerRequest, or a pair for a log-likelihood."""
    replies: Future[list[HttpReply]]


class SendsAhead(TemplateAPI):  # type: ignore[misc]  # lm-eval has no types
    """What both models have: requests that are sent before lm-eval asks for them."""

    recorder: Recorder
    """Of the task that is being asked."""
    repeat: int = 0
    """Which of each item's answers is being asked for."""

    def __init__(self, endpoint: Endpoint, suite: Suite, **settings: object) -> None:
        super().__init__(
            model=endpoint.model,
            num_concurrent=endpoint.num_concurrent,
            max_length=endpoint.max_model_len,
            seed=suite.seed,
            **settings,
        )
        self.recorder = Recorder()
        self.meanwhile: Callable[[], None] | None = None
        """Called once, while replies are waited for."""
        self.endpoint = endpoint
        self._connection: Connection = connect(endpoint, retries=RETRIES)
        self.shown: Shown | None = None
        """What its first answers have proven; None until it was asked."""
        self._suite = suite
        self._under_way: dict[tuple[str, int, int], Sent] = {}

    def __enter__(self) -> Self:
        self._connection.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.__exit__(*error)

    def metrics(self) -> str | None:
        """Return the server's own page of metrics; None where it shows none."""
        return self._connection.text(METRICS)

    def send_ahead(self, requests: Sequence[Any], repeats: int = 1) -> None:
        """Send the requests of one task, so often, as lm-eval will ask for them in this order."""
        kinds = dict.fromkeys(request.request_type for request in requests)
        for repeat in range(repeats):
            for kind in kinds:
                of_kind = [request for request in requests if request.request_type == kind]
                # By the first request, which is another one in each part of a task.
                key = kind, id(of_kind[0]), repeat
                self._under_way[key] = self._send(kind, of_kind, repeat)

    def _take(self, kind: str, requests: Sequence[Any]) -> tuple[Sequence[Any], list[HttpReply]]:
        """Return what was asked and the replies, sent now where they were not before."""
        sent = self._under_way.pop((kind, id(requests[0]), self.repeat), None)
        if sent is None or list(map(id, sent.requests)) != list(map(id, requests)):
            sent = self._send(kind, requests, self.repeat)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return sent.asked, sent.replies.result()

    @abstractmethod
    def prove(self, *, reads: bool) -> None:
        """Prove by two known prompts that the server's answers can be scored.

        Raises:
            EngineError: they cannot, with what came back.
        """

    @abstractmethod
    def _send(self, kind: str, requests: Sequence[Any], repeat: int) -> Sent:
        """Send what lm-eval asks for, all of one kind."""

    def _chosen(self, asked: AnswerRequest, payload: dict[str, Any]) -> dict[str, Any]:
        """Return the payload as it is sent: with its own seed, if the answer is drawn.

        A vLLM of ours on a CPU dies of a seeded request whose prompt it reads in parts ("CPU
        Generator does not use offset"), so there the draws are the server's own.
        """
        if asked.limits.drawing is None:
            return payload
        if not takes_seeds(self.endpoint):
            return {name: value for name, value in payload.items() if name != "seed"}
        return payload | {"seed": asked.seed}

    def _note_answers(
        self,
        kind: str,
        requests: Sequence[Any],
        read: Callable[[HttpReply, AnswerRequest, Shown | None], Answer],
    ) -> list[str]:
        asked, replies = self._take(kind, requests)
        answers = [read(reply, one, self.shown) for reply, one in zip(replies, asked, strict=True)]
        for one, answer, reply in zip(asked, answers, replies, strict=True):
            course = Course(
                num_tokens=self._num_tokens(answer),
                num_thought_tokens=answer.num_thought_tokens,
                begun_s=reply.begun,
                seconds=reply.seconds,
            )
            self.recorder.note(
                one.item,
                answer.finish,
                prompt_cut=one.cut,
                error=answer.error,
                course=course,
            )
        return [answer.text for answer in answers]

    def _num_tokens(self, answer: Answer) -> int | None:
        """Return how many tokens an answer has with its thoughts."""
        return answer.num_tokens


def takes_seeds(endpoint: Endpoint) -> bool:
    """Return whether a server may be sent the seed of a drawn answer."""
    return not endpoint.deployment.device.startswith("cpu")
