"""What vendors are sent and how their answers are read, by their description in the catalog."""

import json

import msgspec
import pytest

from llm_gate.catalog.loader import load_catalog
from llm_gate.dialects.openai import provider as openai_dialect
from llm_gate.dialects.openai_fine_tuning_wire import seconds_of
from llm_gate.domain.catalog import Model
from llm_gate.domain.errors import FineTuningEnded, InvalidRequest, ProviderError
from llm_gate.domain.fine_tuning import FineTuneRequest, TrainingFile, epochs_of, trained_tokens
from llm_gate.domain.provider import Auth, Deployment, Facts, HttpReply, JobView, Target, Ticket, Wait
from llm_gate.providers.azure_openai import provider as azure
from support.recorded import REASON, recorded_root, recordings
from support.tuning_fake import BASE, TuningFake

CATALOG = load_catalog()
FACTS = Facts(now_s=1_000.0, token="0" * 32)
DATA = b'{"messages": []}\n' * 10
REQUEST = FineTuneRequest(
    model="m",
    training_file="file-own",
    training=TrainingFile(id="file-own", name="t.jsonl", data=DATA, examples=10),
    suffix="mine",
    options={"hyperparameters": {"n_epochs": 4, "batch_size": "auto"}},
)


def target_of(provider, base_url, codecs=openai_dialect, **fields):
    """Return a target at a provider of the catalog."""
    deployment = Deployment(
        provider=provider,
        base_url=base_url,
        auth=Auth(kind="none"),
        spec=CATALOG.providers[provider].spec,
        codecs=codecs,
        **fields,
    )
    model = Model(
        id="1", provider=provider, name="base-model", label="", description="", operations=("fine_tune",)
    )
    return Target(deployment=deployment, model=model)


OPENAI = target_of("openai", "https://api.openai.com/v1")
TOGETHER = target_of("together", "https://api.together.xyz/v1")
MISTRAL = target_of("mistral", "https://api.mistral.ai/v1")
AZURE = target_of(
    "azure_openai", "https://example-resource.openai.azure.com", azure, api_version="2024-10-21"
)
AZURE_V1 = target_of("azure_openai", "https://example-resource.openai.azure.com", azure, api_version="v1")


def reply(body, status=200):
    """Return an answer."""
    return HttpReply(status=status, headers={}, body=json.dumps(body).encode())


def driven(exchanges, *answers):
    """Drive exchanges with answers; return what was sent, and what came of it."""
    sent, left = [], list(answers)
    try:
        wanted = next(exchanges)
        while True:
            if isinstance(wanted, Wait):
                wanted = exchanges.send(None)
                continue
            sent.append(wanted.request)
            wanted = exchanges.send(left.pop(0))
    except StopIteration as end:
        assert not left
        return sent, end.value


def submitted(target, request=REQUEST, *, files=1):
    """Return where a job's body went, and the body."""
    answers = [reply({"id": f"file-v{number}", "status": "processed"}) for number in range(files)]
    sent, ticket = driven(
        target.deployment.codecs.tuning.submit(request, target, FACTS), *answers, reply({"id": "job-1"})
    )
    assert ticket.id == "job-1"
    return [each.url for each in sent], msgspec.json.decode(sent[-1].body), sent[0].body


def test_openai_is_sent_its_own_words():
    """Method and hyperparameters go below `method`, and what nobody said stays out."""
    urls, body, form = submitted(OPENAI)
    assert urls == ["https://api.openai.com/v1/files", "https://api.openai.com/v1/fine_tuning/jobs"]
    hyperparameters = {"n_epochs": 4, "batch_size": "auto"}
    assert body == {
        "model": "base-model",
        "training_file": "file-v0",
        "suffix": "mine",
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
    }
    assert DATA in form
    assert b'name="purpose"\r\n\r\nfine-tune\r\n' in form


def test_together_is_sent_flat_hyperparameters():
    """Together has paths, a method field and hyperparameters of its own."""
    urls, body, form = submitted(TOGETHER, msgspec.structs.replace(REQUEST, method="dpo", seed=3))
    assert urls == ["https://api.together.xyz/v1/files/upload", "https://api.together.xyz/v1/fine-tunes"]
    assert body == {
        "model": "base-model",
        "training_file": "file-v0",
        "suffix": "mine",
        "random_seed": 3,
        "n_epochs": 4,
        "training_method": {"method": "dpo"},
    }
    assert b'name="file_name"\r\n\r\nt.jsonl\r\n' in form
    assert b'name="file_type"\r\n\r\njsonl\r\n' in form


