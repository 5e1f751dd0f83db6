"""`LLMFactory` as its document describes it: the document's own examples in programs, over fake vendors."""

import json
import re

import pytest

from support.office import command
from support.programs import claude_refuses, claude_says, gemini_refuses, gemini_says, run_program
from support.upstream import Answer, fake_upstream

START = """
import json, logging, sys
logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
for name in ("alembic", "llm_gate.provider"):
    logging.getLogger(name).setLevel(logging.CRITICAL)
from dataclasses import asdict
from llm_gate import LLMFactory, LLMProvider, LLMResponse

def show(thing):
    print(json.dumps(asdict(thing) if isinstance(thing, LLMResponse) else thing), flush=True)
"""

# The document's class, word for word but for the imports and the client it asks.
OPENAI_PROVIDER = """
class openai:
    api_key = None
    asked = []
    class ChatCompletion:
        @staticmethod
        def create(**given):
            openai.asked.append(given)
            if "fail" in given["messages"][0]["content"]:
                raise RuntimeError("You exceeded your current quota, key " + openai.api_key)
            from types import SimpleNamespace as Some
            return Some(choices=[Some(message=Some(content="Hello from GPT-4"))])

class OpenAIProvider(LLMProvider):
    def __init__(self, api_key: str):
        self.api_key = api_key
        openai.api_key = api_key

    def generate_content(self, prompt: str, temperature: float = 0.0,
                        max_tokens: int = 1024) -> LLMResponse:
        try:
            response = openai.ChatCompletion.create(
                model="gpt-4",
                messages=[{"role": "user", "content": prompt}],
                temperature=temperature,
                max_tokens=max_tokens
            )

            content = response.choices[0].message.content

            return LLMResponse(
                success=True,
                content=content,
                provider_name=self.get_provider_name(),
                metadata={"model": "gpt-4"}
            )
        except Exception as e:
            return LLMResponse(
                success=False,
                content="",
                provider_name=self.get_provider_name(),
                error=str(e)
            )

    def get_provider_name(self) -> str:
        return "openai"

    def is_available(self) -> bool:
        return bool(self.api_key)
"""


@pytest.fixture(scope="module")
def gemini():
    with fake_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def claude():
    with fake_upstream() as running:
        yield running


@pytest.fixture
def run(tmp_path, gemini, claude):
    """Run a program beside an .env file such as the document's."""
    (tmp_path / ".env").write_text(
        "LLM_PRIMARY_PROVIDER=gemini\nGOOGLE_API_KEY=your_gemini_key_here\n"
        "LLM_FALLBACK_PROVIDERS=claude\nANTHROPIC_API_KEY=your_claude_key_here\n"
    )

    def go(code, **environment):
        addresses = {
            "LLM_GATE_GEMINI_BASE_URL": f"{gemini.url}/v1beta",
            "LLM_GATE_ANTHROPIC_BASE_URL": claude.url,
        }
        return run_program(tmp_path, START + code, {**addresses, "LLM_GATE_NO_WAITING": "1", **environment})

    go.folder = tmp_path
    return go


