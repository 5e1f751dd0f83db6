"""Azure OpenAI: the OpenAI dialect at one address per deployment, dated API or v1 API."""

from urllib.parse import quote

from llm_gate.dialects.openai_batches_outbound import OpenAIBatches
from llm_gate.dialects.openai_either import OpenAIEither
from llm_gate.dialects.openai_embeddings import OpenAIEmbedding
from llm_gate.dialects.openai_errors import decode_error
from llm_gate.dialects.openai_fine_tuning import OpenAIFineTuning
from llm_gate.dialects.openai_images import OpenAIImageEdits, OpenAIImages
from llm_gate.dialects.openai_speech import OpenAISpeech
from llm_gate.dialects.openai_transcriptions import OpenAITranscriptions
from llm_gate.domain.provider import Provider, Target

_V1 = "v1"


def _version(target: Target) -> str:
    return target.model.api_version or target.deployment.api_version or _V1


def _root(target: Target) -> str:
    return target.deployment.base_url.removesuffix("/openai/v1").removesuffix("/openai")


def resource_address(target: Target, path: str) -> str:
    """Return the URL of what belongs to no deployment: files, batches, trainings."""
    version = _version(target)
    if version == _V1:
        return f"{_root(target)}/openai/v1/{path}"
    return f"{_root(target)}/openai/{path}?api-version={quote(version, safe='')}"


def batch_endpoint(kind: str) -> str:
    """Return a kind of call as it is written in the files of batches: only Responses with a version."""
    return f"/v1/{kind}" if kind == "responses" else f"/{kind}"


def trained_model(target: Target) -> str:
    """Return the model that is trained: by its own name, whatever its deployment is called."""
    return target.model.name


def address(target: Target, path: str) -> str:
    """Return the URL of an operation: under the deployment's name, or under the v1 API, which has no date.

    The version is the model's own, else the deployment's; "v1" selects the v1 API, where the model field
    of the body names the deployment. So it does for Responses under a dated version.
    """
    root, version = _root(target), _version(target)
    if version == _V1 or path == "responses":
        return resource_address(target, path)
    return f"{root}/openai/deployments/{quote(target.wire_model, safe='')}/{path}?api-version={quote(version, safe='')}"


provider = Provider(
    dialect="openai",
    apis=OpenAIEither.apis,
    decode_error=decode_error,
    chat=OpenAIEither(address),
    embedding=OpenAIEmbedding(address),
    media={
        "image": OpenAIImages(address),
        "image_edit": OpenAIImageEdits(address),
        "speech": OpenAISpeech(address),
        "transcription": OpenAITranscriptions(address),
    },
    voice=OpenAISpeech(address),
    tuning=OpenAIFineTuning(resource_address, base=trained_model),
    batches=OpenAIBatches(resource_address, batch_endpoint),
)
