"""What a model's entry says of a request for media: filled in, refused, turned into what it takes, and said so."""

import pytest
from msgspec import structs

from llm_gate.catalog.loader import load_catalog
from llm_gate.domain.catalog import MediaSpec
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.media import (
    FaceSwapRequest,
    ImageEditRequest,
    ImageRequest,
    Medium,
    Speaker,
    SpeechRequest,
    TranscriptionRequest,
    VideoRequest,
)
from llm_gate.domain.media_rules import fit, nearest_ratio
from support.targets import make_target

SHOWN = Medium(data=b"x", type="image/png")
PLAIN = {
    "image": ImageRequest(model="m", prompt="x"),
    "image_edit": ImageEditRequest(model="m", images=(SHOWN,), prompt="x"),
    "face_swap": FaceSwapRequest(model="m", image=SHOWN, face=SHOWN),
    "video": VideoRequest(model="m", prompt="x"),
    "speech": SpeechRequest(model="m", text="x"),
    "transcription": TranscriptionRequest(model="m", audio=SHOWN),
}
# One value of every optional input, by kind of request.
_IMAGE = {
    "aspect_ratio": "1:1", "resolution": "2K", "quality": "high", "style": "vivid", "background": "opaque",
    "format": "png", "negative_prompt": "dogs", "guidance_scale": 3.5, "steps": 9, "seed": 0,
}  # fmt: skip
SAID = {
    "image": _IMAGE,
    "image_edit": _IMAGE | {"mask": SHOWN},
    "face_swap": {"face_index": 0, "gender": "all", "format": "png", "seed": 0},
    "video": {
        "image": SHOWN, "audio": SHOWN, "duration_s": 5, "resolution": "720p", "aspect_ratio": "16:9",
        "negative_prompt": "", "seed": 0, "guidance_scale": 0.0, "steps": 1, "prompt_expansion": False,
        "generate_audio": False,
    },
    "speech": {
        "voice": "a", "speakers": (Speaker(name="A", voice="a"),), "format": "wav", "speed": 1.0, "pitch": 0,
        "volume": 0.0, "emotion": "happy", "instructions": "", "language": "en", "sample_rate": 24_000,
    },
    "transcription": {"language": "en", "prompt": "", "temperature": 0.0, "timestamps": ("word",)},
}  # fmt: skip
INPUTS = [(kind, name) for kind, said in SAID.items() for name in said]


def fitted(kind, said=None, **spec):
    """Fit a request to a model of which a spec is known."""
    model = structs.replace(make_target().model, media=MediaSpec(**spec))
    return fit(structs.replace(PLAIN[kind], **(said or {})), model)


def refused(kind, said=None, **spec):
    """Return the field by which a request is refused."""
    with pytest.raises(InvalidRequest) as caught:
        fitted(kind, said, **spec)
    assert caught.value.message.startswith(f"{caught.value.param}: ")
    assert caught.value.code == "unsupported_input"
    return caught.value.param


@pytest.mark.parametrize("kind", PLAIN)
def test_what_is_not_known_is_left_alone(kind):
    """A model of which nothing is known gets the request as it is, whatever it says."""
    request = structs.replace(PLAIN[kind], **SAID[kind])
    found = fit(request, structs.replace(make_target().model, media=None))
    assert found.request is request
    assert found.notes == ()


@pytest.mark.parametrize("kind", PLAIN)
def test_what_is_taken_goes_through(kind):
    """Everything that the model takes arrives, also what is false, zero or empty."""
    found = fitted(kind, SAID[kind], takes=tuple(SAID[kind]))
    assert found.request == structs.replace(PLAIN[kind], **SAID[kind])
    assert found.notes == ()


@pytest.mark.parametrize(("kind", "name"), INPUTS)
def test_what_is_not_taken_is_refused(kind, name):
    """Each input that the model does not take is refused by its name, also one that is false, zero or empty."""
    takes = tuple(other for other in SAID[kind] if other != name)
    assert refused(kind, {name: SAID[kind][name]}, takes=takes) == name


@pytest.mark.parametrize(("kind", "name"), INPUTS)
def test_what_is_not_said_is_not_refused(kind, name):
    """A model that takes one thing only does not mind what nobody said."""
    assert fitted(kind, {name: SAID[kind][name]}, takes=(name,)).notes == ()