QUOTA = gemini_refuses(429, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric")
DOWN = gemini_refuses(503, "UNAVAILABLE", "The model is overloaded.")


# --- The document's usage examples


def test_basic_usage(run, gemini):
    """The basic example: the primary provider answers, with the settings that were given, and the log says so."""
    gemini.will(gemini_says("invoice"))
    done = run(
        """
factory = LLMFactory()

# Generate content
response = factory.generate_content(
    prompt="Classify this email: ...",
    temperature=0.0,
    max_tokens=512
)

if response.success:
    print(json.dumps(f"Result: {response.content}"))
    print(json.dumps(f"Provider: {response.provider_name}"))
else:
    print(json.dumps(f"Error: {response.error}"))
show(response)
"""
    )

    result, provider, response = done.printed
    assert (result, provider) == ("Result: invoice", "Provider: gemini")
    assert response["error"] is None
    assert response["metadata"]["attempts"] == 1
    assert response["metadata"]["switched_from"] is None
    assert response["metadata"]["usage"]["input_tokens"] == 5
    assert response["metadata"]["model"].startswith("gemini-")
    body = gemini.only.json
    assert body["contents"][0]["parts"] == [{"text": "Classify this email: ..."}]
    assert body["generationConfig"] == {"temperature": 0.0, "maxOutputTokens": 512}
    assert gemini.only.headers["x-goog-api-key"] == "your_gemini_key_here"
    assert done.told == [
        "INFO: LLMFactory initialized with primary provider: gemini",
        "INFO: Using gemini for content generation",
    ]


def test_automatic_fallback_and_status(run, gemini, claude):
    """A quota error switches at once, without a repeat, and the status says who answered last."""
    gemini.will(QUOTA)
    claude.will(claude_says("from Claude"))
    done = run(
        """
factory = LLMFactory()
show(factory.get_provider_status())
response = factory.generate_content("prompt")
show(response)
show(factory.get_provider_status())
show(LLMFactory().get_provider_status())
"""
    )

    before, response, after, another = done.printed
    both = {
        "primary": {"name": "gemini", "available": True},
        "fallbacks": [{"name": "claude", "available": True}],
    }
    assert before == {**both, "current": "gemini"}
    assert after == {**both, "current": "claude"}
    assert another["current"] == "gemini"
    assert (response["content"], response["provider_name"]) == ("from Claude", "claude")
    assert response["metadata"]["switched_from"] == "gemini"
    assert response["metadata"]["attempts"] == 2
    assert (len(gemini.seen), len(claude.seen)) == (1, 1)
    assert "WARNING: gemini quota exceeded, switching to claude" in done.told
    assert done.told[-2:] == [
        "INFO: Using claude for content generation",
        "INFO: LLMFactory initialized with primary provider: gemini",
    ]


def test_programmatic_configuration(run, gemini, claude):
    """The constructor's order goes before the environment's."""
    gemini.will(gemini_says("no"))
    claude.will(claude_says("yes"))
    done = run(
        """
factory = LLMFactory(
    primary_provider="claude",
    fallback_providers=["gemini"]
)
show(factory.generate_content("Hello"))
"""
    )

    assert done.printed[0]["content"] == "yes"
    assert gemini.seen == []


def test_transient_errors_are_repeated(run, gemini, claude):
    """What passes is tried again at the same provider, as often as the caller says, before another is asked."""
    gemini.will(DOWN, DOWN, gemini_says("third time lucky"))
    claude.will(claude_says("no"))
    done = run("show(LLMFactory().generate_content('Hello', max_retries=3))")

    assert done.printed[0]["content"] == "third time lucky"
    assert done.printed[0]["metadata"]["attempts"] == 3
    assert claude.seen == []


def test_pauses_are_as_documented(run, gemini, claude):
    """The pause before the first repeat is the caller's `retry_delay`, and never shorter."""
    gemini.will(DOWN, gemini_says("Hi"))
    done = run(
        """
import time
began = time.monotonic()
response = LLMFactory().generate_content('Hello', retry_delay=0.5)
show([response.success, time.monotonic() - began])
""",
        LLM_GATE_NO_WAITING="0",
    )

    success, took_s = done.printed[0]
    assert success
    assert took_s >= 0.5


def test_all_providers_failed(run, gemini, claude):
    """Where nobody answers, an error response tells each one's reason, and the log has them in a line."""
    gemini.will(QUOTA)
    claude.will(claude_refuses(504, "timeout_error"))
    done = run("show(LLMFactory().generate_content('Hello', max_retries=2))")

    (response,) = done.printed
    assert (response["success"], response["content"]) == (False, "")
    assert response["error"] == "gemini: quota exceeded; claude: timeout"
    assert done.told[-1] == "ERROR: All LLM providers failed: [gemini: quota exceeded, claude: timeout]"
    assert (len(gemini.seen), len(claude.seen)) == (1, 2)


def test_a_refused_key_is_not_repeated(run, gemini, claude):
    """A wrong key moves on at once: no repeat mends it."""
    gemini.will(gemini_refuses(403, "PERMISSION_DENIED", "API key not valid"))
    claude.will(claude_says("Hi"))
    done = run("show(LLMFactory().generate_content('Hello'))")

    assert done.printed[0]["provider_name"] == "claude"
    assert len(gemini.seen) == 1
    assert "WARNING: gemini key refused, switching to claude" in done.told


def test_an_invalid_request_ends_it(run, gemini, claude):
    """What is wrong with the request itself is neither repeated nor taken to another provider."""
    gemini.will(gemini_refuses(400, "INVALID_ARGUMENT", "contents is not specified"))
    claude.will(claude_says("no"))
    done = run("show(LLMFactory().generate_content('Hello', temperature=0.0))")

    (response,) = done.printed
    assert not response["success"]
    assert response["error"].startswith("gemini: ")
    assert (len(gemini.seen), claude.seen) == (1, [])
    assert done.told[-1].startswith("ERROR: LLM generation failed: gemini: ")


def test_a_usual_setting_that_a_model_refuses_is_left_out(run, gemini, claude):
    """A temperature that nobody asked for is left out where a model takes none, and the primary is not asked again."""
    gemini.will(QUOTA)
    claude.will(
        claude_refuses(400, "invalid_request_error", "temperature: this model takes none"), claude_says("Hi")
    )
    done = run("show(LLMFactory().generate_content('Hello'))")

    assert done.printed[0]["content"] == "Hi"
    assert ["temperature" in seen.json for seen in claude.seen] == [True, False]
    assert len(gemini.seen) == 1


def test_a_filtered_answer_is_no_success(run, gemini, claude):
    """An answer that the vendor withheld is a failure, and nobody else is asked for it."""
    filtered = {"content": {"parts": [], "role": "model"}, "finishReason": "SAFETY", "index": 0}
    usage = {"promptTokenCount": 5, "totalTokenCount": 5}
    gemini.will(Answer.json({"candidates": [filtered], "usageMetadata": usage}))
    claude.will(claude_says("no"))
    done = run("show(LLMFactory().generate_content('Hello'))")

    (response,) = done.printed
    assert (response["success"], response["content"]) == (False, "")
    assert response["error"] == "gemini: content filtered"
    assert claude.seen == []


def test_the_usual_length_is_within_the_plan(run, gemini):
    """The length that nobody asked for is no more than the user's plan allows."""
    (run.folder / "llm-gate.toml").write_text(
        '[plans]\ndefault = "short"\n[plans.custom.short]\nmax_output_tokens = 500\n'
    )
    gemini.will(gemini_says("Hi"))
    done = run(
        """
show(LLMFactory().generate_content("Hello"))
show(LLMFactory().generate_content("Hello", max_tokens=501))
"""
    )

    first, second = done.printed
    assert first["success"]
    assert gemini.only.json["generationConfig"]["maxOutputTokens"] == 500
    assert not second["success"]
    assert "more than the plan" in second["error"]


def test_the_environment_gives_the_usual_settings(run, gemini):
    """LLM_TEMPERATURE and the others stand in for what a call does not say."""
    gemini.will(DOWN)
    done = run(
        "show(LLMFactory(fallback_providers=[]).generate_content('Hello'))",
        LLM_TEMPERATURE="0.3",
        LLM_MAX_TOKENS="99",
        LLM_RETRY_MAX_ATTEMPTS="2",
        LLM_RETRY_DELAY_SECONDS="0",
    )

    assert done.printed[0]["success"] is False
    assert gemini.seen[0].json["generationConfig"] == {"temperature": 0.3, "maxOutputTokens": 99}
    assert len(gemini.seen) == 2


@pytest.mark.parametrize("value", ["0", "-1", "many", "1e400"])
def test_settings_of_the_environment_are_checked(run, value):
    """A number that makes no sense is told by the variable's name."""
    done = run(
        """
try:
    LLMFactory()
except ValueError as error:
    show(str(error))
""",
        LLM_RETRY_MAX_ATTEMPTS=value,
    )

    assert done.printed[0].startswith("LLM_RETRY_MAX_ATTEMPTS: ")


def test_without_configuration_gemini_is_primary(tmp_path):
    """Without any key nobody can be asked, and the answer says so instead of raising."""
    done = run_program(tmp_path, START + "show(LLMFactory().generate_content('Hello'))")

    (response,) = done.printed
    assert (response["success"], response["provider_name"]) == (False, "gemini")
    assert response["error"] == "gemini: not available"
    assert done.told[-1] == "ERROR: All LLM providers failed: [gemini: not available]"


def test_unknown_names_are_skipped_with_a_warning(run, gemini):
    """A name is looked up when a prompt comes; one that nobody knows is left out and told of."""
    gemini.will(gemini_says("Hi"))
    done = run("show(LLMFactory('nobody', ['Gemini', 'gemini']).generate_content('Hello'))")

    assert done.printed[0]["provider_name"] == "gemini"
    assert "WARNING: Unknown LLM provider 'nobody', skipped" in done.told
    assert len(gemini.seen) == 1


def test_each_provider_is_asked_in_its_own_words(run, gemini, claude):
    """`prompt_format` turns the prompt into what one provider is to get; the others get it as it is."""
    gemini.will(QUOTA)
    claude.will(claude_says("Hi"))
    run(
        """
factory = LLMFactory(prompt_format={"claude": lambda prompt: f"<task>{prompt}</task>"})
show(factory.generate_content("Hello"))
"""
    )

    assert gemini.only.json["contents"][0]["parts"] == [{"text": "Hello"}]
    said = claude.only.json["messages"][0]["content"]
    assert "<task>Hello</task>" in json.dumps(said)


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        ("generate_content(b'bytes')", "TypeError"),
        ("generate_content('')", "ValueError"),
        ("generate_content('\\ud800')", "UnicodeEncodeError"),
        ("generate_content('Hello', max_retries=0)", "ValueError"),
        ("generate_content('Hello', retry_delay=float('nan'))", "ValueError"),
    ],
)
def test_mistakes_of_the_program_are_raised(run, gemini, call, kind):
    """What no provider is to blame for is an exception."""
    gemini.will(gemini_says("Hi"))
    done = run(
        f"""
try:
    LLMFactory().{call}
except Exception as error:
    show(type(error).__name__)
"""
    )

    assert done.printed == [kind]
    assert gemini.seen == []


