"""Fine-tuning in the native wire format: how a training is asked for; it is shown as every job is."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from llm_gate.dialects.native import model_name, name_faults
from llm_gate.dialects.native_faults import read_whole
from llm_gate.dialects.native_wire import Body, Name, ProviderSelector
from llm_gate.dialects.openai_fine_tuning_inbound import check_metadata, check_options
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.fine_tuning import FineTuneRequest, Method


class FineTuningBody(Body, frozen=True, kw_only=True):
    """The body of a request for a tuned model. Files are named by the ids that `/v1/files` gave them.

    `options` is what the method takes beside hyperparameters, such as a grader. `webhook` is told when the job has
    ended.
    """

    provider: ProviderSelector | None = None
    training_file: Name
    validation_file: Name | None = None
    suffix: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    seed: Annotated[int, Meta(ge=0, le=2_147_483_647)] | None = None
    method: Method = "supervised"
    hyperparameters: dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    webhook: Annotated[str, Meta(pattern=r"^https?://", max_length=2_000)] | None = None


_decoder = msgspec.json.Decoder(FineTuningBody)


def decode_fine_tuning(body: bytes) -> tuple[FineTuneRequest, str | None]:
    """Read a request for a tuned model, and the address that is told of its end.

    Raises:
        InvalidRequest: it is malformed; `faults` holds everything that is wrong.
    """
    parsed = read_whole(body, _decoder, FineTuningBody)
    faults = name_faults(parsed.provider)
    if faults:
        raise InvalidRequest("the request is malformed", param=faults[0].path, faults=faults)
    options = dict(parsed.options or {})
    if "hyperparameters" in options:
        raise InvalidRequest("options: hyperparameters stand beside it", param="options")
    if parsed.hyperparameters:
        options["hyperparameters"] = parsed.hyperparameters
    check_options(options, "")
    check_metadata(parsed.metadata or {})
    request = FineTuneRequest(
        model=model_name(parsed.provider),
        training_file=parsed.training_file,
        validation_file=parsed.validation_file,
        suffix=parsed.suffix,
        seed=parsed.seed,
        method=parsed.method,
        options=options,
        metadata=parsed.metadata or {},
    )
    return request, parsed.webhook
