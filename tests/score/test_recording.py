from harness.score.recording import Finish, Recorder

ITEM = ("task", 3, 0)


def test_an_item_is_as_bad_as_its_worst_request() -> None:
    recorder = Recorder()
    recorder.note(ITEM, Finish.SCORED, prompt_cut=True)
    recorder.note(ITEM, Finish.ERROR, error="the server said no")
    recorder.note(ITEM, Finish.SCORED)
    outcome = recorder.of(ITEM)
    assert (outcome.finish, outcome.prompt_cut) == (Finish.ERROR, True)
    assert outcome.error == "the server said no"
    assert recorder.num_prompts_cut == 1


def test_an_answer_that_nobody_noted_is_an_error() -> None:
    assert Recorder().of(ITEM).finish is Finish.ERROR