@pytest.mark.parametrize(
    ("kind", "listed", "name", "values", "is_filled"),
    [
        ("image", "aspect_ratios", "aspect_ratio", ("16:9", "1:1"), False),
        ("image", "resolutions", "resolution", ("2K", "4K"), True),
        ("image", "qualities", "quality", ("low", "high"), False),
        ("image", "formats", "format", ("png", "webp"), False),
        ("video", "resolutions", "resolution", ("720p", "480p"), True),
        ("video", "durations_s", "duration_s", (5, 8), True),
        ("video", "aspect_ratios", "aspect_ratio", ("16:9", "1:1"), False),
        ("speech", "voices", "voice", ("Anna", "Otto"), True),
        ("speech", "formats", "format", ("wav", "mp3"), False),
        ("speech", "emotions", "emotion", ("happy", "sad"), False),
        ("speech", "sample_rates", "sample_rate", (24_000, 8_000), False),
        ("face_swap", "formats", "format", ("png", "webp"), False),
        ("image_edit", "resolutions", "resolution", ("2K", "4K"), True),
    ],
)
def test_lists_bound_and_fill(kind, listed, name, values, is_filled):
    """The first of a list is filled in where it is needed; the others may be asked for, and nothing else."""
    spec = {"takes": (name,), listed: values}
    assert getattr(fitted(kind, **spec).request, name) == (values[0] if is_filled else None)
    for value in values:
        assert getattr(fitted(kind, {name: value}, **spec).request, name) == value
    odd = "other" if isinstance(values[0], str) else 7
    assert refused(kind, {name: odd}, **spec) == name
    if isinstance(values[0], str):
        for written in (values[1].upper(), values[1].lower()):
            assert getattr(fitted(kind, {name: written}, **spec).request, name) == values[1]


def test_what_may_not_be_said_may_still_be_filled_in():
    """A list fills in what the caller may not choose."""
    spec = {"resolutions": ("720p",), "durations_s": (5,)}
    found = fitted("video", **spec).request
    assert (found.resolution, found.duration_s) == ("720p", 5)
    assert refused("video", {"resolution": "720p"}, **spec) == "resolution"


@pytest.mark.parametrize(
    ("size", "spec", "outcome"),
    [
        ((1024, 1024), {"takes": ("size",)}, (1024, 1024)),
        ((1024, 1024), {"takes": ("size",), "sizes": ("1024x1024",)}, (1024, 1024)),
        ((1025, 1024), {"takes": ("size",), "sizes": ("1024x1024",)}, "size"),
        ((1024, 1536), {"takes": ("size",), "sizes": ("1536x1024",)}, "size"),
        ((2048, 1), {"takes": ("size",), "max_side": 2048}, (2048, 1)),
        ((2049, 1), {"takes": ("size",), "max_side": 2048}, "size"),
        ((1, 2049), {"takes": ("size",), "max_side": 2048}, "size"),
        ((64, 64), {}, "size"),
        ((64, 64), {"aspect_ratios": ("1:1",), "takes": ("aspect_ratio",)}, "size"),
    ],
)
@pytest.mark.parametrize("kind", ["image", "image_edit", "video"])
def test_sizes_are_bounded(kind, size, spec, outcome):
    """A size goes through where it is taken and listed, and is refused elsewhere."""
    said = {"width": size[0], "height": size[1]}
    if outcome == "size":
        assert refused(kind, said, **spec) == "size"
    else:
        found = fitted(kind, said, **spec).request
        assert (found.width, found.height) == outcome


def test_a_size_needs_no_step():
    """Where a size is asked for, no resolution is filled in beside it."""
    found = fitted("image", {"width": 64, "height": 64}, takes=("size",), resolutions=("1K",)).request
    assert (found.width, found.resolution) == (64, None)


STEPS = {
    "takes": ("resolution", "aspect_ratio"),
    "resolutions": ("480p", "720p"),
    "pixels": {"480p": "832x480", "720p": "1280x720"},
    "aspect_ratios": ("16:9", "9:16"),
}


