import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gate.settings import Settings, SettingsFaults, line_of, load_settings, locate, locate_variable
from support.aliases import alias_of

EXAMPLE = """\
[server]
host = "0.0.0.0"
port = 9000
data_dir = "/var/lib/gate"
allowed_hosts = ["gate.example"]

[timeouts]
connect_s = 5

[logging]
level = "debug"
providers = { second = "warn" }

[providers.second]
dialect = "openai"
base_url = "http://127.0.0.1:9000/v1"
auth = { kind = "bearer", env = "SECOND_API_KEY" }

[[providers.second.models]]
name = "m"
prices = [ { unit = "input_tokens", per = 1_000_000, usd = "0.15" } ]

[aliases.best]
targets = ["openai/gpt-4o-mini", "second/m"]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name, text):
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def faults(environment=None, **given_):
    with pytest.raises(SettingsFaults) as caught:
        load_settings(environment or {}, **given_)
    return [(fault.path, fault.message) for fault in caught.value.faults]


def test_nothing_said_means_defaults():
    """Without files, variables or flags every setting has its documented default."""
    settings = load_settings({})

    assert settings == Settings(environment=settings.environment)
    assert (settings.server.host, settings.server.port, settings.server.workers) == ("127.0.0.1", 8080, 1)
    assert settings.server.data_dir == Path("data")
    assert settings.server.max_body_bytes == 33554432
    assert settings.timeouts.connect_s == 10.0
    assert settings.timeouts.total_s == 600.0
    assert settings.timeouts.stream_total_s == 14400.0
    assert settings.timeouts.heartbeat_s == 15.0
    assert settings.api.title == "HEIMDALL"
    assert settings.api.path == "/llm-gate"
    assert settings.logging.level == "INFO"
    assert settings.verify_tls is True
    assert settings.api_key is None
    assert settings.primary is None
    assert settings.fallbacks == ()
    assert settings.config_file is None
    assert settings.env_file is None


def test_the_file_of_the_working_directory_is_read():
    """llm-gate.toml of the working directory is read without being named, and said so."""
    write("llm-gate.toml", EXAMPLE)

    settings = load_settings({})

    assert settings.config_file == Path("llm-gate.toml")
    assert (settings.server.host, settings.server.port) == ("0.0.0.0", 9000)
    assert settings.server.data_dir == Path("/var/lib/gate")
    assert settings.server.allowed_hosts == ("gate.example",)
    assert settings.timeouts.connect_s == 5.0
    assert settings.logging.level == "DEBUG"
    assert settings.logging.providers == {"second": "WARNING"}
    assert settings.providers["second"]["models"][0]["prices"][0]["usd"] == "0.15"
    assert settings.aliases == {"best": alias_of("openai/gpt-4o-mini", "second/m")}


def test_flags_win_over_variables_and_variables_over_files():
    """The nearer to the keyboard a setting was made, the more it weighs."""
    write("llm-gate.toml", '[server]\nhost = "file"\nport = 1\nworkers = 2\ndata_dir = "file"\n')
    write(".env", "HEIMDALL_SERVER_HOST=dotenv\nHEIMDALL_SERVER_PORT=2\nLLM_GATE_DATA_DIR=dotenv\n")

    settings = load_settings(
        {"HEIMDALL_SERVER_PORT": "3", "LLM_GATE_DATA_DIR": "real"},
        env_file=Path(".env"),
        overrides={"data_dir": Path("flag"), "port": None},
    )

    assert settings.server.host == "dotenv"
    assert settings.server.port == 3
    assert settings.server.workers == 2
    assert settings.server.data_dir == Path("flag")
    assert settings.env_file == Path(".env")


def test_the_documented_variables_are_understood():
    """The variables of the documents mean what the documents say, quotes and capitals included."""
    write(
        ".env",
        'HEIMDALL_API_TITLE="GATE"\n'
        'HEIMDALL_API_DESCRIPTION="One gate"\n'
        'HEIMDALL_API_PATH="/gate/ai"\n'
        'HTTPX_CLIENT_VERIFY="False"\n'
        "LOG_LEVEL=warn\n"
        "LLM_PRIMARY_PROVIDER=Gemini\n"
        "LLM_FALLBACK_PROVIDERS= Claude , openai,,claude\n"
        "LLM_GATE_API_KEY='s3cret $HOME'\n"
        "AZURE_OPENAI_WEST_US_API_KEY=\n",
    )

    settings = load_settings({}, env_file=Path(".env"))

    assert (settings.api.title, settings.api.description, settings.api.path) == (
        "GATE",
        "One gate",
        "/gate/ai",
    )
    assert settings.verify_tls is False
    assert settings.logging.level == "WARNING"
    assert settings.primary == "gemini"
    assert settings.fallbacks == ("claude", "openai")
    assert settings.api_key is not None
    assert settings.api_key.reveal() == "s3cret $HOME"
    assert "AZURE_OPENAI_WEST_US_API_KEY" not in settings.environment


@pytest.mark.parametrize(
    ("text", "verify"),
    [("False", False), ("0", False), ("NO", False), ("off", False), ("True", True), ("1", True), ("", True)],
)
def test_tls_verification_is_a_switch(text, verify):
    """Certificates are checked unless the operator says no in one of the usual spellings."""
    assert load_settings({"HTTPX_CLIENT_VERIFY": text}).verify_tls is verify


def test_gpt_provider_goes_before_the_primary_provider():
    """GPT_PROVIDER names the provider where both variables are set; an empty one is not set."""
    assert load_settings({"GPT_PROVIDER": "HF", "LLM_PRIMARY_PROVIDER": "x"}).primary == "hf"
    assert load_settings({"GPT_PROVIDER": "", "LLM_PRIMARY_PROVIDER": "X"}).primary == "x"


def test_the_real_environment_hides_the_env_file_even_when_empty():
    """A variable emptied on the command line is unset, whatever the .env file says."""
    write(".env", "OPENAI_API_KEY=from-file\nOTHER_API_KEY=from-file\n")

    settings = load_settings({"OPENAI_API_KEY": ""}, env_file=Path(".env"))

    assert dict(settings.environment) == {"OTHER_API_KEY": "from-file"}


def test_no_env_file_means_none_is_read():
    """Unless it is asked for, a .env file of the working directory is left alone."""
    write(".env", "LOG_LEVEL=DEBUG\n")

    settings = load_settings({})

    assert settings.logging.level == "INFO"
    assert settings.env_file is None


def test_settings_never_print_a_credential():
    """The settings can be printed whole without showing what a variable holds."""
    settings = load_settings({"OPENAI_API_KEY": "sk-geheim", "LLM_GATE_API_KEY": "auch-geheim"})

    assert "geheim" not in repr(settings)
    assert settings.environment["OPENAI_API_KEY"] == "sk-geheim"


def test_every_fault_of_the_file_is_listed_with_its_line():
    """One run names every fault of the file, each with file, line and key."""
    write(
        "llm-gate.toml",
        """\
