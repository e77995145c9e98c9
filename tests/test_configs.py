"""Every file in clusters/ and serve_configs/ parses against the schema of who reads it, and a typo in it does not pass."""

import copy
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

ROOT = Path(__file__).parents[1]
CLUSTERS = sorted((ROOT / "clusters").glob("*.yaml"))
SERVE = sorted((ROOT / "serve_configs").glob("*.yaml"))


def load(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text())


def unknown_keys(value: Any, annotation: Any, path: str = "") -> list[str]:
    """Keys of `value` that the pydantic model behind `annotation` does not have. Serve's own schema lets them pass."""
    if isinstance(value, list):
        inner = next(iter(get_args(annotation)), Any)
        return [key for n, item in enumerate(value) for key in unknown_keys(item, inner, f"{path}[{n}]")]
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    models = [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]
    if not isinstance(value, dict) or not models:
        return []
    found = []
    for key, item in value.items():
        field = models[0].model_fields.get(key)
        found += [f"{path}.{key}".lstrip(".")] if field is None else unknown_keys(item, field.annotation, f"{path}.{key}")
    return found


@pytest.mark.parametrize("file", CLUSTERS, ids=lambda file: file.name)
def test_cluster_files_are_what_ray_up_takes(file):
    config = load(file)
    validate_config(prepare_config(copy.deepcopy(config)))
    with pytest.raises(Exception, match="idle_timeout_minute"):
        validate_config(prepare_config({**config, "idle_timeout_minute": 5}))


@pytest.mark.parametrize("file", SERVE, ids=lambda file: file.name)
def test_serve_files_are_what_serve_run_takes(file):
    config = load(file)
    parsed = ServeDeploySchema.model_validate(config)
    assert unknown_keys(config, ServeDeploySchema) == []
    assert parsed.http_options.host == "127.0.0.1"  # no authentication on Serve's HTTP door
    for application in parsed.applications:
        assert application.import_path == "rlaif_ray.serve.app:build_app"


@pytest.mark.parametrize("file", SERVE, ids=lambda file: file.name)
def test_serve_files_give_the_application_the_arguments_it_takes(file):
    from rlaif_ray.serve.app import AppArgs

    for application in load(file)["applications"]:
        AppArgs.model_validate(application["args"])
        with pytest.raises(ValueError, match="extra"):
            AppArgs.model_validate({**application["args"], "rum": "x"})


def test_typos_at_every_level_of_a_serve_file_are_found():
    config = load(SERVE[0])
    config["http_option"] = {}
    config["http_options"]["prot"] = 8000
    config["applications"][0]["rout_prefix"] = "/"
    config["applications"][0]["deployments"] = [{"name": "PredictorApp", "num_replica": 1, "ray_actor_options": {"num_cpu": 1}}]
    ServeDeploySchema.model_validate(config)  # Serve itself sees nothing wrong
    assert unknown_keys(config, ServeDeploySchema) == [
        "http_options.prot", "applications[0].rout_prefix", "applications[0].deployments[0].num_replica",
        "applications[0].deployments[0].ray_actor_options.num_cpu", "http_option",
    ]  # fmt: skip
