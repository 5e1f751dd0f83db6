"""Trainings on the sandbox, without any key: they go through their states, and leave a model that says what it is."""

import time
from pathlib import Path

import openai
import pytest

from support.gateway import running_gateway

LINES = b"".join(
    b'{"messages":[{"role":"user","content":"question %d"},{"role":"assistant","content":"ahoy"}]}\n' % number
    for number in range(12)
)
TOKENS = sum(len(line) // 4 for line in LINES.splitlines())
PATIENCE_S = 15.0


@pytest.fixture(scope="module")
def client():
    """Run a gateway as a first-time user has it, and return the official client of it."""
    with (
        running_gateway() as gateway,
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def file(client):
    """Hand training data in."""
    return client.files.create(file=("training.jsonl", LINES), purpose="fine-tune")


def begun(client, file, *, takes_s=1.0, **fields):
    """Hand a job in that takes so many seconds."""
    hyperparameters = {"n_epochs": 4, "sandbox_takes_s": takes_s}
    method = {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
    said = {"model": "sandbox/chat", "training_file": file.id, "method": method}
    return client.fine_tuning.jobs.create(**{**said, **fields})


def states_until_the_end(client, job):
    """Look at a job until it has ended; return the states it was seen in, and the job."""
    seen, end = [], time.monotonic() + PATIENCE_S
    while True:
        found = client.fine_tuning.jobs.retrieve(job.id)
        if found.status not in seen[-1:]:
            seen.append(found.status)
        if found.finished_at is not None:
            return seen, found
        assert time.monotonic() < end, found
        time.sleep(0.03)


def test_it_goes_through_its_states(client, file):
    """A training validates, waits, runs and succeeds, counts its tokens, and its model answers as what it is."""
    seen, job = states_until_the_end(client, begun(client, file, takes_s=4.0, suffix="pirate"))
    assert seen == ["validating_files", "queued", "running", "succeeded"]
    assert job.trained_tokens == TOKENS * 4
    assert job.fine_tuned_model.startswith("ft:sandbox-chat:llm-gate:pirate:")
    events = [event.message for event in client.fine_tuning.jobs.list_events(job.id)]
    assert events[0] == "The job has succeeded (synthetic)"
    assert events[-2:] == ["Files validated, job queued (synthetic)", "Created fine-tuning job (synthetic)"]
    checkpoints = [each.step_number for each in client.fine_tuning.jobs.checkpoints.list(job.id)]
    assert checkpoints == [3, 2]
    results = client.files.content(job.result_files[0]).read().decode().splitlines()
    assert results[0] == "step,train_loss"
    assert len(results) == 5
    for name in (job.fine_tuned_model, f"sandbox/{job.fine_tuned_model}:ckpt-step-3"):
        said = client.chat.completions.create(model=name, messages=[{"role": "user", "content": "hello"}])
        model = name.removeprefix("sandbox/")
        assert f"It speaks as {model}, tuned from chat. You said: hello" in said.choices[0].message.content
    assert f"sandbox/{job.fine_tuned_model}" in [each.id for each in client.models.list()]


@pytest.mark.parametrize(
    ("suffix", "code", "tokens"),
    [("fail-files", "invalid_training_file", 0), ("fail", "training_failed", None)],
)
def test_words_in_the_suffix_make_it_fail(client, file, suffix, code, tokens):
    """A training fails where its suffix says so, tells why, and counts what it had trained."""
    _, job = states_until_the_end(client, begun(client, file, suffix=suffix))
    assert (job.status, job.error.code, job.fine_tuned_model) == ("failed", code, None)
    assert "synthetic" in job.error.message
    expected = TOKENS * 4 * (0.5 - 0.25) / 0.75 if tokens is None else tokens
    assert job.trained_tokens == pytest.approx(expected, abs=1)


def test_it_rests_and_goes_on(client, file):
    """Time that a training rests does not count; it goes on where it was."""
    job = begun(client, file, takes_s=1.6)
    end = time.monotonic() + PATIENCE_S
    while client.fine_tuning.jobs.retrieve(job.id).status != "running":
        assert time.monotonic() < end
        time.sleep(0.03)
    assert client.fine_tuning.jobs.pause(job.id).status == "paused"
    time.sleep(2.0)
    assert client.fine_tuning.jobs.retrieve(job.id).status == "paused"
    assert client.fine_tuning.jobs.resume(job.id).status == "running"
    seen, done = states_until_the_end(client, job)
    assert (seen[-1], done.trained_tokens) == ("succeeded", TOKENS * 4)


def test_it_can_be_called_off(client, file):
    """A training that is called off counts what it had trained, and leaves no model."""
    job = begun(client, file, takes_s=30.0)
    ended = client.fine_tuning.jobs.cancel(job.id)
    assert (ended.status, ended.fine_tuned_model, ended.trained_tokens) == ("cancelled", None, 0)
    with pytest.raises(openai.ConflictError):
        client.fine_tuning.jobs.resume(job.id)


def test_only_what_runs_can_rest(client, file):
    """What the sandbox refuses comes out as its refusal, and changes nothing."""
    job = begun(client, file, takes_s=30.0)
    with pytest.raises(openai.BadRequestError) as refused:
        client.fine_tuning.jobs.pause(job.id)
    assert "only a job that is running can be paused" in refused.value.message
    with pytest.raises(openai.BadRequestError):
        client.fine_tuning.jobs.resume(job.id)
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"


def test_guards_see_what_is_trained_on():
    """Training data leave the house as prompts do: a guard that refuses them keeps the job from being handed in."""
    toml = '[guards]\ninput = ["support.guarding:no_secrets"]\n'
    tests = str(Path(__file__).parents[1])
    with (
        running_gateway({"PYTHONPATH": tests}, toml=toml) as gateway,
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client,
    ):
        bad = b'{"messages":[{"role":"user","content":"a forbidden word"}]}\n'
        file = client.files.create(file=("training.jsonl", bad), purpose="fine-tune")
        with pytest.raises(openai.BadRequestError) as refused:
            client.fine_tuning.jobs.create(model="sandbox/chat", training_file=file.id)
        assert refused.value.code == "guard_refused"
        assert client.fine_tuning.jobs.list().data == []
