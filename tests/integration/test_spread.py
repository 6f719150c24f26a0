"""Runs on a Ray cluster of two nodes on this machine, with the scripted model server."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from sqlalchemy import text

from agent import archive
from agent.check import check_profiles
from api import batch, spread
from api.batch import Ended
from api.settings import LlmSettings, Settings
from store import jobs, profiles
from store.database import Database
from store.selection import Selection
from store.tables import UserRow
from tests.conftest import _fresh
from tests.scripted_llm import MODEL, ScriptedLLM, honest, slow
from tests.small_world import RATERS, event, fill, profiler, ratings, wrote

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::Warning:ray")]

USERS = 40
CHUNK = 4


def use_fake_embedder() -> None:
    """Run in each process of the cluster."""
    import api.runtime  # noqa: PLC0415
    from tests.small_world import FakeEmbedder  # noqa: PLC0415

    api.runtime.embedder = lambda settings: FakeEmbedder()  # type: ignore[assignment, return-value]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Two nodes with one CPU each, and a head without."""
    size = 80 * 2**20
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": size})
    for _ in range(2):
        made.add_node(num_cpus=1, object_store_memory=size)
    made.wait_for_nodes()
    root = str(Path(__file__).parents[2])
    ray.init(
        address=made.address,
        log_to_driver=False,
        runtime_env={"worker_process_setup_hook": use_fake_embedder, "env_vars": {"PYTHONPATH": root}},
    )
    yield made
    ray.shutdown()
    made.shutdown()


def many(database: Database) -> list[str]:
    """Forty users of the small world, in four chunks' worth of tastes."""
    fill(database)
    tastes = list(RATERS)
    made = [f"{tastes[n % len(tastes)]}-{n}" for n in range(USERS)]
    with database.session() as session:
        session.add_all(UserRow(user_id=user_id, log_revision=1) for user_id in made)
        session.flush()
        for user_id in made:
            for row in ratings(user_id.partition("-")[0]):
                fields = {"value": row.value} if row.value is not None else {}
                n = int(row.event_id.rpartition("-")[2])
                session.add(event(user_id, n, row.type, row.item_id, row.ts, **fields))
    return made


def documents(database: Database, ids: list[str]) -> dict[str, Any]:
    """All profiles as JSON, without ids of theirs and times."""
    found = {}
    with database.session() as session:
        for user_id in ids:
            document = archive.from_rows(profiles.load(session, user_id)).model_dump(mode="json")
            for changing in ("seconds", "created_at", "key"):
                del document["provenance"][changing]
            found[user_id] = document
    return found


def created(database: Database, ids: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(batch, "CHUNK", CHUNK)
    return batch.create(database, Selection(users=tuple(ids)), "llm", force=False).job_id


def settings(tmp_path: Path, scripted: ScriptedLLM) -> Settings:
    return Settings(home=tmp_path, llm=LlmSettings(base_url=scripted.url, model=MODEL))


def test_a_cluster_writes_what_one_process_writes(
    cluster: Cluster,
    database: Database,
    postgres_url: str,
    migrated_template: str,
    scripted: ScriptedLLM,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = many(database)
    job_id = created(database, ids, monkeypatch)
    seen: list[int] = []
    ended = spread.resume(settings(tmp_path, scripted), database, job_id, lambda gauge: seen.append(gauge.over))
    assert ended is Ended.DONE
    assert seen[-1] == USERS
    with database.session() as session:
        assert jobs.progress(session, job_id).counts == {"written": USERS}
    for url in _fresh(postgres_url, migrated_template):
        alone = Database(url)
        many(alone)
        assert len(wrote(profiler(alone, scripted.url), ids).written) == USERS
        assert documents(database, ids) == documents(alone, ids)
        alone.close()


def test_a_node_is_killed_in_the_middle(
    cluster: Cluster, database: Database, scripted: ScriptedLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = many(database)
    job_id = created(database, ids, monkeypatch)
    scripted.reset(slow(0.15, honest))
    killed = threading.Event()

    def kill() -> None:
        while not killed.is_set():
            with database.session() as session:
                if jobs.progress(session, job_id).counts.get("written", 0) >= 6:
                    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
                    killed.set()
            time.sleep(0.1)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        ended = spread.resume(settings(tmp_path, scripted), database, job_id, lambda gauge: None, workers=2)
    finally:
        was_killed = killed.is_set()
        killed.set()
        killer.join()
    assert was_killed
    assert ended is Ended.DONE
    with database.session() as session:
        assert jobs.progress(session, job_id).counts == {"written": USERS}
        versions = dict(session.execute(text("select user_id, count(*) from profiles group by user_id")).all())
    assert versions == dict.fromkeys(ids, 1)
    assert list(check_profiles(database, ids))[-1].profiles == USERS


def test_a_model_out_of_reach_leaves_a_run_that_can_go_on(
    cluster: Cluster, database: Database, scripted: ScriptedLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = many(database)
    job_id = created(database, ids, monkeypatch)
    nowhere = settings(tmp_path, scripted).model_copy(
        update={"llm": LlmSettings(base_url="http://127.0.0.1:9/v1", model=MODEL)}
    )
    with pytest.raises(batch.OutOfReachError):
        spread.resume(nowhere, database, job_id, lambda gauge: None)
    assert spread.resume(settings(tmp_path, scripted), database, job_id, lambda gauge: None) is Ended.DONE
    with database.session() as session:
        assert jobs.progress(session, job_id).counts == {"written": USERS}