@pytest.mark.parametrize(
    ("said", "step", "ratio"),
    [
        ({"width": 832, "height": 480}, "480p", None),
        ({"width": 1280, "height": 720}, "720p", None),
        ({"width": 720, "height": 1280}, "720p", "9:16"),
        ({"width": 480, "height": 832}, "480p", "9:16"),
        ({"width": 1280, "height": 720, "resolution": "720p"}, "720p", None),
        ({"width": 1280, "height": 720, "aspect_ratio": "16:9"}, "720p", "16:9"),
    ],
)
def test_pixels_become_a_step(said, step, ratio):
    """A size that a resolution stands for becomes it; upright, with the ratio that says so, and without a note."""
    found = fitted("video", said, **STEPS)
    assert (found.request.resolution, found.request.aspect_ratio) == (step, ratio)
    assert (found.request.width, found.request.height, found.notes) == (None, None, ())


@pytest.mark.parametrize(
    ("said", "changed"),
    [
        ({"width": 1281, "height": 720}, {}),
        ({"width": 1280, "height": 720, "resolution": "480p"}, {}),
        ({"width": 720, "height": 1280, "resolution": "480p"}, {}),
        ({"width": 720, "height": 1280}, {"aspect_ratios": ("16:9",)}),
        ({"width": 720, "height": 1280}, {"aspect_ratios": ()}),
    ],
)
def test_pixels_of_no_step_are_refused(said, changed):
    """A size that no resolution stands for, or another than the one asked for, is refused."""
    assert refused("video", said, **STEPS | changed) == "size"


def test_a_size_and_another_ratio_contradict_each_other():
    """A size that is upright and a ratio that is not are not silently made one of them."""
    assert refused("video", {"width": 720, "height": 1280, "aspect_ratio": "16:9"}, **STEPS) in {
        "size",
        "aspect_ratio",
    }


def test_a_step_that_pixels_stand_for_must_be_taken():
    """A size does not smuggle in a resolution that the model does not take."""
    spec = STEPS | {"takes": ("aspect_ratio",)}
    assert refused("video", {"width": 1280, "height": 720}, **spec) in {"size", "resolution"}


@pytest.mark.parametrize(
    ("width", "height", "ratio"),
    [
        (1024, 1024, "1:1"),
        (1920, 1080, "16:9"),
        (1080, 1920, "9:16"),
        (1, 1_000, "9:16"),
        (1_500, 1_000, "4:3"),
    ],
)
def test_a_size_becomes_the_nearest_ratio_and_says_so(width, height, ratio):
    """Where the model takes ratios only, the nearest is asked for, and a note says so."""
    spec = {
        "takes": ("aspect_ratio",),
        "aspect_ratios": ("1:1", "16:9", "9:16", "4:3"),
        "nearest_ratio": True,
    }
    found = fitted("image", {"width": width, "height": height}, **spec)
    assert (found.request.aspect_ratio, found.request.width, found.request.height) == (ratio, None, None)
    (note,) = found.notes
    assert f"{width}x{height}" in note
    assert ratio in note


def test_a_ratio_beside_a_size_is_not_overruled():
    """Who asks for a size and a ratio gets no third thing."""
    spec = {"takes": ("aspect_ratio",), "aspect_ratios": ("1:1", "16:9"), "nearest_ratio": True}
    assert refused("image", {"width": 9, "height": 9, "aspect_ratio": "16:9"}, **spec) == "size"


@pytest.mark.parametrize("ratios", [("1:1",), ("2:1", "1:2"), ("21:9", "9:21", "1:1")])
def test_a_ratio_is_nearest_to_itself(ratios):
    """Each ratio is nearest to its own size, and being upright counts as much as being wide."""
    for ratio in ratios:
        across, down = map(int, ratio.split(":"))
        assert nearest_ratio(across * 100, down * 100, ratios) == ratio


@pytest.mark.parametrize("name", ["quality", "background"])
def test_auto_leaves_the_choice_to_the_model(name):
    """The word "auto" is no wish, unless the model knows it."""
    assert getattr(fitted("image", {name: "auto"}).request, name) is None
    assert refused("image", {name: "high"}) == name


def test_auto_is_handed_on_where_it_is_known():
    """A quality that the model itself calls auto goes out."""
    found = fitted("image", {"quality": "auto"}, takes=("quality",), qualities=("auto", "high"))
    assert found.request.quality == "auto"


