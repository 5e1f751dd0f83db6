"""Fine-tuning through the official client, at a vendor that answers in the shapes of OpenAI's recorded traffic."""

import time
from decimal import Decimal

import openai
import pytest

from support.gateway import NATIVE_HEADERS, running_gateway
from support.office import Desk
from support.tuning_fake import BASE, KEY, WIND_DOWN, TuningFake
from support.web import call

LINES = b"".join(
    b'{"messages":[{"role":"user","content":"question %d"},{"role":"assistant","content":"ahoy"}]}\n' % number
    for number in range(40)
)
PRICE = Decimal(3) / 1_000_000
PATIENCE_S = 10.0


@pytest.fixture(scope="module")
def vendor():
    """Run a vendor that trains models."""
    with TuningFake() as running:
        yield running


@pytest.fixture(scope="module")
def place(vendor):
    """Run a gateway before the vendor, with two tenants; return it and a key of each."""
    environment = {"OPENAI_API_KEY": KEY, "LLM_GATE_OPENAI_BASE_URL": f"{vendor.url}/v1"}
    with running_gateway(environment) as gateway:
        desk = Desk(gateway)
        yield gateway, {name: desk.key_for(name) for name in ("blue", "green")}


@pytest.fixture(autouse=True)
def usual(vendor):
    """Let the vendor behave as usual again."""
    vendor.states, vendor.tokens, vendor.error, vendor.refusal = ["succeeded"], 5_070, {}, None
    vendor.calls.clear()
    vendor.bodies.clear()


def client_of(place, tenant):
    """Return the official client of a tenant."""
    gateway, keys = place
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=keys[tenant], max_retries=0)


@pytest.fixture
def blue(place):
    """Return the client of the first tenant."""
    with client_of(place, "blue") as client:
        yield client


@pytest.fixture
def green(place):
    """Return the client of the second tenant."""
    with client_of(place, "green") as client:
        yield client


def begun(client, **fields):
    """Hand a file and a job in."""
    file = client.files.create(file=("training.jsonl", LINES), purpose="fine-tune")
    return client.fine_tuning.jobs.create(**{"model": f"openai/{BASE}", "training_file": file.id, **fields})


def until(client, job, *states):
    """Look at a job until it is in one of some states."""
    end = time.monotonic() + PATIENCE_S
    while (found := client.fine_tuning.jobs.retrieve(job.id)).status not in states:
        assert time.monotonic() < end, found
        time.sleep(0.05)
    return found


def test_a_training_from_file_to_answer(place, vendor, blue):
    """Files go to the vendor with the job, results come back, and the model answers its tenant at its own price."""
    job = begun(blue, suffix="pirate", seed=7, metadata={"ship": "1"})
    assert (job.status, job.model, job.seed, job.metadata) == ("validating_files", BASE, 7, {"ship": "1"})
    assert job.id.startswith("ftjob-")
    done = until(blue, job, "succeeded")
    made = vendor.jobs[next(reversed(vendor.jobs))]
    assert made.asked == {
        "model": BASE,
        "training_file": made.asked["training_file"],
        "suffix": "pirate",
        "seed": 7,
        "metadata": {"ship": "1"},
    }
    assert (done.fine_tuned_model, done.trained_tokens) == (made.model, 5_070)
    assert (done.training_file, done.organization_id) == (job.training_file, "blue")
    assert (done.hyperparameters.n_epochs, done.hyperparameters.learning_rate_multiplier) == (3, 1.8)
    assert blue.files.content(done.result_files[0]).read() == b"step,train_loss\n1,0.5\n"
    # Nothing of the tenant's data stays at the vendor.
    assert made.asked["training_file"] not in vendor.files
    answer = blue.chat.completions.create(model=made.model, messages=[{"role": "user", "content": "who?"}])
    assert answer.choices[0].message.content == f"I am {made.model}"
    said = blue.chat.completions.with_raw_response.create(
        model=f"openai/{made.model}:ckpt-step-20", messages=[{"role": "user", "content": "who?"}]
    )
    # Ten tokens at 0.30 and five at 1.20 dollars for a million.
    assert said.headers["x-llm-gate-cost-usd"] == "0.000009"


