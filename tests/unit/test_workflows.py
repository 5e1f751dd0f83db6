"""The documents' workflows, spelt out as operations, and what stands in their way."""

import msgspec
import pytest

from llm_gate.dialects.native_quotes import decode_quote
from llm_gate.dialects.subscription_preflight import decode_preflight
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.workflows import Workflow, steps_of

_DEFAULTS = {
    "big": {"chat"},
    "warm": {"chat"},
    "face": {"chat"},
    "finder": {"search"},
    "seeker": {"search"},
}


class Vendors:
    """A catalog of a few vendors: three that speak, of which one is not configured, and two that search."""

    def __init__(self, *named, enabled=("warm", "face", "finder")):
        self.named = named
        self._enabled = enabled

    def canonical(self, provider):
        return {"alphabet": "big"}.get(provider, provider if provider in _DEFAULTS else None)

    def default_model(self, provider, operation):
        return "m" if operation in _DEFAULTS[provider] else None

    def preference(self):
        return (*self.named, *_DEFAULTS)

    def is_enabled(self, provider):
        return provider in self._enabled


def spelt(name, vendors=None, **more):
    """Return the operations of a workflow: label, bucket, provider and tokens."""
    steps = steps_of(Workflow(name=name, **more), vendors or Vendors())
    return [(step.label, step.bucket, step.provider, step.tokens) for step in steps]


ANALYSES = ("keyword_analysis", "competitor_analysis", "content_angle_analysis")


def analyses(provider):
    return [(label, "text", provider, 1_000) for label in ANALYSES]


def test_a_research_by_who_speaks_is_grounded():
    """One grounding call of 1,200 tokens, then three of 1,000 at the same vendor."""
    grounding = ("grounding", "text", "big", 1_200)

    assert spelt("big_research") == [grounding, *analyses("big")]
    assert spelt("alphabet_research") == [grounding, *analyses("big")]
    assert spelt("BIG_research", provider="face") == [grounding, *analyses("face")]
    assert spelt("big_research", Vendors("face")) == [grounding, *analyses("face")]


def test_a_research_by_who_searches_makes_a_search():
    """One search, then three calls of the model that is preferred, or else can be had."""
    search = ("search", "search", "finder", 0)

    assert spelt("finder_research") == [search, *analyses("warm")]
    assert spelt("finder_research", Vendors("face")) == [search, *analyses("face")]
    assert spelt("seeker_research", provider="big")[0] == ("search", "search", "seeker", 0)
    assert spelt("research", Vendors(enabled=())) == [("search", "search", None, 0), *analyses("big")]


@pytest.mark.parametrize(
    ("name", "count", "wanted"),
    [
        ("calendar", 1, [("calendar_generation", "text", "warm", 20_000)]),
        ("image_generation", 1, [("image_generation", "image", None, 0)]),
        ("image_generation", 3, [("image_generation", "image", None, 0)] * 3),
        ("image_upscale", 1, [("image_upscale", "image", None, 0)]),
        ("image_control", 1, [("image_control", "image", None, 0)]),
        ("image_editing", 1, [("image_editing", "image_edit", None, 0)]),
        ("video_generation", 1, [("video_generation", "video", None, 0)]),
        ("scene_animation", 1, [("scene_animation", "video", None, 0)]),
    ],
)
def test_each_workflow_is_what_the_documents_say(name, count, wanted):
    """Calendar, pictures, their changes and films, with as many operations as there are."""
    assert spelt(name, count=count) == wanted


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ("nope", "workflow.name"),
        ("nobody_research", "workflow.name"),
        ("_research", "workflow.name"),
        ({"name": "calendar", "provider": "nobody"}, "workflow.provider"),
        ({"name": "calendar", "count": 2}, "workflow.count"),
        ({"name": "image_upscale", "count": 2}, "workflow.count"),
        ({"name": "image_generation", "count": 0}, "workflow.count"),
        ({"name": "image_generation", "count": 91}, "workflow.count"),
        ({"count": 2}, "workflow"),
        (7, "workflow"),
        ("", "workflow"),
    ],
)
def test_faulty_workflows_are_refused(body, param):
    """In both formats, with the field that is faulty."""
    raw = msgspec.json.encode({"workflow": body})

    for decode in (decode_preflight, decode_quote):
        with pytest.raises(InvalidRequest) as caught:
            decode(raw, Vendors())
        assert (caught.value.param or "").startswith(param)


def test_a_workflow_comes_before_other_operations():
    """Both may be said; all of them count towards the most that one question may have."""
    operation = {"provider": "finder", "operation_type": "more", "operation": "search"}
    body, asked = decode_preflight(
        msgspec.json.encode({"workflow": "big_research", "operations": [operation]}), Vendors()
    )
    too_many = {"workflow": {"name": "image_generation", "count": 90}, "operations": [operation] * 11}

    assert [each.operation_type for each in body.operations] == ["grounding", *ANALYSES, "more"]
    assert [each.label for each in asked] == ["grounding", *ANALYSES, "more"]
    assert [each.total_tokens for each in asked[:4]] == [1_200, 1_000, 1_000, 1_000]
    with pytest.raises(InvalidRequest):
        decode_preflight(msgspec.json.encode(too_many), Vendors())
    native = {"workflow": "calendar", "operations": [{"operation": "image"}]}
    assert [each.label for each in decode_quote(msgspec.json.encode(native), Vendors())[1]] == [
        "calendar_generation",
        None,
    ]
