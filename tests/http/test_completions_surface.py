"""OpenAI's older text completions against the sandbox and a scripted provider, with OpenAI's own client."""

import openai
import pytest
from openai import OpenAI

from support.described import assert_described
from support.upstream import Answer
from support.web import call

PATH = "/v1/completions"


@pytest.fixture(scope="module")
def client(gateway):
    """Make the official client, pointed at the gateway."""
    with OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0) as made:
        yield made


def ask(gateway, **fields):
    return call(gateway.url, PATH, {"model": "sandbox/chat", "prompt": "Hello", **fields})


@pytest.mark.parametrize("prompt", ["Hello", ["Hello"]])
def test_plain(client, prompt):
    """A prompt, also as the only one of a list, gets a text that says it is synthetic, with usage and cost."""
    answer = client.completions.create(model="sandbox/chat", prompt=prompt)

    assert answer.id.startswith("cmpl-")
    assert answer.object == "text_completion"
    assert answer.choices[0].text.endswith("You said: Hello")
    assert (answer.choices[0].finish_reason, answer.choices[0].logprobs) == ("stop", None)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.cost == 0
    assert answer.synthetic is True


def test_the_answer_is_as_described(gateway):
    """A complete answer follows OpenAI's own description, also with several choices."""
    answer = ask(gateway, n=2, max_tokens=3)

    assert_described(answer.json, "CreateCompletionResponse")
    assert [choice["index"] for choice in answer.json["choices"]] == [0, 1]
    assert [choice["finish_reason"] for choice in answer.json["choices"]] == ["length", "length"]
    assert answer.headers["x-llm-gate-cost-usd"] == "0"


def test_parameters_reach_the_provider(fronted, upstream):
    """The prompt becomes one message of the user, and every parameter travels along."""
    reply = {"role": "assistant", "content": " there was"}
    choice = {"index": 0, "message": reply, "finish_reason": "stop"}
    upstream.will(Answer.json({"id": "chatcmpl-1", "model": "m-1", "created": 17, "choices": [choice]}))
    parameters = {
        "max_tokens": 5,
        "temperature": 0.8,
        "top_p": 0.9,
        "n": 1,
        "stop": ["."],
        "seed": 7,
        "user": "me",
        "frequency_penalty": 0.5,
        "presence_penalty": -0.5,
    }
    idle = {"suffix": None, "best_of": 1, "echo": False, "logprobs": None, "logit_bias": {}}
    body = {"model": "second/m", "prompt": "Once upon a time", **parameters, **idle}
    answer = call(fronted.url, PATH, body)

    assert answer.json == {
        "id": f"cmpl-{answer.headers['x-request-id']}",
        "object": "text_completion",
        "created": 17,
        "model": "m-1",
        "choices": [{"text": " there was", "index": 0, "logprobs": None, "finish_reason": "stop"}],
    }
    assert upstream.only.json == {
        "model": "m",
        "messages": [{"role": "user", "content": "Once upon a time"}],
        **parameters,
    }


def test_stream(client):
    """A stream gives the text in pieces; usage with cost comes last, when it was asked for."""
    stream = client.completions.create(
        model="sandbox/chat", prompt="Hello", stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)

    assert "".join(c.choices[0].text for c in chunks[:-1]).endswith("You said: Hello")
    assert [c.choices[0].finish_reason for c in chunks[:-1]][-2:] == [None, "stop"]
    assert {c.object for c in chunks} == {"text_completion"}
    assert all(c.synthetic is True for c in chunks)
    assert chunks[-1].choices == []
    assert chunks[-1].usage.cost == 0


def test_stream_without_usage(gateway):
    """A stream carries no usage when nobody asked for it, and ends with [DONE]."""
    events = ask(gateway, stream=True).events

    assert events[-1] == "[DONE]"
    assert [event for event in events[:-1] if "usage" in event] == []
    assert_described(events[-2], "CreateCompletionResponse")


def test_a_cut_stream_never_looks_complete(client):
    """A stream that breaks off ends with an error, which the official client raises."""
    stream = client.completions.create(
        model="sandbox/chat",
        prompt="Hello",
        stream=True,
        extra_headers={"x-llm-gate-sandbox": "cut_after=3"},
    )
    received = []
    with pytest.raises(openai.APIError, match="broke"):
        received.extend(stream)

    assert len(received) == 2  # the first piece, which only names the role, has no text to show


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ["one", "two"]}, "prompt"),
        ({"prompt": [1, 2, 3]}, "prompt"),
        ({"prompt": [[1, 2], [3]]}, "prompt"),
        ({"suffix": "the end"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"echo": True}, "echo"),
        ({"logprobs": 0}, "logprobs"),
        ({"logit_bias": {"50256": -100}}, "logit_bias"),
    ],
)
def test_what_a_chat_model_cannot_do_is_refused(gateway, fields, param):
    """What only completion models of old could do is refused with 400, which names the field."""
    answer = ask(gateway, **fields)

    assert answer.status == 400
    assert (answer.json["error"]["param"], answer.json["error"]["code"]) == (param, "unsupported_parameter")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": [True]}, "prompt[0]"),
        ({"prompt": {"text": "Hello"}}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"model": ""}, "model"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_malformed_bodies_are_refused(gateway, fields, param):
    """A body of the wrong shape is a 400 in OpenAI's form, which names the field."""
    answer = ask(gateway, **fields)

    assert answer.status == 400
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert answer.json["error"]["param"] == param


def test_an_unknown_model_is_404(client):
    """A name nobody knows is a 404 in OpenAI's own form."""
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="no-such-model", prompt="Hello")

    assert caught.value.code == "model_not_found"