def test_it_costs_what_was_trained(place, vendor, blue):
    """The estimate is no less than what was settled; record, attempt and job say the counted tokens at the price."""
    job = begun(blue, hyperparameters={"n_epochs": 6})
    estimate = Decimal(job.expected_cost_usd)
    done = until(blue, job, "succeeded")
    assert Decimal(done.cost_usd) == PRICE * 5_070 == Decimal("0.01521")
    # 40 lines of 85 to 86 bytes, a token for four bytes, six times.
    assert estimate == PRICE * (-(-len(LINES) // 4) * 6)
    assert estimate >= Decimal(done.cost_usd)


def test_events_and_checkpoints(blue, vendor):
    """What happened and what stands between is told page by page, under the job's own id."""
    job = until(blue, begun(blue), "succeeded")
    events = blue.fine_tuning.jobs.list_events(job.id, limit=2)
    assert [event.message for event in events.data] == ["Job is succeeded", "Job started"]
    assert events.has_more
    assert [event.id for event in blue.fine_tuning.jobs.list_events(job.id, limit=1)] == [
        "ftevent-2",
        "ftevent-1",
        "ftevent-0",
    ]
    checkpoints = blue.fine_tuning.jobs.checkpoints.list(job.id).data
    assert [each.step_number for each in checkpoints] == [20, 10]
    assert {each.fine_tuning_job_id for each in checkpoints} == {job.id}
    assert checkpoints[0].fine_tuned_model_checkpoint == f"{job.fine_tuned_model}:ckpt-step-20"


def test_a_failure_is_told_in_the_vendors_words(blue, vendor):
    """A training that fails before it ran says why, and costs nothing."""
    vendor.states, vendor.tokens = ["failed"], None
    vendor.error = {
        "code": "invalid_training_file",
        "message": "The job failed due to an unsafe training file.",
        "param": "training_file",
    }
    failed = until(blue, begun(blue), "failed")
    assert (failed.error.code, failed.error.param) == ("invalid_training_file", "training_file")
    assert failed.error.message == "The job failed due to an unsafe training file."
    assert (failed.fine_tuned_model, failed.cost_usd) == (None, "0")


def test_a_training_is_called_off(blue, vendor):
    """A job that is called off is stopped at the vendor, and costs what had been trained."""
    vendor.states, vendor.tokens = ["running"], 1_000
    job = until(blue, begun(blue), "running")
    ended = blue.fine_tuning.jobs.cancel(job.id)
    assert (ended.status, ended.trained_tokens, ended.cost_usd) == ("cancelled", 1_000, "0.003")
    assert ended.error is None
    with pytest.raises(openai.ConflictError) as refused:
        blue.fine_tuning.jobs.cancel(job.id)
    assert refused.value.code == "job_over"


def test_a_training_pauses_and_goes_on(blue, vendor):
    """A job pauses and goes on at the vendor, and looks so at once."""
    vendor.states = ["running", "succeeded"]
    job = until(blue, begun(blue), "running")
    assert blue.fine_tuning.jobs.pause(job.id).status == "paused"
    assert blue.fine_tuning.jobs.retrieve(job.id).status == "paused"
    assert blue.fine_tuning.jobs.resume(job.id).status in {"running", "succeeded"}
    until(blue, job, "succeeded")
    with pytest.raises(openai.ConflictError):
        blue.fine_tuning.jobs.pause(job.id)


def test_a_vendor_that_trains_no_more_says_so(blue, vendor):
    """The end of fine-tuning comes out as an error of its own, the vendor keeps no file, and nothing is charged."""
    vendor.refusal = (403, WIND_DOWN)
    kept = set(vendor.files)
    with pytest.raises(openai.PermissionDeniedError) as refused:
        begun(blue)
    assert refused.value.code == "fine_tuning_ended"
    assert "takes no more fine-tuning jobs" in refused.value.message
    assert set(vendor.files) == kept
    assert vendor.count("POST", "/v1/fine_tuning/jobs") == 1


def test_another_refusal_is_no_wind_down(blue, vendor):
    """What is wrong with the request stays what it is."""
    message = "Training file has 3 example(s), but must have at least 10 examples"
    vendor.refusal = (
        400,
        {"error": {"message": message, "type": "invalid_request_error", "param": "training_file"}},
    )
    with pytest.raises(openai.BadRequestError) as refused:
        begun(blue)
    assert refused.value.code == "provider_rejected"
    assert message in refused.value.message


def test_another_tenant_sees_nothing(place, blue, green, vendor):
    """Jobs, files and models of a tenant are not there for another, in the words for what never was."""
    gateway, keys = place
    job = until(blue, begun(blue, suffix="secret"), "succeeded")
    assert [each.id for each in green.fine_tuning.jobs.list()] == []
    assert job.id in [each.id for each in blue.fine_tuning.jobs.list()]
    headers = {"Authorization": f"Bearer {keys['green']}", **NATIVE_HEADERS, "client_id": "shop"}
    own = job.id.removeprefix("ftjob-")
    probes = [
        ("GET", "/v1/fine_tuning/jobs/{}"),
        ("POST", "/v1/fine_tuning/jobs/{}/cancel"),
        ("POST", "/v1/fine_tuning/jobs/{}/pause"),
        ("POST", "/v1/fine_tuning/jobs/{}/resume"),
        ("GET", "/v1/fine_tuning/jobs/{}/events"),
        ("GET", "/v1/fine_tuning/jobs/{}/checkpoints"),
    ]
    plain = [
        ("GET", "/llm-gate/v1/jobs/{}"),
        ("DELETE", "/llm-gate/v1/jobs/{}"),
        ("GET", "/llm-gate/v1/jobs/{}/events"),
        ("GET", "/llm-gate/v1/jobs/{}/content"),
        ("GET", "/v1/videos/{}"),
    ]
    for found, never, ways in ((job.id, "ftjob-none", probes), (own, "none", plain)):
        for method, path in ways:
            answers = [
                call(gateway.url, path.format(name), headers=headers, method=method)
                for name in (found, never)
            ]
            told = [
                each.body.replace(name.encode(), b"X")
                for each, name in zip(answers, (found, never), strict=True)
            ]
            assert [each.status for each in answers] == [404, 404], path
            assert told[0] == told[1], path
    with pytest.raises(openai.NotFoundError) as refused:
        green.fine_tuning.jobs.create(model=f"openai/{BASE}", training_file=job.training_file)
    assert refused.value.code == "file_not_found"
    assert blue.fine_tuning.jobs.retrieve(job.id).status == "succeeded"


def test_a_tuned_model_is_its_tenants_alone(blue, green, vendor):
    """Under every spelling its name is unknown to others, and so are tuned models that nobody here has."""
    job = until(blue, begun(blue, suffix="mine"), "succeeded")
    name = job.fine_tuned_model
    assert f"openai/{name}" in [each.id for each in blue.models.list()]
    assert name not in str([each.id for each in green.models.list()])
    vendor.calls.clear()
    for asked in (name, f"openai/{name}", f"openai/{name}:ckpt-step-10", "openai/ft:gpt-4o:other::abc"):
        with pytest.raises(openai.NotFoundError) as refused:
            green.chat.completions.create(model=asked, messages=[{"role": "user", "content": "hi"}])
        assert refused.value.code == "model_not_found"
        with pytest.raises(openai.NotFoundError):
            green.models.retrieve(asked)
    assert vendor.calls == []
    # To be trained further, too.
    with pytest.raises(openai.NotFoundError):
        begun(green, model=f"openai/{name}")
    with pytest.raises(openai.NotFoundError):
        blue.chat.completions.create(
            model="openai/ft:gpt-4o:other::abc", messages=[{"role": "user", "content": "hi"}]
        )


def test_jobs_are_listed_by_their_notes(blue):
    """Lists go page by page, and hold those that bear the notes that are asked for."""
    first, second = (begun(blue, metadata={"run": run}) for run in ("a", "b"))
    found = blue.fine_tuning.jobs.list(metadata={"run": "a"}).data
    assert [each.id for each in found] == [first.id]
    page = blue.fine_tuning.jobs.list(limit=1)
    assert ([each.id for each in page.data], page.has_more) == ([second.id], True)
    assert [each.id for each in blue.fine_tuning.jobs.list(limit=1, after=second.id).data] == [first.id]
    none = blue.fine_tuning.jobs.list(extra_query={"metadata": "null"}).data
    assert not {first.id, second.id} & {each.id for each in none}
    for each in (first, second):
        until(blue, each, "succeeded")


def test_the_native_surface_takes_trainings(place, blue, vendor):
    """A training that is handed in natively is a job like others, and tells what came of it."""
    gateway, keys = place
    file = blue.files.create(file=("training.jsonl", LINES), purpose="fine-tune")
    headers = {"Authorization": f"Bearer {keys['blue']}", **NATIVE_HEADERS, "client_id": "shop"}
    body = {
        "provider": {"name": "openai", "model": {"name": BASE}},
        "trainingFile": file.id,
        "hyperparameters": {"n_epochs": 2},
        "suffix": "native",
    }
    made = call(gateway.url, "/llm-gate/v1/fine-tuning/jobs", body, headers)
    assert made.status == 202
    assert made.headers["location"] == f"/llm-gate/v1/jobs/{made.json['id']}"
    assert made.json["parameter"]["options"] == {"hyperparameters": {"n_epochs": 2}}
    end = time.monotonic() + PATIENCE_S
    while (job := call(gateway.url, made.headers["location"], headers=headers).json)["status"] != "succeeded":
        assert time.monotonic() < end, job
        time.sleep(0.05)
    assert (job["operation"], job["trainedTokens"]) == ("fine_tune", 5_070)
    assert (job["tunedModel"][:3], len(job["resultFiles"])) == ("ft:", 1)
    assert job["cost"] == {"total": 0.01521, "currency": "USD"}
    wrong = call(gateway.url, "/llm-gate/v1/fine-tuning/jobs", {**body, "suffix": "x" * 65}, headers)
    assert (wrong.status, wrong.json["errorDetails"][0]["details"]) == (400, "suffix")


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"suffix": "x" * 65}, "suffix"),
        ({"seed": -1}, "seed"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
        ({"method": {"type": "dpo", "supervised": {}}}, "method.supervised"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ({"extra_body": {"strange": 1}}, "strange"),
    ],
)
def test_wrong_requests_reach_nobody(blue, vendor, said, param):
    """What is malformed is refused by the name of its field before anything is sent."""
    with pytest.raises(openai.BadRequestError) as refused:
        begun(blue, **said)
    assert refused.value.param == param
    assert vendor.calls == []


def test_the_file_must_be_for_training(blue, vendor):
    """A file that was handed in for something else is refused."""
    file = blue.files.create(file=("a.jsonl", LINES), purpose="batch")
    with pytest.raises(openai.BadRequestError) as refused:
        blue.fine_tuning.jobs.create(model=f"openai/{BASE}", training_file=file.id)
    assert refused.value.param == "training_file"
    assert vendor.calls == []