@pytest.mark.parametrize(
    ("kind", "said", "spec", "param"),
    [
        ("image", {"n": 5}, {"most_pictures": 4}, "n"),
        ("image_edit", {"n": 2}, {}, "n"),
        ("image", {"prompt": "x" * 11}, {"most_characters": 10}, "prompt"),
        ("video", {"prompt": "x" * 11}, {"most_characters": 10}, "prompt"),
        ("speech", {"text": "x" * 11}, {"most_characters": 10}, "input"),
        ("image_edit", {"images": (SHOWN,) * 3}, {"most_inputs": 2}, "image"),
        ("image_edit", {"task": "erase"}, {"tasks": ("inpaint", "outpaint")}, "operation"),
        ("video", {}, {"needs": ("image",), "takes": ("image",)}, "image"),
        ("transcription", {"duration_s": 60.5}, {"most_seconds": 60}, "file"),
    ],
)
def test_too_much_is_refused(kind, said, spec, param):
    """Amounts beyond what the model makes or takes are refused by their names."""
    assert refused(kind, said, **spec) == param


@pytest.mark.parametrize(
    ("kind", "said", "spec"),
    [
        ("image", {"n": 4}, {"most_pictures": 4}),
        ("image", {"prompt": "x" * 10}, {"most_characters": 10}),
        ("speech", {"text": "x" * 10}, {"most_characters": 10}),
        ("image_edit", {"images": (SHOWN,) * 2}, {"most_inputs": 2}),
        ("image_edit", {"task": "erase"}, {"tasks": ("inpaint", "erase")}),
        ("image_edit", {"task": "erase"}, {}),
        ("video", {"image": SHOWN}, {"needs": ("image",), "takes": ("image",)}),
        ("transcription", {"duration_s": 60.0}, {"most_seconds": 60}),
        ("transcription", {"duration_s": None}, {"most_seconds": 60}),
    ],
)
def test_just_enough_is_taken(kind, said, spec):
    """Amounts at the bound go through unchanged."""
    assert fitted(kind, said, **spec).request == structs.replace(PLAIN[kind], **said)


def media_models():
    """Yield every model of the catalog with the kinds of media requests that it takes."""
    for entry in load_catalog().providers.values():
        for model in dict.fromkeys(map(id, entry.models.values())):
            found = next(each for each in entry.models.values() if id(each) == model)
            for operation in found.operations:
                if operation in PLAIN:
                    yield pytest.param(found, operation, id=f"{found.provider}/{found.name}-{operation}")


MODELS = tuple(media_models())


@pytest.mark.parametrize(("model", "operation"), MODELS)
def test_every_model_takes_the_least_request(model, operation):
    """A request with nothing but what must be said fits every model of the catalog, and stays what it was."""
    request, spec = PLAIN[operation], model.media
    if spec is not None and "image" in spec.needs:
        request = structs.replace(request, image=SHOWN)
    if spec is not None and spec.tasks and operation == "image_edit":
        request = structs.replace(request, task=spec.tasks[0])
    found = fit(request, model)
    assert found.notes == ()
    changed = {
        name for name in request.__struct_fields__ if getattr(found.request, name) != getattr(request, name)
    }
    assert changed <= {"resolution", "duration_s", "voice"}


@pytest.mark.parametrize(("model", "operation"), MODELS)
def test_what_the_catalog_lists_can_be_asked_for(model, operation):
    """Every value that a model's entry lists fits, where the entry says that it is taken."""
    spec = model.media
    if spec is None:
        assert fit(PLAIN[operation], model).request is PLAIN[operation]
        return
    least = structs.replace(PLAIN[operation], **({"image": SHOWN} if "image" in spec.needs else {}))
    if spec.tasks and operation == "image_edit":
        least = structs.replace(least, task=spec.tasks[0])
    listed = {
        "aspect_ratio": spec.aspect_ratios, "resolution": spec.resolutions, "quality": spec.qualities,
        "duration_s": spec.durations_s, "format": spec.formats, "voice": spec.voices, "emotion": spec.emotions,
        "sample_rate": spec.sample_rates,
    }  # fmt: skip
    for name, values in listed.items():
        if name in spec.takes and name in SAID[operation]:
            for value in values:
                assert getattr(fit(structs.replace(least, **{name: value}), model).request, name) == value
    for size in (*spec.sizes, *spec.pixels.values()):
        width, height = map(int, size.split("x"))
        if "size" in spec.takes or size in spec.pixels.values():
            assert fit(structs.replace(least, width=width, height=height), model).notes == ()
