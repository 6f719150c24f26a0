"""What the routes work with: settings, database, embedder, recommender; made once for an app."""

import asyncio
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Annotated

from fastapi import Depends, Request

from agent.embedder import Embedder
from agent.errors import AgentError
from agent.loading import Catalogue, prepare_catalogue
from agent.models import resolve
from api import runtime
from api.http.documents import Documents
from api.http.language_model import MOST, LanguageModel
from api.http.sessions import Sessions
from api.pages.mapping import Maps
from api.settings import Settings
from recommend.errors import NoModelError, RecommendError
from recommend.model import load
from recommend.service import Recommender
from store import models, revisions
from store.database import Database
from store.errors import StoreError
from store.privacy import hasher
from store.standing import Serving, serving


class State:
    """What an app works with. What is slow to load is loaded at first use, and once.

    Attributes:
        settings: All settings.
        database: That everything is in.
        hasher: Of user ids.
        sessions: Of browsers.
        ingesting: Held by the one bulk request whose rows are being stored.
        documents: Profiles that were read lately.
        narrator: The language model that words reasons.
        asker: That which answers questions.
        maps: Of users and items.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.database = database
        self.hasher = hasher(settings.home, settings.privacy_key)
        self.sessions = Sessions(self.hasher.derived("sessions of browsers"))
        self.ingesting = asyncio.Lock()
        self.documents = Documents()
        same = settings.llm.ask == settings.llm.narrator
        most = MOST if same else MOST // 2
        self.narrator = LanguageModel(settings.acting("narrator"), most)
        self.asker = self.narrator if same else LanguageModel(settings.acting("ask"), most)
        self.maps = Maps(database)
        self._embedder: Embedder | None = None
        self._recommender: tuple[Serving, Recommender] | None = None
        self._catalogue: tuple[int, Catalogue] | None = None
        self._loading = Lock()
        self._preparing = Lock()
        self._embedding = Lock()

    @property
    def embedder(self) -> Embedder:
        """The embedder.

        Raises:
            ModelError: Its weights cannot be fetched.
        """
        with self._embedding:
            if self._embedder is None:
                self._embedder = runtime.embedder(self.settings)
            return self._embedder

    def close(self) -> None:
        """Give back the language models that were started."""
        for model in {self.narrator, self.asker}:
            model.close()

    def warm_up(self) -> None:
        """Load what the first to ask would wait for; what is not there, or cannot be loaded, they are told of."""
        if resolve(self.settings.embedder.model, self.settings.home).pulled:
            with suppress(AgentError, RecommendError, StoreError):
                self.embedder.embed(["warm"])
                self.maps.get(self.embedder.name)
                self.recommender()

    @property
    def loaded_embedder(self) -> Embedder | None:
        """The embedder, if it is loaded already."""
        return self._embedder

    def recommender(self) -> Recommender:
        """Return the recommender of the active model; it is made anew where that or the catalogue has changed.

        Raises:
            NoModelError: None was trained, its file is damaged, or it was trained for another embedder.
        """
        present = serving(self.database)
        if (known := self._recommender) and known[0] == present:
            return known[1]
        with self._loading:
            if (known := self._recommender) and known[0] == present:
                return known[1]
            present = serving(self.database)  # what is read below is as new as this, or newer
            with self.database.session() as session:
                row = models.active_model(session)
            if row is None or row.model_id is None:
                raise NoModelError("No model has been trained yet. Train one with `limner train`.")
            made = self._load(row.model_id, Path(row.path), row.sha256)
            self._recommender = (present, made)
            return made

    def _load(self, model_id: int, path: Path, sha256: str) -> Recommender:
        model = load(path, sha256)
        if model.card.embedder != self.embedder.name:
            raise NoModelError(
                f"The active model was trained on texts embedded by {model.card.embedder}, the settings name "
                f"{self.embedder.name}. Train one for it with `limner train`, or set LIMNER_EMBEDDER__MODEL back."
            )
        settings = self.settings
        return Recommender(self.database, model, model_id, self.embedder, settings.evidence_settings, settings.language)

    def catalogue(self) -> Catalogue:
        """Return what profiles need to know of the catalogue; items without a vector are embedded first."""
        with self._preparing:
            with self.database.session() as session:
                revision = revisions.value(session, "catalogue")
            if self._catalogue is None or self._catalogue[0] != revision:
                self._catalogue = (revision, prepare_catalogue(self.database, self.embedder))
            return self._catalogue[1]


async def state(request: Request) -> State:  # not in a thread
    """Return the state of the app."""
    found: State = request.app.state.limner
    return found


StateDep = Annotated[State, Depends(state)]
