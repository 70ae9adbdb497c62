"""A backbone, and one fitted model for all tests of the trainer."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from services.adapters.database import migrate, open_engine
from services.domain.errors import MissingPart
from services.trainer.backbones.backbone_file import BackboneFile
from services.trainer.backbones.efficientnet import default_backbone_path, load_backbone, prepare_backbone
from services.trainer.features import FeatureExtractor
from services.trainer.fit import FittedModel, Recipe, fit_model
from tests.unit.trainer.pictures import pictures


@pytest.fixture(scope="session")
def backbone_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the backbone lies that set-up prepared, or one made now."""
    try:
        load_backbone()
    except MissingPart:
        folder = tmp_path_factory.mktemp("backbone")
        prepare_backbone(folder)
        return folder / default_backbone_path().name
    return default_backbone_path()


@pytest.fixture(scope="session")
def backbone(backbone_path: Path) -> BackboneFile:
    return load_backbone(backbone_path)


@pytest.fixture(scope="session")
def extractor(backbone: BackboneFile) -> FeatureExtractor:
    return FeatureExtractor(backbone)


@pytest.fixture(scope="session")
def recipe(backbone_path: Path) -> Recipe:
    return Recipe(backbone=None if backbone_path == default_backbone_path() else backbone_path)


@pytest.fixture(scope="session")
def fitted(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> FittedModel:
    """A model of 24 good plates, measured on 4 scratched ones."""
    images = [*pictures(24), *pictures(4, is_bad=True)]
    return fit_model(
        images, project="plates", version="v1", out_dir=tmp_path_factory.mktemp("models"), recipe=recipe
    )


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """A migrated database of one test."""
    url = f"sqlite:///{tmp_path / 'loupe.db'}"
    migrate(url)
    return open_engine(url)
