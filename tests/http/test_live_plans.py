"""What changes in the configuration of plans and stores while the gateway runs."""

import asyncio
import json
import time

from llm_gate.configuration import Source
from llm_gate.http.live import LiveConfiguration
from support.forking import clean_environment, run_command
from support.gateway import running_gateway

PLAN = "[plans.custom.team]\nlimits = {{ text_calls = {calls} }}\n"


def plan(folder):
    words = ["plans", "show", "team", "--data-dir", f"{folder}/data", "--no-env-file", "--json"]
    done = run_command(*words, folder="/", environment=clean_environment())
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_plan_of_the_file_follows_it():
    """It is in the store when the gateway is ready, and becomes what the file says next."""
    with running_gateway(toml=PLAN.format(calls=5)) as gateway:
        first = plan(gateway.folder)
        assert (first["origin"], first["limits"]) == ("file", {"text_calls": 5})
        (gateway.folder / "llm-gate.toml").write_text(PLAN.format(calls=6), encoding="utf-8")
        deadline = time.monotonic() + 10
        while plan(gateway.folder)["limits"] != {"text_calls": 6}:
            assert time.monotonic() < deadline


def test_other_stores_wait_for_a_restart(tmp_path, caplog):
    """Where the stores are is named as waiting, by the variable alone, and the process goes on with those it has."""
    file = tmp_path / ".env"
    source = Source(config_file=None, env_file=file)
    file.write_text("LLM_GATE_REDIS_URL=redis://one\n", encoding="utf-8")
    taken = []

    async def go():
        live = LiveConfiguration(source, source.read(), lambda settings, _: taken.append(settings))
        file.write_text(f"LLM_GATE_REDIS_URL=redis://two\nLLM_GATE_PEPPER={'p' * 40}\n", encoding="utf-8")
        assert live.reload()

    asyncio.run(go())

    assert [record.error for record in caplog.records if hasattr(record, "error")] == [
        "LLM_GATE_REDIS_URL, LLM_GATE_PEPPER"
    ]
    assert (taken[0].redis_url.reveal(), taken[0].pepper) == ("redis://one", None)
