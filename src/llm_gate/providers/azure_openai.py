"""Azure OpenAI: the OpenAI dialect at one address per deployment, dated API or v1 API."""

from urllib.parse import quote

from llm_gate.dialects.openai_either import OpenAIEither
from llm_gate.dialects.openai_embeddings import OpenAIEmbedding
from llm_gate.dialects.openai_errors import decode_error
from llm_gate.dialects.openai_images import OpenAIImageEdits, OpenAIImages
from llm_gate.dialects.openai_speech import OpenAISpeech
from llm_gate.dialects.openai_transcriptions import OpenAITranscriptions
from llm_gate.domain.provider import Provider, Target

_V1 = "v1"


def address(target: Target, path: str) -> str:
    """Return the URL of an operation: under the deployment's name, or under the v1 API, which has no date.

    The version is the model's own, else the deployment's; "v1" selects the v1 API, where the model field
    of the body names the deployment. So it does for Responses under a dated version.
    """
    root = target.deployment.base_url.removesuffix("/openai/v1").removesuffix("/openai")
    version = target.model.api_version or target.deployment.api_version or _V1
    if version == _V1:
        return f"{root}/openai/v1/{path}"
    if path == "responses":
        return f"{root}/openai/{path}?api-version={quote(version, safe='')}"
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
)
