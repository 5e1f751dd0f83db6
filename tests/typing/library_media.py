"""What the library's types promise of media, for a type checker to read; nothing here runs."""

from decimal import Decimal
from pathlib import Path
from typing import Any, assert_type

from llm_gate import (
    AudioGenerationResult,
    BlockingLLMGate,
    FaceSwapOptions,
    FaceSwapProvider,
    ImageEditOptions,
    ImageEditProvider,
    ImageGenerationOptions,
    ImageGenerationProvider,
    ImageGenerationResult,
    LLMGate,
    TranscriptionResult,
    VideoGenerationOptions,
    VideoGenerationProvider,
    VideoGenerationResult,
)
from llm_gate.client.contracts import ProgressCallback


def told(percent: float, message: str) -> None:
    assert percent >= 0, message


async def asynchronous(gate: LLMGate) -> None:
    assert_type(await gate.image("Sea", user_id="ann", size="64x64", seed=1), ImageGenerationResult)
    assert_type(await gate.images("Sea", user_id="ann", n=2), list[ImageGenerationResult])
    assert_type(await gate.edit_image(b"", "Fog", user_id="ann", mask=Path("m")), ImageGenerationResult)
    assert_type(await gate.edit_image([b"", Path("a")], user_id="ann"), ImageGenerationResult)
    assert_type(await gate.swap_face(b"", b"", user_id="ann", target_gender="male"), ImageGenerationResult)
    assert_type(await gate.speech("Hi", user_id="ann", speakers={"A": "v"}), AudioGenerationResult)
    assert_type(await gate.transcribe(b"", user_id="ann", timestamps=["word"]), TranscriptionResult)
    film = await gate.video("Sea", user_id="ann", duration=5, progress_callback=told, timeout_s=5)
    assert_type(film, VideoGenerationResult)
    assert_type(await gate.resume_video("j", user_id="ann"), VideoGenerationResult)
    assert_type(gate.calculate_cost("m", "720p", 5), float | None)
    gate.image("Sea")  # type: ignore[call-arg,unused-coroutine]
    gate.image("Sea", user_id="ann", sise="1x1")  # type: ignore[call-arg,unused-coroutine]
    gate.image("Sea", user_id="ann", steps="5")  # type: ignore[arg-type,unused-coroutine]
    gate.edit_image(5, "Fog", user_id="ann")  # type: ignore[arg-type,unused-coroutine]
    gate.edit_image(b"", user_id="ann", operation="paint")  # type: ignore[arg-type,unused-coroutine]
    gate.video("Sea", user_id="ann", progress_callback=print, duration=5.5)  # type: ignore[arg-type,unused-coroutine]


def blocking(gate: BlockingLLMGate) -> None:
    assert_type(gate.image("Sea", user_id="ann", size="64x64"), ImageGenerationResult)
    assert_type(gate.images("Sea", user_id="ann", n=2), list[ImageGenerationResult])
    assert_type(gate.video(VideoGenerationOptions(prompt="Sea"), user_id="ann"), VideoGenerationResult)
    assert_type(gate.speech("Hi", user_id="ann"), AudioGenerationResult)
    assert_type(gate.transcribe(b"", user_id="ann").text, str)
    assert_type(gate.calculate_cost("m", duration=2.5), float | None)
    gate.register_media_provider("mine", Own(), prices={"images": "0.04", "seconds": Decimal("0.1")})
    gate.register_media_provider("mine", object())  # type: ignore[arg-type]
    gate.register_media_provider("mine", Own(), prices={"films": "1"})  # type: ignore[dict-item]
    gate.image("Sea", user_id="ann", sise="1x1")  # type: ignore[call-arg]
    gate.image("Sea")  # type: ignore[call-arg]


def values() -> None:
    options = ImageGenerationOptions(prompt="Sea")
    assert_type(options.width, int)
    assert_type(options.extra, dict[str, Any] | None)
    assert_type(VideoGenerationOptions(prompt="Sea").duration, int)
    assert_type(VideoGenerationOptions(prompt="Sea").resolution, str)
    assert_type(FaceSwapOptions(base_image_base64="", face_image_base64="").to_dict(), dict[str, Any])
    ImageGenerationOptions(prompt="Sea", width="1")  # type: ignore[arg-type]
    ImageEditOptions(image_base64="")  # type: ignore[call-arg]


class Own:
    def generate(self, options: ImageGenerationOptions) -> ImageGenerationResult:
        return ImageGenerationResult(
            image_bytes=b"", width=options.width, height=options.height, provider="own", model="own"
        )

    def edit(self, options: ImageEditOptions) -> ImageGenerationResult:
        return self.generate(ImageGenerationOptions(prompt=options.prompt))

    def swap_face(self, options: FaceSwapOptions) -> ImageGenerationResult:
        return self.generate(ImageGenerationOptions(prompt=options.base_image_base64))

    async def generate_video(
        self, options: VideoGenerationOptions, progress_callback: ProgressCallback | None = None
    ) -> VideoGenerationResult:
        if progress_callback is not None:
            progress_callback(50, "half")
        return VideoGenerationResult(
            video_bytes=b"",
            prompt=options.prompt,
            duration=float(options.duration),
            model_name="own",
            cost=0.0,
            provider="own",
            resolution=options.resolution,
            width=1280,
            height=720,
            metadata={},
        )


class Half:
    def generate(self, options: str) -> ImageGenerationResult:
        raise NotImplementedError(options)


def protocols() -> tuple[object, ...]:
    pictures: ImageGenerationProvider = Own()
    edits: ImageEditProvider = Own()
    faces: FaceSwapProvider = Own()
    films: VideoGenerationProvider = Own()
    wrong: ImageGenerationProvider = Half()  # type: ignore[assignment]
    return pictures, edits, faces, films, wrong
