"""Contract of the OpenAI dialect's embeddings, and of the addresses of its two kinds of deployments."""

import base64
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from llm_gate.dialects import openai
from llm_gate.dialects.openai_chat import decode_chat_request
from llm_gate.dialects.openai_embeddings import decode_embedding_request, encode_embedding_result, pack
from llm_gate.domain.catalog import ProviderSpec
from llm_gate.domain.errors import BadProviderResponse, InvalidRequest, ProviderRateLimited
from llm_gate.domain.pricing import Cost
from llm_gate.domain.usage import Usage
from llm_gate.providers import azure_openai
from support.targets import make_reply, make_target

CHAT = decode_chat_request(b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}')


def read(value, **fields):
    return decode_embedding_request(json.dumps({"model": "m", "input": value, **fields}).encode())


def encode(request, **target):
    encoded = openai.provider.embedding.encode(request, make_target(**target))
    return json.loads(encoded.request.body), encoded.dropped


def decode(body, request):
    return openai.provider.embedding.decode(make_reply(body), request, make_target())


def answer(*vectors):
    data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
    return {
        "object": "list",
        "data": data,
        "model": "m-2",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
        "x": 1,
    }


def written(result, request, cost=None):
    return json.loads(encode_embedding_result(result, request, model="m", cost=cost))


@pytest.mark.parametrize(
    ("value", "inputs"),
    [("a", ("a",)), (["a", "b"], ("a", "b")), ([1, 2], ((1, 2),)), ([[1], [2, 3]], ((1,), (2, 3)))],
)
def test_inputs_are_read(value, inputs):
    """One text, several, token ids or lists of them are read."""
    assert read(value).inputs == inputs


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ("", "input"),
        ([], "input"),
        ([[]], "input"),
        (["a", 1], "input"),
        ([1, [2]], "input"),
        (["a"] * 2049, "input"),
        (None, "input"),
        (5, "input"),
        ({}, "input"),
        (["a", ""], "input[1]"),
        ([-1], "input[0]"),
        ([1.5], "input[0]"),
        ([True], "input[0]"),
        ([[1, "a"]], "input[0][1]"),
    ],
)
def test_bad_inputs_are_refused(value, param):
    """Empty, mixed or too many inputs are refused, naming the place."""
    with pytest.raises(InvalidRequest) as caught:
        read(value)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"model": ""}, "model"),
    ],
)
def test_bad_parameters_are_refused(fields, param):
    """A parameter out of range is refused by name."""
    with pytest.raises(InvalidRequest) as caught:
        read("a", **fields)
    assert caught.value.param == param


def test_a_request_of_the_dialect_goes_out_as_it_came():
    """Only the model changes; unknown fields survive."""
    request = read([[1, 2]], encoding_format="base64", dimensions=8, user="u", future={"a": 1})
    assert encode(request, deployment="wire") == (
        {
            "model": "wire",
            "input": [[1, 2]],
            "encoding_format": "base64",
            "dimensions": 8,
            "user": "u",
            "future": {"a": 1},
        },
        (),
    )


def test_a_crossing_request_says_the_same():
    """Inputs, dimensions and user are carried over; what has no neutral form is named."""
    request = structs.replace(read(["a"], dimensions=8, user="u", future=1, nothing=None), wire=None)
    assert encode(request) == (
        {"input": ["a"], "dimensions": 8, "user": "u", "model": "model-a"},
        ("future",),
    )
    spec = ProviderSpec(dialect="openai", drop=("user",))
    assert encode(request, spec=spec) == (
        {"input": ["a"], "dimensions": 8, "model": "model-a"},
        ("user", "future"),
    )
    assert encode(read("a", user="u"), spec=spec) == ({"input": "a", "model": "model-a"}, ("user",))


def test_vectors_come_in_the_order_of_the_inputs():
    """The vendor's index decides the order; without one the order of the list."""
    body = answer([1.0, 0], [0.5])
    body["data"].reverse()
    assert decode(body, read(["a", "b"])).vectors == ((1.0, 0.0), (0.5,))
    for item in body["data"]:
        del item["index"]
    assert decode(body, read(["a", "b"])).vectors == ((0.5,), (1.0, 0.0))


def test_an_answer_in_the_wanted_form_is_passed_on():
    """The vendor's body comes out with all its fields and the cost."""
    result = decode(answer([0.1, 2e-3]), read("a"))
    assert (result.usage, result.model) == (Usage(input_tokens=3), "m-2")
    expected = answer([0.1, 2e-3])
    expected["usage"]["cost"] = 0
    assert written(result, read("a"), Cost(lines=())) == expected