colour = "red"

[server]
port = 70000
hots = "x"

[timeouts]
connect_s = 0
idle_s = inf
total_s = nan

[logging]
level = "loud"
providers = { second = "DEBUG", third = "quiet" }
format = "xml"

[api]
path = "gate/"

[aliases.empty]
targets = []
[aliases.typo]
target = ["a/b"]
""",
    )

    assert faults() == [
        ("llm-gate.toml:1: colour", "unknown field"),
        ("llm-gate.toml:5: server.hots", "unknown field"),
        ("llm-gate.toml:4: server.port", "expected `int` <= 65535"),
        ("llm-gate.toml:8: timeouts.connect_s", "expected `float` > 0.0"),
        ("llm-gate.toml:9: timeouts.idle_s", "expected `float` <= 604800.0"),
        ("llm-gate.toml:10: timeouts.total_s", "expected `float` > 0.0"),
        ("llm-gate.toml:15: logging.format", "invalid enum value 'xml'"),
        ("llm-gate.toml:21: aliases.empty.targets", "expected `array` of length >= 1"),
        ("llm-gate.toml:23: aliases.typo.target", "unknown field"),
        ("llm-gate.toml:22: aliases.typo.targets", "required field is missing"),
        ("llm-gate.toml:13: logging.level", "expected one of CRITICAL, ERROR, WARNING, INFO, DEBUG"),
        (
            "llm-gate.toml:14: logging.providers.third",
            "expected one of CRITICAL, ERROR, WARNING, INFO, DEBUG",
        ),
        (
            "llm-gate.toml:18: api.path",
            "expected a path like /llm-gate: a slash first, none last, only plain characters",
        ),
    ]


def test_what_is_sound_is_handed_out_with_the_faults():
    """Faults carry the settings without the faulty parts, so that other layers can add their own faults."""
    write(
        "llm-gate.toml",
        """\
