"""A structured answer fits its schema, or was asked for again, or is an error; never passed off as good."""

import json

import pytest

from support.gateway import NATIVE_HEADERS
from support.upstream import Answer
from support.web import call

CHAT = "/v1/chat/completions"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "inhabitants": {"type": "integer"}},
    "required": ["city", "inhabitants"],
    "additionalProperties": False,
}
GOOD = '{"city": "Oslo", "inhabitants": 700000}'
BAD = '{"city": "Oslo"}'
FENCED = f"```json\n{GOOD}\n```"


def says(text, finish_reason="stop", **message):
    """Answer with a text, at 1000 tokens in and 2000 out."""
    choice = {"message": {"role": "assistant", "content": text, **message}, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 1000, "completion_tokens": 2000, "total_tokens": 3000}
    return Answer.json({"id": "c", "model": "m", "choices": [choice], "usage": usage})


def ask(schema=SCHEMA, model="second/m"):
    return {
        "model": model,
        "messages": [{"role": "user", "content": "Which city?"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
    }


def native():
    return {
        "provider": {"name": "second", "model": {"name": "m"}},
        "prompt": {
            "messages": [{"role": "user", "content": "Which city?"}],
            "responseFormat": {"type": "json_schema", "schema": SCHEMA},
        },
    }


def test_a_fitting_answer_passes_untouched(fronted, upstream):
    """What fits is handed on as the vendor wrote it."""
    upstream.will(says(GOOD))
    answer = call(fronted.url, CHAT, ask())

    assert answer.json["choices"][0]["message"]["content"] == GOOD
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("text", [BAD, "no JSON at all", FENCED])
def test_without_repair_a_misfit_is_an_error(fronted, upstream, text):
    """On the OpenAI surface nothing is asked again unless the caller wants it: the misfit is a typed error."""
    upstream.will(says(text))
    answer = call(fronted.url, CHAT, ask())

    assert answer.status == 502
    assert answer.json["error"]["code"] == "structured_output_invalid"
    assert len(upstream.seen) == 1


def test_a_repair_costs_what_all_tries_cost(fronted, upstream):
    """One repair on demand: the second answer is handed out, at the summed usage and cost."""
    upstream.will(says(BAD), says(GOOD))
    answer = call(fronted.url, CHAT, ask(), {"x-llm-gate-repair": "1"})

    assert json.loads(answer.json["choices"][0]["message"]["content"]) == json.loads(GOOD)
    assert answer.json["usage"]["total_tokens"] == 6000
    assert answer.headers["x-llm-gate-cost-usd"] == "0.0027"
    assert answer.headers["x-llm-gate-attempts"] == "2"
    again = upstream.seen[1].json["messages"]
    assert again[-2] == {"role": "assistant", "content": BAD}
    assert "inhabitants" in again[-1]["content"]


def test_the_native_surface_repairs_once_by_itself(fronted, upstream):
    """On the native surface one more try is made without being asked for, and no more than one."""
    upstream.will(says(BAD), says(GOOD))
    good = call(fronted.url, "/llm-gate/v1/chat", native(), NATIVE_HEADERS)
    assert json.loads(good.json["messages"][0]["content"]) == json.loads(GOOD)
    assert good.json["cost"]["token"]["total"] == 0.0027

    upstream.will(says(BAD))
    bad = call(fronted.url, "/llm-gate/v1/chat", native(), NATIVE_HEADERS)
    assert bad.status == 502
    assert len(upstream.seen) == 2


@pytest.mark.parametrize(
    "answer",
    [says('{"city": "Os', finish_reason="length"), says(None, finish_reason="stop", refusal="No.")],
)
def test_what_says_itself_that_it_does_not_fit_passes(fronted, upstream, answer):
    """A cut or refused answer is handed out: its finish reason or refusal tells."""
    upstream.will(answer)

    assert call(fronted.url, CHAT, ask()).status == 200


def test_an_unusable_schema_is_refused_before_anything_is_spent(fronted, upstream):
    """A schema that is none, or that points elsewhere, is a 400; the gateway fetches nothing for it."""
    upstream.will(says(GOOD))
    for schema in ({"type": "nonsense"}, {"$ref": f"{upstream.url}/schema.json"}):
        answer = call(fronted.url, CHAT, ask(schema))
        assert answer.status == 400
        assert answer.json["error"]["param"] == "response_format"

    assert upstream.seen == []


def test_a_misfit_moves_an_alias_on(fronted, upstream):
    """With another target left, the misfit of the first is not the end."""
    upstream.will(says(BAD), says(GOOD))
    answer = call(fronted.url, CHAT, ask(model="best"))

    assert answer.status == 200
    assert answer.headers["x-llm-gate-provider"] == "second"


@pytest.mark.parametrize("text", ["-1", "4", "many", "²"])
def test_the_repair_header_is_bounded(gateway, text):
    """The header takes a small number only."""
    headers = {"x-llm-gate-repair": text.encode().decode("latin-1")}
    assert call(gateway.url, CHAT, ask(model="sandbox/chat"), headers).status == 400