@pytest.mark.parametrize(("wanted", "came"), [("base64", [1.0, 0.5]), ("float", pack((1.0, 0.5)))])
def test_an_answer_in_another_form_is_written_anew(wanted, came):
    """A vendor that ignores the wanted encoding does not make the caller get the wrong one."""
    request = read("a", encoding_format=wanted)
    body = written(decode(answer(came), request), request)
    assert body["data"][0]["embedding"] == (pack((1.0, 0.5)) if wanted == "base64" else [1.0, 0.5])
    assert body["usage"] == {"prompt_tokens": 3, "total_tokens": 3, "cost": None}
    assert body["model"] == "m-2"


@given(vector=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=9))
def test_base64_is_little_endian_floats(vector):
    """Packed vectors are base64 of 32-bit little-endian floats, and come back exactly."""
    assert base64.b64decode(pack(tuple(vector))) == struct.pack(f"<{len(vector)}f", *vector)
    assert decode(answer(pack(tuple(vector))), read("a", encoding_format="base64")).vectors == (
        tuple(vector),
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"<html>",
        {},
        {"data": None},
        {"data": []},
        answer([1.0], [2.0]),
        answer(["x"]),
        answer(None),
        answer("*"),
        answer("QUJD"),
        {"data": [{}]},
    ],
    ids=str,
)
def test_what_is_no_list_of_vectors_is_refused(body):
    """A wrong shape, a wrong number of vectors or broken base64 is a bad response."""
    with pytest.raises(BadProviderResponse):
        decode(body, read("a"))


def test_an_error_inside_a_success():
    """An error in a body with status 200 is that error."""
    with pytest.raises(ProviderRateLimited):
        decode({"error": {"message": "m", "code": 429}}, read("a"))


def test_a_translated_answer_without_counts():
    """An unknown usage is left out."""
    result = structs.replace(decode(answer([1.0]), read("a")), wire=None, usage=None, model=None)
    assert written(result, read("a")) == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [1.0]}],
        "model": "m",
    }


# Addresses


def azure(base_url="https://res.azure.test", model="gpt-x", **fields):
    target = make_target(
        provider="azure", codecs=azure_openai.provider, base_url=base_url, model=model, **fields
    )
    chat = azure_openai.provider.chat.encode(CHAT, target).request
    embedding = azure_openai.provider.embedding.encode(read("a"), target).request
    return chat.url, embedding.url, json.loads(chat.body)["model"]


def test_dated_addresses():
    """The dated API stands under the deployment's name, which defaults to the model's."""
    assert azure(api_version="2024-10-21") == (
        "https://res.azure.test/openai/deployments/gpt-x/chat/completions?api-version=2024-10-21",
        "https://res.azure.test/openai/deployments/gpt-x/embeddings?api-version=2024-10-21",
        "gpt-x",
    )
    assert azure(api_version="2024-10-21", deployment="my-dep")[0] == (
        "https://res.azure.test/openai/deployments/my-dep/chat/completions?api-version=2024-10-21"
    )


def test_v1_addresses():
    """The v1 API has no date, and the body's model names the deployment; no version at all means v1."""
    expected = (
        "https://res.azure.test/openai/v1/chat/completions",
        "https://res.azure.test/openai/v1/embeddings",
        "my-dep",
    )
    assert azure(api_version="v1", deployment="my-dep") == expected
    assert azure(deployment="my-dep") == expected


@pytest.mark.parametrize("suffix", ["", "/openai", "/openai/v1"])
def test_any_spelling_of_the_endpoint(suffix):
    """The endpoint may be given with or without the path of the v1 API."""
    base_url = f"https://res.azure.test{suffix}"
    assert (
        azure(base_url=base_url, api_version="v1")[0] == "https://res.azure.test/openai/v1/chat/completions"
    )
    assert azure(base_url=base_url, api_version="d")[0] == (
        "https://res.azure.test/openai/deployments/gpt-x/chat/completions?api-version=d"
    )


def test_names_are_escaped():
    """Nothing in a deployment's name or version can change the path or the query."""
    assert azure(deployment="a/../b?c#d é", api_version="1&x=2")[0] == (
        "https://res.azure.test/openai/deployments/a%2F..%2Fb%3Fc%23d%20%C3%A9/chat/completions?api-version=1%26x%3D2"
    )


@pytest.mark.parametrize(
    ("own", "version", "tail"),
    [
        ("2023-03-15-preview", "2024-10-21", "?api-version=2023-03-15-preview"),
        ("v1", "2024-10-21", "/openai/v1/chat/completions"),
        ("2024-10-21", "v1", "?api-version=2024-10-21"),
        (None, "2024-10-21", "?api-version=2024-10-21"),
    ],
)
def test_the_models_version_wins(own, version, tail):
    """A version of the model's own counts before the deployment's."""
    target = make_target(codecs=azure_openai.provider, base_url="https://res.azure.test", api_version=version)
    target = structs.replace(target, model=structs.replace(target.model, api_version=own))
    assert azure_openai.provider.chat.encode(CHAT, target).request.url.endswith(tail)