[server]
host = "gate"
port = "x"
[logging]
providers = { second = "loud" }
[timeouts]
total_s = 5
connect_s = 0
[providers.second]
dialect = 7
[aliases.best]
targets = ["second/m", 7]
""",
    )

    with pytest.raises(SettingsFaults) as caught:
        load_settings({"GPT_PROVIDER": "second", "HEIMDALL_SERVER_PORT": "81"})

    settings = caught.value.settings
    assert (settings.server.host, settings.server.port) == ("gate", 81)
    assert (settings.timeouts.total_s, settings.timeouts.connect_s) == (5.0, 10.0)
    assert settings.providers == {"second": {"dialect": 7}}
    assert settings.aliases == {"best": alias_of("second/m", "")}
    assert set(settings.logging.providers) == {"second"}
    assert settings.primary == "second"


@pytest.mark.parametrize("text", ["[providers.second\n", "providers = 7\n"])
def test_no_name_is_judged_by_a_file_that_cannot_be_read(text):
    """Where the providers are unknown, what is handed out names none."""
    write("llm-gate.toml", text)

    with pytest.raises(SettingsFaults) as caught:
        load_settings({"GPT_PROVIDER": "second", "LLM_FALLBACK_PROVIDERS": "third"})

    settings = caught.value.settings
    assert (settings.providers, settings.aliases) == ({}, {})
    assert (settings.primary, settings.fallbacks) == (None, ())


def test_faults_of_all_sources_come_together():
    """Files, variables and flags are checked in one run, and each fault says where it was written."""
    write("llm-gate.toml", "[server]\nport = -1\n")
    write(".env", "# comment\nexport LOG_LEVEL=loud\n")

    with pytest.raises(SettingsFaults) as caught:
        load_settings(
            {"HEIMDALL_SERVER_PORT": "eighty", "HTTPX_CLIENT_VERIFY": "perhaps"},
            env_file=Path(".env"),
            overrides={"workers": 0},
        )

    assert str(caught.value).splitlines() == [
        "environment: HEIMDALL_SERVER_PORT: expected a whole number",
        "llm-gate.toml:2: server.port: expected `int` >= 0",
        ".env:2: LOG_LEVEL: expected one of CRITICAL, ERROR, WARNING, INFO, DEBUG",
        "command line: --workers: expected `int` >= 1",
        "environment: HTTPX_CLIENT_VERIFY: expected True or False",
    ]
    assert [(place.file, place.line, place.key) for place in caught.value.places][2] == (
        ".env",
        2,
        "LOG_LEVEL",
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[server]\nport = \n", ("llm-gate.toml:2", "invalid value")),
        ("[server]\nport = 1\nport = 2\n", ("llm-gate.toml:3", "cannot overwrite a value")),
        ("[server\n", ("llm-gate.toml:1", "expected ']' at the end of a table declaration")),
        ("a = " + "[" * 5000, ("llm-gate.toml", "nested too deeply")),
        ("[server]\ndata_dir = 7\n", ("llm-gate.toml:2: server.data_dir", "expected the path of a folder")),
        ("server = 7\n", ("llm-gate.toml:1: server", "expected `table`, got `int`")),
        ("[api]\npath = '/'\n", ("llm-gate.toml:2: api.path", None)),
        ("[api]\npath = '/a/../b'\n", ("llm-gate.toml:2: api.path", None)),
        ("[api]\npath = '/{x}'\n", ("llm-gate.toml:2: api.path", None)),
    ],
)
def test_a_broken_file_is_a_fault_with_its_line(text, fault):
    """Text that is no TOML, or says impossible things, is refused with file and line."""
    write("llm-gate.toml", text)

    ((path, message),) = faults()

    assert path == fault[0]
    assert fault[1] in {None, message}


def test_a_file_that_was_named_must_be_there():
    """A configuration file given by name and missing is a fault, not an empty file."""
    assert faults(config_file=Path("other.toml")) == [
        ("other.toml", "cannot be read: no such file or directory")
    ]


def test_text_that_is_no_utf8_is_a_fault():
    """Files in another encoding are refused with the line of the first strange byte."""
    Path("llm-gate.toml").write_bytes(b"[api]\ntitle = '\xff'\n")

    assert faults() == [("llm-gate.toml:2", "not valid UTF-8")]


def test_editors_of_other_systems_are_welcome():
    """A byte order mark and CR LF line ends change nothing."""
    Path("llm-gate.toml").write_bytes(b"\xef\xbb\xbf[api]\r\ntitle = 'x'\r\n")

    assert load_settings({}).api.title == "x"


def test_a_malformed_line_of_the_env_file_is_skipped():
    """One bad line of a .env file does not take the others with it."""
    write(".env", "this is no assignment\nLOG_LEVEL=DEBUG\n")

    assert load_settings({}, env_file=Path(".env")).logging.level == "DEBUG"


def test_faults_found_later_can_be_placed_too():
    """A path that another layer complains about is found in the file that was read."""
    file = write("llm-gate.toml", EXAMPLE)

    assert str(locate(file, "providers.second.models[0].prices[0].usd")) == (
        "llm-gate.toml:21: providers.second.models[0].prices[0].usd"
    )
    assert str(locate(None, "providers.second")) == "configuration: providers.second"


def test_variables_can_be_placed_later_too():
    """A variable that another layer complains about is found in the .env file, unless the real environment wins."""
    write(".env", "A=1\nGPT_PROVIDER=x\n")
    settings = load_settings({}, env_file=Path(".env"))

    assert str(locate_variable(settings, "GPT_PROVIDER", {})) == ".env:2: GPT_PROVIDER"
    assert str(locate_variable(settings, "A", {"A": "2"})) == "environment: A"


LINES = '''\
# a comment with [brackets] and "quotes
top = 1
[a]
b.c = """
[not.a.table]
x = 1 ""\\" """""
"quoted.key" = 'it''s' # comment
d = [ # comment ]
  1,
  "]",
  { e = 2, f = [3,
     4] },
]
[[a.list]]
one = 1
[a.list.sub]
two = 2
[[a.list]]
three = 3979-05-27 07:32:01
[[a.list.deep]]
"k\\u0065y" = true
'''.replace("'it''s'", "'its'")


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("top", 2),
        ("a", 3),
        ("a.b", 4),
        ("a.b.c", 4),
        ("a.quoted.key", 7),
        ("a.d", 8),
        ("a.d[0]", 9),
        ("a.d[1]", 10),
        ("a.d[2]", 11),
        ("a.d[2].e", 11),
        ("a.d[2].f[1]", 12),
        ("a.d[7]", 8),
        ("a.list", 14),
        ("a.list[0]", 14),
        ("a.list[0].one", 15),
        ("a.list[0].sub", 16),
        ("a.list[0].sub.two", 17),
        ("a.list[0].missing", 14),
        ("a.list[1]", 18),
        ("a.list[1].three", 19),
        ("a.list[1].deep[0].key", 21),
        ("a.missing", 3),
        ("topping", None),
        ("nowhere", None),
    ],
)
def test_lines_are_found(path, line):
    """Every spelling of TOML leads to the line on which a key is written, or its nearest enclosing one."""
    tomllib.loads(LINES)

    assert line_of(LINES, path) == line


@given(st.text(alphabet="ab[]{}=.,\"'#\n\\ 1", max_size=60))
def test_the_line_finder_takes_any_text(text):
    """Text that is no TOML at all neither stops nor traps the search."""
    assert line_of(text, "a") is None or line_of(text, "a") >= 1


KEYS = st.sampled_from(["a", "b-c", "d_e", "9"])
VALUES = st.recursive(
    st.integers(0, 9) | st.sampled_from(["x", "]", "# no", "a = 1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def toml(value, gap):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item, gap)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return f"[{gap}" + f",{gap}".join(toml(item, gap) for item in value) + f"{gap}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def paths(value, path):
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from paths(item, f"{path}.{key}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from paths(item, f"{path}[{index}]")


@given(VALUES, st.sampled_from([" ", "\n", " # note ]\n"]))
def test_every_path_of_a_value_is_found_inside_it(value, gap):
    """Whatever a value holds, each of its paths is found between its key and the next one."""
    text = f"first = 0\nvalue = {toml(value, gap)}\nlast = 1\n"
    assert tomllib.loads(text)["value"] == value
    end = line_of(text, "last")
    lines = [line_of(text, path) for path in paths(value, "value")]

    assert lines == sorted(lines)
    assert all(2 <= line < end for line in lines)
