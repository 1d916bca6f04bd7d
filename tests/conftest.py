"""No test passes or fails by how long it took: hypothesis' deadline is off for all."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
