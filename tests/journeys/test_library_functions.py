"""The functions that the original documents name for one vendor each, in programs."""

import pytest

from support.programs import gemini_refuses, gemini_says, openai_says, run_program
from support.upstream import fake_upstream

START = """
import json
from llm_gate import GateError, QuotaExceeded
def show(thing): print(json.dumps(thing), flush=True)
"""


@pytest.fixture(scope="module")
def upstream():
    with fake_upstream() as running:
        yield running


@pytest.fixture
def run(tmp_path, upstream):
    def go(code, **environment):
        addresses = {
            "LLM_GATE_GEMINI_BASE_URL": f"{upstream.url}/gemini",
            "LLM_GATE_HUGGINGFACE_BASE_URL": f"{upstream.url}/hf/v1",
            "GEMINI_API_KEY": "AQ.gemini-key",
            "HF_TOKEN": "hf_token",
        }
        return run_program(tmp_path, START + code, {**addresses, **environment}).printed

    return go


def test_texts_of_gemini(run, upstream):
    """Gemini answers with text, asked with the usual settings, or with the caller's."""
    upstream.will(gemini_says("```\nx\n```"))
    said = run(
        """
from llm_gate import gemini_text_response
show(gemini_text_response("Hello"))
show(gemini_text_response("Hello", 0.1, 0.5, 1, 9, "Be brief.", model="gemini-2.5-pro", user_id="ann"))
try:
    gemini_text_response("Hello", n=2)
except ValueError as error:
    show(str(error))
"""
    )

    assert said == ["```\nx\n```", "```\nx\n```", "n: there is one answer"]
    usual, own = upstream.seen
    assert usual.json["generationConfig"] == {"temperature": 0.7, "topP": 0.9, "maxOutputTokens": 2_048}
    assert own.json["generationConfig"] == {"temperature": 0.1, "topP": 0.5, "maxOutputTokens": 9}
    assert own.json["systemInstruction"]["parts"] == [{"text": "Be brief."}]
    assert "gemini-2.5-pro" in own.path
    assert usual.headers["x-goog-api-key"] == "AQ.gemini-key"


def test_objects_of_gemini(run, upstream):
    """Gemini answers with an object that fits the schema, or it is an error and no answer."""
    upstream.will(gemini_says('{"age": 7}'), gemini_says("no JSON"))
    found, code = run(
        """
from llm_gate import gemini_structured_json_response
schema = {"type": "OBJECT", "properties": {"age": {"type": "INTEGER"}}, "required": ["age"]}
show(gemini_structured_json_response("How old?", schema, top_k=40))
try:
    gemini_structured_json_response("How old?", schema)
except GateError as error:
    show(error.code)
"""
    )

    assert found == {"age": 7}
    assert code == "structured_output_invalid"
    settings = upstream.seen[0].json["generationConfig"]
    assert (settings["topK"], settings["maxOutputTokens"]) == (40, 8_192)
    assert "responseSchema" in settings or "responseJsonSchema" in settings


def test_texts_and_objects_of_hugging_face(run, upstream):
    """Hugging Face's models answer alike."""
    upstream.will(openai_says("Hi"), openai_says('{"age": 7}'))
    text, found = run(
        """
from llm_gate import huggingface_structured_json_response, huggingface_text_response
show(huggingface_text_response("Hello", model="mistralai/Mistral-7B-Instruct-v0.3", max_tokens=9))
show(huggingface_structured_json_response("How old?", {"age": int}))
"""
    )

    assert (text, found) == ("Hi", {"age": 7})
    assert upstream.seen[0].json["model"] == "mistralai/Mistral-7B-Instruct-v0.3"
    assert upstream.seen[0].json["max_tokens"] == 9
    assert upstream.seen[0].headers["authorization"] == "Bearer hf_token"
    assert upstream.seen[1].json["response_format"]["type"] == "json_schema"


def test_failures_are_raised(run, upstream):
    """What goes wrong is a typed error, never a value that looks like an answer."""
    upstream.will(gemini_refuses(403, "PERMISSION_DENIED"))
    codes = run(
        """
from llm_gate import gemini_text_response
try:
    gemini_text_response("Hello")
except GateError as error:
    show(error.code)
"""
    )

    assert codes == ["provider_auth_failed"]


def test_keys(run):
    """The keys are the environment's; one that is missing is said by its variable, and none has a shape to have."""
    code = """
from llm_gate import get_gemini_api_key, get_huggingface_api_key
for get in (get_gemini_api_key, get_huggingface_api_key):
    try:
        show(get())
    except GateError as error:
        show([error.code, error.message])
"""
    there = run(code)
    missing = run(code, GEMINI_API_KEY="", HF_TOKEN="")

    assert there == ["AQ.gemini-key", "hf_token"]
    assert [code for code, _ in missing] == ["provider_not_configured"] * 2
    assert "GEMINI_API_KEY" in missing[0][1]
    assert "HF_TOKEN" in missing[1][1]