# --- A provider of one's own


def test_adding_a_provider_of_ones_own(run, gemini, claude):
    """The document's class, registered under a name, becomes the primary one: its key comes from the environment."""
    gemini.will(gemini_says("no"))
    done = run(
        OPENAI_PROVIDER
        + """
factory = LLMFactory()
factory.register_provider("openai", OpenAIProvider)

# Set as primary
factory = LLMFactory(primary_provider="openai")
show(factory.generate_content("Hello", temperature=0.25, max_tokens=77))
show([openai.api_key, openai.asked])
show(factory.get_provider_status())
""",
        OPENAI_API_KEY="your_openai_key",
    )

    response, (key, asked), status = done.printed
    assert (response["content"], response["provider_name"]) == ("Hello from GPT-4", "openai")
    assert response["metadata"]["model"] == "gpt-4"
    assert response["metadata"]["usage"]["source"] == "estimated"
    assert key == "your_openai_key"
    assert asked == [
        {
            "model": "gpt-4",
            "messages": [{"role": "user", "content": "Hello"}],
            "temperature": 0.25,
            "max_tokens": 77,
        }
    ]
    assert status["primary"] == {"name": "openai", "available": True}
    assert "INFO: Using openai for content generation" in done.told


def test_a_returned_failure_counts_like_a_raised_one(run, gemini):
    """The document's class catches its exceptions; what it returns instead leads on to the fallback all the same."""
    gemini.will(gemini_says("from Gemini"))
    done = run(
        OPENAI_PROVIDER
        + """
LLMFactory.register_provider("openai", OpenAIProvider)
factory = LLMFactory(
    primary_provider="openai",
    fallback_providers=["gemini", "claude"]
)
show(factory.generate_content("please fail"))
show(len(openai.asked))
""",
        OPENAI_API_KEY="sk-proj-abcdefghijklmnop",
    )

    response, asked = done.printed
    assert (response["content"], response["provider_name"]) == ("from Gemini", "gemini")
    assert response["metadata"]["switched_from"] == "openai"
    assert asked == 1
    assert "WARNING: openai quota exceeded, switching to gemini" in done.told
    assert "abcdefghijklmnop" not in json.dumps([done.printed, done.told])


