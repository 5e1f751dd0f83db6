"""WaveSpeed: one address per model, every call a task, and the answers in an envelope."""

from llm_gate.domain.provider import Provider
from llm_gate.providers.wavespeed.answers import decode_error
from llm_gate.providers.wavespeed.pictures import FaceSwapCodec, ImageCodec, ImageEditCodec
from llm_gate.providers.wavespeed.speech import SpeechCodec
from llm_gate.providers.wavespeed.videos import VideoJobs

provider = Provider(
    dialect="wavespeed",
    decode_error=decode_error,
    media={
        "image": ImageCodec(),
        "image_edit": ImageEditCodec(),
        "face_swap": FaceSwapCodec(),
        "speech": SpeechCodec(),
    },
    jobs={"video": VideoJobs()},
)