def test_mistral_is_sent_lists_of_files():
    """Mistral takes lists, starts by itself, and knows neither seed nor notes."""
    check = TrainingFile(id="file-check", name="v.jsonl", data=DATA, examples=10)
    request = msgspec.structs.replace(
        REQUEST, validation_file="file-check", validation=check, metadata={"kept": "here"}
    )
    urls, body, _ = submitted(MISTRAL, request, files=2)
    assert urls[-1] == "https://api.mistral.ai/v1/fine_tuning/jobs"
    assert body == {
        "auto_start": True,
        "model": "base-model",
        "training_files": [{"file_id": "file-v0"}],
        "validation_files": ["file-v1"],
        "suffix": "mine",
        "hyperparameters": {"epochs": 4},
    }


@pytest.mark.parametrize(
    ("target", "change", "param"),
    [
        (MISTRAL, {"seed": 1}, "seed"),
        (MISTRAL, {"suffix": "x" * 19}, "suffix"),
        (MISTRAL, {"method": "dpo"}, "method"),
        (
            MISTRAL,
            {"options": {"hyperparameters": {"learning_rate_multiplier": 2}}},
            "hyperparameters.learning_rate_multiplier",
        ),
        (TOGETHER, {"method": "reinforcement"}, "method"),
        (TOGETHER, {"options": {"grader": {}}}, "method.supervised.grader"),
    ],
)
def test_what_a_vendor_has_no_word_for_is_refused(target, change, param):
    """Nothing that was asked for is dropped in silence, and nothing is sent first."""
    exchanges = target.deployment.codecs.tuning.submit(
        msgspec.structs.replace(REQUEST, **change), target, FACTS
    )
    with pytest.raises(InvalidRequest) as refused:
        next(exchanges)
    assert refused.value.param == param


def test_azure_has_paths_of_the_resource():
    """Neither files nor jobs stand below a deployment, under a dated version as under v1."""
    root = "https://example-resource.openai.azure.com/openai"
    urls, _, _ = submitted(AZURE)
    assert urls == [
        f"{root}/files?api-version=2024-10-21",
        f"{root}/fine_tuning/jobs?api-version=2024-10-21",
    ]
    assert submitted(AZURE_V1)[0] == [f"{root}/v1/files", f"{root}/v1/fine_tuning/jobs"]
    sent, _ = driven(azure.tuning.events(Ticket(id="job-1"), AZURE), reply({"data": []}))
    assert sent[0].url == f"{root}/fine_tuning/jobs/job-1/events?api-version=2024-10-21&limit=100"


def test_a_file_must_be_ready_first():
    """A file that the vendor is still looking at is waited for; one that it cannot use ends the matter."""
    exchanges = azure.tuning.submit(REQUEST, AZURE, FACTS)
    sent, _ = driven(
        exchanges,
        reply({"id": "file-v0", "status": "pending"}),
        reply({"id": "file-v0", "status": "running"}),
        reply({"id": "file-v0", "status": "processed"}),
        reply({"id": "job-1"}),
    )
    assert [each.method for each in sent] == ["POST", "GET", "GET", "POST"]
    broken = reply({"id": "file-v0", "status": "error", "status_details": "not UTF-8"})
    with pytest.raises(ProviderError) as refused:
        driven(azure.tuning.submit(REQUEST, AZURE, FACTS), broken)
    assert "not UTF-8" in refused.value.message


TOGETHER_JOB = {
    "id": "ft-1",
    "status": "completed",
    "model_output_name": "acme/Llama-mine-32162631",
    "token_count": 850_000,
    "n_epochs": 3,
}
MISTRAL_JOB = {
    "id": "497f6eca",
    "status": "SUCCESS",
    "fine_tuned_model": "ft:open-mistral-7b:587a6b29:20240514:7e773925",
    "trained_tokens": 1_200,
    "hyperparameters": {"training_steps": 10},
    "events": [
        {"name": "status-updated", "data": {"status": "QUEUED"}, "created_at": 10},
        {"name": "status-updated", "data": {"status": "SUCCESS"}, "created_at": 20},
    ],
    "checkpoints": [
        {"metrics": {"train_loss": 0.8}, "step_number": 10, "created_at": 15},
        {"metrics": {"train_loss": 0.9}, "step_number": 5, "created_at": 12},
    ],
}


@pytest.mark.parametrize(
    ("target", "job", "model", "tokens"),
    [
        (TOGETHER, TOGETHER_JOB, "acme/Llama-mine-32162631", 850_000),
        (MISTRAL, MISTRAL_JOB, "ft:open-mistral-7b:587a6b29:20240514:7e773925", 1_200),
    ],
)
def test_a_vendors_own_words_are_read(target, job, model, tokens):
    """State, model and billed tokens are found under the vendor's names."""
    _, view = driven(target.deployment.codecs.tuning.look(Ticket(id="x"), target, FACTS), reply(job))
    assert (view.status, view.results["state"]) == ("succeeded", "succeeded")
    assert (view.results["model"], view.units) == (model, {"training_tokens": tokens})


