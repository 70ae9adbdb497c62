"""A backbone, and one fitted model for all tests of the trainer."""

from __future__ import annotations

import pytest

from services.domain.errors import MissingPart
from services.trainer.backbones.efficientnet import BackboneFile, load_backbone, prepare_backbone
from services.trainer.features import FeatureExtractor
from services.trainer.fit import FittedModel, Recipe, fit_model
from tests.unit.trainer.pictures import pictures


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> BackboneFile:
    """The backbone that set-up prepared, or one made now."""
    try:
        return load_backbone()
    except MissingPart:
        return prepare_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="session")
def extractor(backbone: BackboneFile) -> FeatureExtractor:
    return FeatureExtractor(backbone.path)


@pytest.fixture(scope="session")
def recipe(backbone: BackboneFile) -> Recipe:
    return Recipe(backbone=backbone.path)


@pytest.fixture(scope="session")
def fitted(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> FittedModel:
    """A model of 24 good plates, measured on 4 scratched ones."""
    images = [*pictures(24), *pictures(4, is_bad=True)]
    return fit_model(
        images, project="plates", version="v1", out_dir=tmp_path_factory.mktemp("models"), recipe=recipe
    )