def test_a_class_without_a_key_is_left_out(run, gemini):
    """Whoever says that it is not available is not asked."""
    gemini.will(gemini_says("Hi"))
    done = run(
        OPENAI_PROVIDER
        + """
LLMFactory.register_provider("openai", OpenAIProvider)
factory = LLMFactory("openai", ["gemini"])
show(factory.generate_content("Hello"))
show(factory.get_provider_status()["primary"])
"""
    )

    assert done.printed[0]["provider_name"] == "gemini"
    assert done.printed[1] == {"name": "openai", "available": False}


def test_own_classes_are_built_as_they_want(run):
    """A constructor that requires something gets the key, by position or by name; any other gets nothing."""
    done = run(
        """
class Own(LLMProvider):
    def generate_content(self, prompt, temperature=0.0, max_tokens=1024):
        return LLMResponse(True, repr(getattr(self, "key", None)), self.get_provider_name())
    def get_provider_name(self): return "own"
    def is_available(self): return True
class WithKey(Own):
    def __init__(self, key): self.key = key
class Named(Own):
    def __init__(self, *, token): self.key = token
class Optional(Own):
    def __init__(self, key="mine"): self.key = key
class Broken(Own):
    def __init__(self, key): raise RuntimeError(f"no {key}")

factory = LLMFactory("with-key", [])
for name, kind in [("Plain", Own), ("with-key", WithKey), ("named", Named), ("opt", Optional), ("broken", Broken)]:
    factory.register_provider(name, kind)
    show(LLMFactory(name, [], wait=False).generate_content("Hello").content)
for bad in (str, Own(), "text", None):
    try:
        factory.register_provider("bad", bad)
    except ValueError as error:
        show(str(error))
show(sorted(LLMFactory.PROVIDER_REGISTRY))
""",
        WITH_KEY_API_KEY="k-1",
        NAMED_API_KEY="k-2",
        BROKEN_API_KEY="a-secret-of-mine",
    )

    *answers, bad1, bad2, bad3, bad4, registry = done.printed
    assert answers == ["None", "'k-1'", "'k-2'", "'mine'", ""]
    assert {bad1, bad2, bad3, bad4} == {"Must inherit from LLMProvider"}
    builtin = ["claude", "cohere", "gemini", "ollama", "openai"]
    assert registry == sorted([*builtin, "plain", "with-key", "named", "opt", "broken"])
    assert any(re.search(r"broken cannot be made, skipped: RuntimeError", line) for line in done.told)
    assert "a-secret-of-mine" not in "\n".join(done.told)