@pytest.mark.parametrize(
    ("target", "word", "state"),
    [
        (TOGETHER, "pending", "queued"),
        (TOGETHER, "cancel_requested", "running"),
        (TOGETHER, "user_error", "failed"),
        (MISTRAL, "FAILED_VALIDATION", "failed"),
        (MISTRAL, "VALIDATING", "validating_files"),
        (OPENAI, "a word of tomorrow", "running"),
        (OPENAI, "paused", "paused"),
    ],
)
def test_states_are_translated(target, word, state):
    """Every word is one of ours; one that is not known is work under way."""
    looking = target.deployment.codecs.tuning.look(Ticket(id="x"), target, FACTS)
    _, view = driven(looking, reply({"id": "x", "status": word}))
    assert view.results["state"] == state


def test_events_inside_the_job_are_found():
    """Mistral tells events and checkpoints with the job itself."""
    _, events = driven(MISTRAL.deployment.codecs.tuning.events(Ticket(id="x"), MISTRAL), reply(MISTRAL_JOB))
    assert [each.message for each in events] == [
        'status-updated: {"status": "SUCCESS"}',
        'status-updated: {"status": "QUEUED"}',
    ]
    asking = MISTRAL.deployment.codecs.tuning.checkpoints(Ticket(id="x"), MISTRAL)
    _, checkpoints = driven(asking, reply(MISTRAL_JOB))
    assert [(each.step, each.metrics) for each in checkpoints] == [
        (10, '{"train_loss": 0.8}'),
        (5, '{"train_loss": 0.9}'),
    ]


def test_a_vendor_without_pauses_is_not_asked():
    """What a vendor does not offer is refused here."""
    with pytest.raises(InvalidRequest) as refused:
        next(TOGETHER.deployment.codecs.tuning.steer(Ticket(id="x"), "pause", TOGETHER, FACTS))
    assert refused.value.code == "unsupported_operation"


REFUSALS = [
    (403, "Fine-tuning is no longer available to your organization", True),
    (403, "Your organization cannot create new fine-tuning jobs", True),
    (400, "The fine tuning platform is being wound down", True),
    (403, "You do not have permission to perform this action on fine_tuning.jobs: no longer allowed", True),
    (404, "Training is deprecated and has been discontinued", True),
    (400, "Training file has 3 example(s), but must have at least 10 examples", False),
    (403, "Country, region, or territory not supported", False),
    (429, "Fine-tuning is no longer available", False),
    (500, "training is unavailable", False),
]


@pytest.mark.parametrize(("status", "message", "is_over"), REFUSALS)
def test_the_end_of_training_is_told_from_other_refusals(status, message, is_over):
    """Only a refusal that speaks of training, and of its end, is taken for that; the file is taken away either way."""
    exchanges = openai_dialect.tuning.submit(REQUEST, OPENAI, FACTS)
    next(exchanges)
    exchanges.send(reply({"id": "file-v0", "status": "processed"}))
    removal = exchanges.send(reply({"error": {"message": message, "code": None}}, status))
    assert (removal.request.method, removal.request.url) == (
        "DELETE",
        "https://api.openai.com/v1/files/file-v0",
    )
    with pytest.raises(ProviderError) as refused:
        exchanges.send(reply({"deleted": True}))
    assert isinstance(refused.value, FineTuningEnded) == is_over


@pytest.mark.parametrize(
    ("said", "examples", "expected", "most"),
    [
        ("auto", 10, 10, 25),
        (None, 1, 25, 25),
        (None, 50, 3, 25),
        (None, 10_000, 2, 25),
        (None, 100_000, 1, 25),
        (7, 10, 7, 7),
    ],
)
def test_epochs_are_guessed_as_vendors_choose_them(said, examples, expected, most):
    """Few examples are gone through more often, many less; what the caller says holds."""
    count = epochs_of({} if said is None else {"n_epochs": said}, examples)
    assert (count.expected, count.most) == (expected, most)


def test_tokens_are_bounded_by_bytes():
    """A token for four bytes is likely, and one for every byte the most, of validation data as well."""
    count = trained_tokens(REQUEST)
    assert (len(DATA), count.expected, count.most) == (170, 43 * 4, 170 * 4)
    check = TrainingFile(id="c", name="c", data=DATA, examples=10)
    assert trained_tokens(msgspec.structs.replace(REQUEST, validation=check)).most == 340 * 4


