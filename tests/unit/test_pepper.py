import pickle
import stat
from contextlib import closing

import pytest

from llm_gate.domain.secret import Secret
from llm_gate.storage.opening import open_store
from llm_gate.storage.pepper import Pepper, PepperFault, open_pepper
from support.stores import any_database

GIVEN = Secret("a pepper of more than thirty-two characters")


def opened(folder, pepper=None):
    return closing(open_store(data_dir=folder, database_url=None, pepper=pepper, at_ms=1))


def test_it_is_made_at_first_use_for_its_owner_alone(tmp_path):
    """The file of the data folder has mode 0600 and stays what it was."""
    folder = tmp_path / "data"
    with opened(folder) as store:
        first = store.pepper.fingerprint
    path = folder / "pepper"
    text = path.read_text()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(text.strip()) >= 43
    assert sorted(each.name for each in folder.glob("pepper*")) == ["pepper"]
    with opened(folder) as store:
        assert store.pepper.fingerprint == first
    assert path.read_text() == text


def test_one_that_others_can_read_is_refused(tmp_path):
    """The message says what to do about it."""
    with opened(tmp_path):
        pass
    (tmp_path / "pepper").chmod(0o640)

    with pytest.raises(PepperFault, match="chmod 600"):
        open_store(data_dir=tmp_path, database_url=None, pepper=None, at_ms=1)


def test_a_lost_one_is_told_instead_of_made_anew(tmp_path):
    """Where a store was made with a pepper, none is made in its place."""
    with opened(tmp_path):
        pass
    (tmp_path / "pepper").unlink()

    with pytest.raises(PepperFault, match="is gone"):
        open_store(data_dir=tmp_path, database_url=None, pepper=None, at_ms=1)
    assert not (tmp_path / "pepper").exists()


def test_a_wrong_one_is_told_at_once(tmp_path):
    """Whether it stands in the variable or in the file, a pepper of another store is refused."""
    with opened(tmp_path, GIVEN):
        pass

    with pytest.raises(PepperFault, match="LLM_GATE_PEPPER is not the one"):
        open_store(data_dir=tmp_path, database_url=None, pepper=Secret("b" * 40), at_ms=1)
    (tmp_path / "pepper").write_text("c" * 40)
    (tmp_path / "pepper").chmod(0o600)
    with pytest.raises(PepperFault, match=r"the file .* is not the one"):
        open_store(data_dir=tmp_path, database_url=None, pepper=None, at_ms=1)
    with opened(tmp_path, GIVEN) as store:
        assert store.pepper.fingerprint == Pepper(GIVEN).fingerprint


def test_a_damaged_file_is_told(tmp_path):
    """One that is too short is no pepper."""
    (tmp_path / "pepper").write_text("short\n")
    (tmp_path / "pepper").chmod(0o600)

    with pytest.raises(PepperFault, match="fewer than 32 characters"):
        open_store(data_dir=tmp_path, database_url=None, pepper=None, at_ms=1)


def test_with_postgresql_it_must_be_given(tmp_path):
    """Several machines share that store, so that no file of one of them will do."""
    with (
        any_database("postgresql", tmp_path) as database,
        pytest.raises(PepperFault, match="LLM_GATE_PEPPER is not set"),
    ):
        open_pepper(database, given=None, data_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_every_purpose_has_a_key_of_its_own():
    """Keys are 32 bytes, differ by purpose and pepper, and are the same for the same; the pepper shows itself never."""
    purposes = ("keys", "credentials", "answers", "webhooks", "fingerprint")
    pepper = Pepper(GIVEN)
    keys = {pepper.derive(purpose) for purpose in purposes}

    assert {len(key) for key in keys} == {32}
    assert len(keys) == len(purposes)
    assert keys == {Pepper(Secret(GIVEN.reveal() + "\n")).derive(purpose) for purpose in purposes}
    assert not keys & {Pepper(Secret("b" * 40)).derive(purpose) for purpose in purposes}
    assert pepper.key_hash.digest("x") == Pepper(GIVEN).key_hash.digest("x")
    assert "pepper of more" not in repr(pepper)
    with pytest.raises(TypeError):
        pickle.dumps(pepper)