def test_how_failures_of_own_classes_are_understood(run):
    """A status goes before the kind of an exception, and its kind before its words."""
    done = run(
        """
class Failing(LLMProvider):
    how, calls = None, 0
    def generate_content(self, prompt, temperature=0.0, max_tokens=1024):
        type(self).calls += 1
        failure = self.how
        if isinstance(failure, BaseException): raise failure
        return failure
    def get_provider_name(self): return "failing"
    def is_available(self): return True

def error(name, **given):
    kind = type(name, (Exception,), given)
    return kind("something went wrong")

def returned(text, **metadata):
    return LLMResponse(False, "", "failing", error=text, metadata=metadata)

from types import SimpleNamespace as Some
for number, how in enumerate([
    error("Odd", status_code=429),
    error("Odd", code=401),
    error("Odd", response=Some(status_code=404)),
    error("BadRequestError", status_code=400),
    error("RateLimitError"),
    TimeoutError("slow"),
    ConnectionError("gone"),
    ValueError("You exceeded your quota"),
    error("Odd", status_code=500, args=("429 quota",)),
    returned("Error code: 401 - bad key"),
    returned("room 429b is taken"),
    returned("rate limit", status_code=503),
    returned(None),
    "no answer at all",
    LLMResponse(True, None, "failing"),
]):
    kind = type(f"Failing{number}", (Failing,), {"how": how, "calls": 0})
    LLMFactory.register_provider("failing", kind)
    response = LLMFactory("failing", [], wait=False).generate_content("Hello", max_retries=2)
    show([response.metadata["code"], kind.calls, response.error])
"""
    )

    assert [(code, calls) for code, calls, _ in done.printed] == [
        ("rate_limit_exceeded", 1),
        ("provider_auth_failed", 1),
        ("provider_model_not_found", 1),
        ("provider_rejected", 1),
        ("rate_limit_exceeded", 1),
        ("provider_timeout", 2),
        ("provider_unavailable", 2),
        ("rate_limit_exceeded", 1),
        ("provider_unavailable", 2),
        ("provider_auth_failed", 1),
        ("provider_unavailable", 2),
        ("provider_unavailable", 2),
        ("provider_unavailable", 2),
        ("provider_unavailable", 2),
        ("provider_unavailable", 2),
    ]
    assert done.printed[5][2] == "failing: timeout"
    assert "went wrong" not in done.printed[1][2]


def test_own_classes_may_block_and_hang(run, gemini):
    """Prompts are worked on side by side, and one that hangs keeps neither the others nor the program's end."""
    done = run(
        """
import contextvars, threading, time
who = contextvars.ContextVar("who")
class Slow(LLMProvider):
    def generate_content(self, prompt, temperature=0.0, max_tokens=1024):
        time.sleep(3600 if prompt == "hang" else 0.3)
        return LLMResponse(True, who.get(), "slow")
    def get_provider_name(self): return "slow"
    def is_available(self): return True

LLMFactory.register_provider("slow", Slow)
factory = LLMFactory("slow", [])
said = []
def ask(name):
    who.set(name)
    said.append(factory.generate_content(name).content)
threading.Thread(target=ask, args=("hang",), daemon=True).start()
threads = [threading.Thread(target=ask, args=(f"t{n}",)) for n in range(10)]
began = time.monotonic()
for thread in threads: thread.start()
for thread in threads: thread.join()
show([sorted(said), time.monotonic() - began])
"""
    )

    said, took_s = done.printed[0]
    assert said == sorted(f"t{number}" for number in range(10))
    assert took_s < 2.5


