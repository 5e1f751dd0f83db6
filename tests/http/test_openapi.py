"""The published document is true: what it describes is what the gateway takes and gives, errors included."""

import json

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from support.figures import full, proved
from support.gateway import NATIVE_HEADERS
from support.web import call

EXAMPLES = full(20, 1000)
NAMING = {"/v1/batches", "/v1/fine_tuning/jobs", "/llm-gate/v1/fine-tuning/jobs", "/v1/search/{name}"}
"""Paths whose examples name what a gateway of one's own does not have: a file, a provider called {name}."""


@pytest.fixture(scope="module")
def described(gateway):
    """Read the document as a tool would."""
    return schemathesis.openapi.from_url(f"{gateway.url}/llm-gate/openapi.json")


@proved
@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize(
    "label",
    [
        "GET /llm-gate/v1/providers",
        "POST /llm-gate/v1/chat",
        "POST /llm-gate/v1/chat/stream",
        "POST /llm-gate/v1/embeddings",
        "POST /llm-gate/v1/search",
        "POST /llm-gate/v1/research",
        "POST /llm-gate/v1/quotes",
        "GET /llm-gate/v1/quotes/{id}",
        "DELETE /llm-gate/v1/quotes/{id}",
        "GET /llm-gate/v1/status",
        "GET /llm/status",
        "POST /llm-gate/v1/routes/explain",
        "POST /api/subscription/preflight-check",
        "GET /api/subscription/plans",
        "GET /api/subscription/pricing",
        "GET /api/subscription/usage/{user_id}",
        "GET /api/subscription/usage-logs",
        "GET /api/subscription/renewal-history/{user_id}",
        "POST /api/subscription/alerts/{alert_id}/mark-read",
        "GET /llm-gate/admin/v1/usage",
        "POST /llm-gate/admin/v1/keys",
        "GET /llm-gate/health",
        "POST /v1/chat/completions",
        "POST /v1/embeddings",
        "POST /v1/search",
        "GET /v1/files",
        "GET /v1/files/{id}",
        "POST /v1/batches",
        "GET /v1/batches",
        "GET /v1/batches/{id}",
        "POST /v1/fine_tuning/jobs",
        "GET /v1/fine_tuning/jobs",
        "POST /v1/fine_tuning/jobs/{id}/pause",
        "GET /v1/fine_tuning/jobs/{id}/events",
        "POST /llm-gate/v1/fine-tuning/jobs",
        "POST /v1/responses",
        "POST /v1/completions",
        "POST /v1/messages",
        "POST /v1/messages/count_tokens",
        "POST /llm-gate/v1/chat/count-tokens",
        "GET /v1/models",
        "GET /v1/models/{id}",
        "GET /healthz",
        "GET /readyz",
    ],
)
def test_generated_requests_meet_the_document(described, label, mode):
    """No request that follows the document, and none that just misses it, gets a 5xx or an undocumented form."""
    operations = {found.ok().label: found.ok() for found in described.get_all_operations()}

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    @given(case=operations[label].as_strategy(generation_mode=mode))
    def holds(case):
        # Generated keys repeat themselves: with another body they would only ever be refused for that.
        case.headers.pop("Idempotency-Key", None)
        response = case.call(timeout=20)
        case.validate_response(
            response, checks=[not_a_server_error, response_schema_conformance, status_code_conformance]
        )

    try:
        holds()
    except Unsatisfiable:
        # A route without parameters has nothing that could be wrong.
        assert mode is GenerationMode.NEGATIVE


def test_a_turn_without_content_is_refused(gateway):
    """A conversation that is empty once it is translated is the caller's mistake; generated requests found it."""
    empty = {"model": "", "max_tokens": 1, "messages": [{"role": "user", "content": []}], "tools": []}

    assert call(gateway.url, "/v1/messages", empty).status == 400


