"""The OpenAI dialect as one value: what a provider that speaks it can do."""

from llm_gate.dialects.openai_batches_outbound import OpenAIBatches
from llm_gate.dialects.openai_counting import OpenAICount
from llm_gate.dialects.openai_either import OpenAIEither
from llm_gate.dialects.openai_embeddings import OpenAIEmbedding
from llm_gate.dialects.openai_errors import decode_error
from llm_gate.dialects.openai_fine_tuning import OpenAIFineTuning
from llm_gate.dialects.openai_images import OpenAIImageEdits, OpenAIImages
from llm_gate.dialects.openai_speech import OpenAISpeech
from llm_gate.dialects.openai_transcriptions import OpenAITranscriptions
from llm_gate.dialects.openai_videos import OpenAIVideos
from llm_gate.domain.provider import Provider, Target


def address(target: Target, path: str) -> str:
    """Return the URL of an operation; the deployment's address ends with the version segment."""
    return f"{target.deployment.base_url}/{path}"


provider = Provider(
    dialect="openai",
    apis=OpenAIEither.apis,
    decode_error=decode_error,
    chat=OpenAIEither(address),
    embedding=OpenAIEmbedding(address),
    count=OpenAICount(address),
    media={
        "image": OpenAIImages(address),
        "image_edit": OpenAIImageEdits(address),
        "speech": OpenAISpeech(address),
        "transcription": OpenAITranscriptions(address),
    },
    voice=OpenAISpeech(address),
    jobs={"video": OpenAIVideos(address)},
    tuning=OpenAIFineTuning(address),
    batches=OpenAIBatches(address),
)
