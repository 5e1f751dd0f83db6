"""Workflows in preflight, quotes, library and command line: may all of it be done, and what stands in the way."""

import asyncio
import json

import httpx
import pytest

from llm_gate import LLMGate, QuotaExceeded, Source
from support.forking import clean_environment, run_command
from support.gateway import NATIVE_HEADERS, running_gateway

LIMITS = """
    [plans]
    default = "{plan}"
    [plans.custom.calls.limits]
    text_calls = 2
    [plans.custom.tokens.limits]
    gemini_tokens = 2500
    [plans.custom.pictures.limits]
    image_calls = 2
    image_edit_calls = 0
    video_calls = 0
    [plans.custom.money.limits]
    monthly_cost_usd = "0.001"
    [plans.custom.made.limits]
    wavespeed_calls = 0
"""
PREFLIGHT = "/api/subscription/preflight-check"


@pytest.fixture(scope="module")
def limited():
    """Run a gateway whose plan has room for two calls of a model."""
    with running_gateway(toml=LIMITS.format(plan="calls")) as running:
        yield running


def test_the_preflight_spells_a_workflow_out(limited):
    """A 200 with a verdict for each operation, and what stands in the way of the first that fails."""
    reply = httpx.post(limited.url + PREFLIGHT, json={"workflow": "google_research"}, headers=NATIVE_HEADERS)
    data = reply.json()["data"]

    assert reply.status_code == 200
    assert [(each["operation_type"], each["provider"], each["allowed"]) for each in data["operations"]] == [
        ("grounding", "gemini", True),
        ("keyword_analysis", "gemini", True),
        ("competitor_analysis", "gemini", False),
        ("content_angle_analysis", "gemini", False),
    ]
    assert (data["can_proceed"], data["failed_operation_index"]) == (False, 2)
    assert data["error_details"] == {
        "error_type": "call_limit",
        "usage_info": {
            "limit": 2,
            "provider": "gemini",
            "operation_type": "competitor_analysis",
            "operation_index": 2,
            "current_calls": 2,
        },
    }


def test_a_search_is_no_call_of_a_model(limited):
    """The same plan lets a research through whose first step is a search, up to its third call of a model."""
    body = {"workflow": {"name": "exa_research", "provider": "huggingface"}}
    data = httpx.post(limited.url + PREFLIGHT, json=body, headers=NATIVE_HEADERS).json()["data"]

    assert [each["bucket"] for each in data["operations"]] == ["search", "text", "text", "text"]
    assert [each["provider"] for each in data["operations"]] == ["exa", *["huggingface"] * 3]
    assert data["failed_operation_index"] == 3


def test_the_quote_spells_a_workflow_out(limited):
    """With labels, a verdict, and the kind of limit that is met with; one that fits can be held."""
    url = f"{limited.url}/llm-gate/v1/quotes"
    denied = httpx.post(url, json={"workflow": "google_research", "reserve": True}, headers=NATIVE_HEADERS)
    held = httpx.post(url, json={"workflow": "calendar", "reserve": True}, headers=NATIVE_HEADERS)

    assert (denied.json()["failedOperationIndex"], denied.json()["errorType"]) == (2, "call_limit")
    assert "quoteId" not in denied.json()
    assert [each["label"] for each in held.json()["operations"]] == ["calendar_generation"]
    assert "errorType" not in held.json()
    released = httpx.delete(f"{url}/{held.json()['quoteId']}", headers=NATIVE_HEADERS)
    assert released.json()["holds"][0]["amount"] == 1


def denied(tmp_path, plan, name, **more):
    """Return how the library refuses a workflow under a plan."""
    file = tmp_path / "llm-gate.toml"
    file.write_text(LIMITS.format(plan=plan))

    async def work():
        async with LLMGate(Source(config_file=file, overrides={"data_dir": tmp_path})) as gate:
            return await gate.check_workflow(name, user_id="ann", **more)

    with pytest.raises(QuotaExceeded) as caught:
        asyncio.run(work())
    return caught.value


def test_the_library_raises_what_denies_a_workflow(tmp_path):
    """A refusal with the limit, its use, and who was asked; one that may be done says what it costs."""
    error = denied(tmp_path, "pictures", "image_generation", count=3)

    assert error.detail["usage_info"]["type"] == "stability_calls"
    assert error.detail["usage_info"]["current_calls"] == 2


@pytest.mark.parametrize(
    ("plan", "workflow", "wanted"),
    [
        (
            "tokens",
            "google_research",
            {
                "error_type": "token_limit",
                "usage_info": {
                    "limit": 2_500,
                    "provider": "gemini",
                    "operation_type": "competitor_analysis",
                    "operation_index": 2,
                    "current_tokens": 2_200,
                    "base_tokens_from_db": 0,
                    "projected_from_previous_ops": 2_200,
                    "requested_tokens": 1_000,
                },
            },
        ),
        (
            "pictures",
            {"name": "image_generation", "count": 3},
            {
                "error_type": "image_limit",
                "usage_info": {
                    "limit": 2,
                    "provider": "image",
                    "operation_type": "image_generation",
                    "operation_index": 2,
                    "current_images": 2,
                },
            },
        ),
        (
            "pictures",
            "image_editing",
            {
                "error_type": "image_edit_limit",
                "usage_info": {
                    "limit": 0,
                    "provider": "image_edit",
                    "operation_type": "image_editing",
                    "operation_index": 0,
                    "current_images": 0,
                },
            },
        ),
        (
            "pictures",
            "scene_animation",
            {
                "error_type": "video_limit",
                "usage_info": {
                    "limit": 0,
                    "provider": "video",
                    "operation_type": "scene_animation",
                    "operation_index": 0,
                    "current_calls": 0,
                },
            },
        ),
        (
            "money",
            "google_research",
            {
                "error_type": "cost_limit",
                "usage_info": {
                    "limit": 0.001,
                    "provider": "gemini",
                    "operation_type": "grounding",
                    "operation_index": 0,
                    "projected_from_previous_ops": 0,
                    "current_cost": 0,
                    "requested_cost": 0.0045,
                },
            },
        ),
        (
            "made",
            {"name": "image_upscale", "provider": "wavespeed"},
            {
                "error_type": "wavespeed_limit",
                "usage_info": {
                    "limit": 0,
                    "provider": "wavespeed",
                    "operation_type": "image_upscale",
                    "operation_index": 0,
                    "current_calls": 0,
                },
            },
        ),
    ],
)
def test_every_denial_says_its_kind(tmp_path, plan, workflow, wanted):
    """Calls, tokens, pictures, edits, films and money: each with the documents' word and figures."""
    (tmp_path / "llm-gate.toml").write_text(LIMITS.format(plan=plan))
    # The command needs no server, and reads the body of either format; this one is the subscription API's.
    body = {
        "workflow": workflow,
        "operations": [{"provider": "audio", "operation_type": "x", "operation": "speech"}],
    }
    done = run_command(
        *("preflight", "-", "--json", "--data-dir", str(tmp_path / "data"), "--no-env-file"),
        folder=tmp_path,
        environment=clean_environment(),
        text=json.dumps(body),
    )

    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["data"]["error_details"] == wanted
