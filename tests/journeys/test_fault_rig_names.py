"""A vendor's name cannot be resolved, or not in time: the next vendor answers, and nobody waits beyond the deadline."""

import asyncio

import pytest

from support.faulty import running_faulty
from support.gateway import running_gateway
from support.traffic import traffic

CONNECT_S = 0.5
SLACK_S = 2.0
CALLS = 6
NAMES = {"unknown": "raise OSError(None, 'no such name')", "silent": "await asyncio.sleep(8)"}
RESOLVER = """
import asyncio, aiohttp.resolver
found = aiohttp.resolver.ThreadedResolver.resolve
async def resolve(self, host, *rest, **more):
    if host == "vendor.test":
        {what}
    return await found(self, host, *rest, **more)
aiohttp.resolver.ThreadedResolver.resolve = resolve
"""
"""Makes the gateway's process resolve names as a network in trouble would."""


@pytest.mark.parametrize("trouble", NAMES)
def test_a_name_that_is_not_found_is_passed_by(trouble, tmp_path):
    """Within `connect_s`, as when the vendor does not take the connection."""
    (tmp_path / "sitecustomize.py").write_text(RESOLVER.format(what=NAMES[trouble]))
    with running_faulty("second") as faulty:
        table = f"""
            [providers.first]
            dialect = "openai"
            base_url = "http://vendor.test:{faulty.url("second").rpartition(":")[2]}/v1"
            auth = {{ kind = "none" }}
            models = [{{ name = "m", operations = ["chat"] }}]
            timeouts = {{ connect_s = {CONNECT_S} }}
        """
        toml = table + faulty.table("second") + '\n[aliases.both]\ntargets = ["first/m", "second/m"]\n'
        with running_gateway({"PYTHONPATH": str(tmp_path)}, toml=toml, resilient=True) as gateway:
            told = asyncio.run(_ask(gateway.url))

    assert [(each.outcome, each.provider) for each in told] == [("answered", "second")] * CALLS
    assert max(each.took_s for each in told) <= 2 * CONNECT_S + SLACK_S


async def _ask(url):
    async with traffic(url) as load:
        await load.together(CALLS, CALLS, lambda n: load.call(f"name-{n}"))
        return load.told