def test_the_document_holds_every_public_route(gateway):
    """Each route of the surfaces is in the document, with its request, its answer and its errors."""
    document = call(gateway.url, "/llm-gate/openapi.json").json

    assert document["openapi"].startswith("3.0")
    assert set(document["paths"]) == {
        "/llm-gate/v1/providers",
        "/llm-gate/v1/chat",
        "/llm-gate/v1/chat/stream",
        "/llm-gate/v1/embeddings",
        "/llm-gate/v1/quotes",
        "/llm-gate/v1/quotes/{id}",
        "/llm-gate/v1/status",
        "/llm-gate/v1/routes/explain",
        "/llm/status",
        "/api/subscription/preflight-check",
        "/api/subscription/plans",
        "/api/subscription/pricing",
        "/api/subscription/usage/{user_id}",
        "/api/subscription/usage/{user_id}/trends",
        "/api/subscription/dashboard/{user_id}",
        "/api/subscription/usage-logs",
        "/api/subscription/alerts/{user_id}",
        "/api/subscription/alerts/{alert_id}/mark-read",
        "/api/subscription/user/{user_id}/subscription",
        "/api/subscription/status/{user_id}",
        "/api/subscription/subscribe/{user_id}",
        "/api/subscription/renewal-history/{user_id}",
        "/api/subscription/renewal-history/{user_id}/retention-stats",
        *(
            f"/llm-gate/admin/v1/{path}"
            for path in (
                "keys",
                "keys/{id}",
                "keys/{id}/rotate",
                "keys/{id}/revoke",
                "plans",
                "plans/{name}",
                "tenants",
                "tenants/{id}",
                "applications",
                "applications/{client_id}",
                "subscriptions",
                "subscriptions/{user}",
                "usage",
                "calls",
                "calls/{id}",
                "audit",
                "ledger/check",
            )
        ),
        "/llm-gate/health",
        "/v1/chat/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/completions",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/llm-gate/v1/chat/count-tokens",
        "/v1/models",
        "/v1/models/{id}",
        *(
            f"/llm-gate/v1/{path}"
            for path in (
                "images/generations",
                "images/edits",
                "images/face-swaps",
                "audio/speech",
                "audio/transcriptions",
                "videos",
                "jobs",
                "jobs/{id}",
                "jobs/{id}/events",
                "jobs/{id}/content",
                "blobs/{id}",
            )
        ),
        "/llm-gate/v1/search",
        "/llm-gate/v1/research",
        "/v1/search",
        "/v1/search/{name}",
        "/v1/images/generations",
        "/v1/images/edits",
        "/v1/audio/speech",
        "/v1/audio/transcriptions",
        "/v1/videos",
        "/v1/videos/{id}",
        "/v1/videos/{id}/content",
        "/v1/files",
        "/v1/files/{id}",
        "/v1/files/{id}/content",
        "/v1/batches",
        "/v1/batches/{id}",
        "/v1/batches/{id}/cancel",
        "/v1/fine_tuning/jobs",
        "/v1/fine_tuning/jobs/{id}",
        *(
            f"/v1/fine_tuning/jobs/{{id}}/{path}"
            for path in ("cancel", "pause", "resume", "events", "checkpoints")
        ),
        "/llm-gate/v1/fine-tuning/jobs",
        "/healthz",
        "/readyz",
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert {"200", "202"} & operation["responses"].keys()
            assert path.endswith(("health", "healthz", "readyz")) or "4XX" in operation["responses"]


def test_the_examples_of_the_document_work(gateway):
    """Every example body can be sent as it stands."""
    document = call(gateway.url, "/llm-gate/openapi.json").json
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if "application/json" in operation.get("requestBody", {}).get("content", {}):
                example = operation["requestBody"]["content"]["application/json"]["example"]
                # What an administrator alone may do is shown to work with the rest of administration.
                for_admin = "/admin/" in path or "/subscribe/" in path
                expected = "401" if for_admin else next(iter(operation["responses"]))
                if path in NAMING:
                    expected = "404"
                assert str(call(gateway.url, path, example, NATIVE_HEADERS).status) == expected


def test_the_page_and_its_assets_come_from_here(gateway):
    """The documentation page loads nothing from anywhere else."""
    page = call(gateway.url, "/llm-gate/docs")
    text = page.body.decode()

    assert page.status == 200
    assert "://" not in text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for asset in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js", "favicon-32x32.png"):
        assert f"/llm-gate/docs/assets/{asset}" in text
        assert call(gateway.url, f"/llm-gate/docs/assets/{asset}").status == 200
    assert call(gateway.url, "/llm-gate/docs/assets/..%2f..%2fsettings.py").status == 404


def test_the_title_is_the_operators(gateway):
    """The document carries the configured title; the originals' by default."""
    assert json.loads(call(gateway.url, "/llm-gate/openapi.json").body)["info"]["title"] == "HEIMDALL"