# --- The same limits and the same ledger


def test_prompts_are_counted_and_limited(tmp_path):
    """A class of one's own is limited by the user's plan and stands in the ledger; a refusal is told, not raised."""
    (tmp_path / "llm-gate.toml").write_text("[plans.custom.two.limits]\ntext_calls = 2\n")
    environment = {"OPENAI_API_KEY": "k"}

    def office(*words):
        return command(type("There", (), {"folder": tmp_path}), *words)

    run_program(tmp_path, START + "LLMFactory('sandbox').generate_content('Hello')")
    assert office("users", "subscribe", "ann", "--plan", "two", "--json").returncode == 0
    done = run_program(
        tmp_path,
        START
        + OPENAI_PROVIDER
        + """
LLMFactory.register_provider("openai", OpenAIProvider)
factory = LLMFactory("openai", ["sandbox"], user_id="ann", wait=False)
show(factory.generate_content("Hello"))
show(factory.generate_content("please fail"))
show(factory.generate_content("Hello"))
""",
        environment,
    )

    first, second, third = done.printed
    assert (first["provider_name"], second["provider_name"]) == ("openai", "sandbox")
    assert not third["success"]
    assert third["metadata"]["code"] == "quota_exceeded"
    assert third["metadata"]["limit"] == "text_calls"
    used = json.loads(office("usage", "--user", "ann", "--json").stdout)
    assert used["requests"] == 2
    assert json.loads(office("ledger", "check", "--json").stdout)["drift_nanos"] == 0


# --- The classes for vendors


def test_providers_of_vendors_alone(run, gemini):
    """A vendor's class can be used by itself, with the environment's key or one of its own."""
    gemini.will(gemini_says("Hi"))
    done = run(
        """
from llm_gate import ClaudeProvider, CohereProvider, GeminiProvider, OllamaProvider, OpenAIProvider
usual, given = GeminiProvider(), GeminiProvider("AQ.another-key-123")
for provider in (usual, given, GeminiProvider(api_key="your_gemini_key_here")):
    show([provider.is_available(), provider.get_provider_name(), provider.generate_content("Hello").content])
show([ClaudeProvider().is_available(), CohereProvider().is_available(), OpenAIProvider().is_available()])
show(CohereProvider("co-key").is_available())
response = OpenAIProvider().generate_content("Hello")
show(response)
show(repr(GeminiProvider("AQ.another-key-123").__dict__))
"""
    )

    *spoken, available, with_key, refused, shown = done.printed
    assert spoken == [[True, "gemini", "Hi"]] * 3
    keys = [seen.headers["x-goog-api-key"] for seen in gemini.seen]
    assert keys == ["your_gemini_key_here", "AQ.another-key-123", "your_gemini_key_here"]
    assert len({seen.path for seen in gemini.seen}) == 1
    assert available == [True, False, False]
    assert with_key
    assert (refused["success"], refused["error"]) == (False, "openai: not available")
    assert "another-key" not in shown


def test_a_subclass_of_a_vendors_class(run, gemini):
    """What a program changes of a vendor's class is honoured."""
    gemini.will(gemini_says("hi"))
    done = run(
        """
from llm_gate import GeminiProvider
class Loud(GeminiProvider):
    def generate_content(self, prompt, temperature=0.0, max_tokens=1024):
        response = super().generate_content(prompt, temperature, max_tokens)
        response.content = response.content.upper()
        return response
LLMFactory.register_provider("loud", Loud)
show(LLMFactory("loud", []).generate_content("Hello").content)
"""
    )

    assert done.printed == ["HI"]


def test_a_faulty_configuration_is_told(run):
    """What is wrong with the configuration is raised where a factory is made, and told where it breaks later."""
    (run.folder / "llm-gate.toml").write_text("[server]\nport = 'none'")
    done = run(
        """
import pathlib
from llm_gate import GateError
file = pathlib.Path("llm-gate.toml")
try:
    LLMFactory()
except GateError as error:
    show(error.message)
file.unlink()
factory = LLMFactory()
file.write_text("[server]\\nport = 'none'")
show(factory.generate_content("Hello"))
"""
    )

    raised, told = done.printed
    assert "server.port" in raised
    assert not told["success"]
    assert "server.port" in told["error"]
