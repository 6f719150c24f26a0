"""A recommender that counts, so that tests can foresee what a correction does."""

from agent import archive
from recommend.contract import Recommendations, RecommendedItem
from recommend.corrections import correct
from store import corrections, logs, profiles
from store.database import Database


class CountingRecommender:
    """Ranks items by the number of the user's events on them that count, by id where they are as many."""

    def __init__(self, database: Database, model_id: str | None = "1") -> None:
        self.database, self.model_id = database, model_id

    def top(self, user_id: str, k: int) -> Recommendations:
        with self.database.session() as session:
            events = logs.read_logs(session, [user_id])[0].events
            found = correct(
                corrections.live(session, user_id),
                archive.from_rows(profiles.load(session, user_id)).claims,
                [e.event_id for e in events],
            )
            catalogue = {item.item_id: item for item in logs.stream_items(session)}
        score = dict.fromkeys(sorted(catalogue), 0.0)
        for event in events:
            if event.item_id and (event.value or 5) > 3:
                score[event.item_id] += found.scale.get(event.event_id, 1.0)
        for added in found.added:
            near = [i for i, row in catalogue.items() if added.name in row.categories]
            for pseudo in added.pseudo_events(near):
                score[pseudo.item_id] += pseudo.target * pseudo.confidence
        best = sorted(score, key=lambda item_id: -score[item_id])[:k]
        items = [
            RecommendedItem(item_id=i, title=catalogue[i].title, rank=n, score=score[i]) for n, i in enumerate(best, 1)
        ]
        return Recommendations(user_id=user_id, items=items, basis="events", model_id=self.model_id)