def test_instants_are_read_in_either_form():
    """Seconds and ISO dates are the same instant; anything else is none."""
    assert [seconds_of(each) for each in (5, "1970-01-01T00:00:05Z", "soon", None, True)] == [5, 5, 0, 0, 0]


@pytest.mark.skipif(recorded_root() is None, reason=REASON)
def test_recorded_jobs_are_read():
    """What OpenAI really sent is read: a job just made, and a list of those that ended."""
    found = {each.id: each.interactions[0].json for each in recordings("openai", "fine-tuning")}
    created = found["openai/fine-tuning/create.json"]
    _, view = driven(openai_dialect.tuning.look(Ticket(id="x"), OPENAI, FACTS), reply(created))
    assert (view.status, view.results["state"], view.units) == ("queued", "validating_files", {})
    assert view.results["seed"] == "167471248"
    listed = found["openai/fine-tuning/list.json"]["data"]
    _, view = driven(openai_dialect.tuning.look(Ticket(id="x"), OPENAI, FACTS), reply(listed[0]))
    assert view.results["model"] == "ft:gpt-3.5-turbo-0613:personal::8J6LXhXG"
    assert view.units == {"training_tokens": 5_070}
    assert json.loads(view.data["result_files"]) == ["file-MCHOP3n0H4lYtk13KYIXDQIC"]


VIEW = JobView(
    status="succeeded", data={"model": "ft:base-model:acme::1", "result_files": '["file-r0", "file-r1"]'}
)


def test_what_came_of_it_is_fetched():
    """Files of results and the names of all models are there; one that the vendor does not have costs nothing."""
    checkpoint = {
        "id": "c",
        "fine_tuned_model_checkpoint": "ft:base-model:acme::1:ckpt-step-9",
        "step_number": 9,
    }
    collecting = openai_dialect.tuning.collect(Ticket(id="job-1"), VIEW, OPENAI, FACTS)
    content = HttpReply(status=200, headers={}, body=b"step\n1\n")
    _, trained = driven(collecting, content, reply({}, 404), reply({"data": [checkpoint]}))
    assert [(each.data, each.name) for each in trained.files] == [(b"step\n1\n", "step_metrics_0.csv")]
    assert trained.models == ("ft:base-model:acme::1", "ft:base-model:acme::1:ckpt-step-9")


def test_a_vendor_without_checkpoints_has_trained_all_the_same():
    """An older version of the API that knows no checkpoints does not lose the model."""
    view = msgspec.structs.replace(VIEW, data={"model": "m.ft-1", "result_files": "[]"})
    sent, trained = driven(azure.tuning.collect(Ticket(id="job-1"), view, AZURE, FACTS), reply({}, 404))
    assert len(sent) == 1
    assert trained.models == ("m.ft-1",)


@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_what_may_come_later_is_asked_again(status):
    """A vendor that is away for a moment does not have its results forgotten."""
    collecting = openai_dialect.tuning.collect(Ticket(id="job-1"), VIEW, OPENAI, FACTS)
    with pytest.raises(ProviderError):
        driven(collecting, reply({"error": {"message": "later"}}, status))


def test_a_second_file_that_fails_takes_the_first_away():
    """Where one of two files cannot be handed in, none stays at the vendor."""
    check = TrainingFile(id="file-check", name="v.jsonl", data=DATA, examples=10)
    request = msgspec.structs.replace(REQUEST, validation_file="file-check", validation=check)
    exchanges = openai_dialect.tuning.submit(request, OPENAI, FACTS)
    next(exchanges)
    exchanges.send(reply({"id": "file-v0", "status": "processed"}))
    removal = exchanges.send(reply({"error": {"message": "busy"}}, 503))
    assert (removal.request.method, removal.request.url[-13:]) == ("DELETE", "files/file-v0")
    with pytest.raises(ProviderError):
        exchanges.send(reply({}))


@pytest.mark.skipif(recorded_root() is None, reason=REASON)
def test_the_fake_vendor_answers_as_the_recorded_one():
    """What the journeys run against has the fields that OpenAI really sends, no more and no fewer."""
    found = {each.id: each.interactions[0].json for each in recordings("openai", "fine-tuning", "files")}
    with TuningFake() as vendor:
        job = vendor.begin({"model": BASE, "training_file": "file-x"})
        shown = vendor.shown(job)
        stored = vendor.stored(next(iter(vendor.files)))
    assert shown.keys() == found["openai/fine-tuning/create.json"].keys()
    assert stored.keys() == found["openai/files/upload-jsonl.json"].keys()
