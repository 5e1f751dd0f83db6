"""What a provider offers now: its models, those its server has beside the catalog's, and which can be used."""

from datetime import date

from msgspec import Struct

from llm_gate.domain.catalog import Model, ProviderEntry


class Offer(Struct, frozen=True, kw_only=True):
    """One provider. `absent` holds the ids of the models that its server is known not to have."""

    entry: ProviderEntry
    enabled: bool
    models: tuple[Model, ...]
    absent: frozenset[str] = frozenset()

    def has(self, model: Model) -> bool:
        """Tell whether one of the models is to be had, be it under its own name or by its replacement."""
        return self.enabled and model.id not in self.absent

    def can_use(self, model: Model, on: date) -> bool:
        """Tell whether one of the models can be used on a day."""
        return self.has(model) and not model.is_retired(on)


def offer_of(entry: ProviderEntry, *, enabled: bool) -> Offer:
    """Return what the catalog says that a provider offers; a model with several names is there once."""
    models = {model.id: model for model in entry.models.values()}
    return Offer(entry=entry, enabled=enabled, models=tuple(models.values()))
