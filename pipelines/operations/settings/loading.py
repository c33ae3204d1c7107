"""Settings from their layers: each key remembers where it came from, so that a mistake is named with its source."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from pipelines.errors import UsageError
from pipelines.operations.settings.sections import Settings

ENV_PREFIX = "STOCKCAST__"


def conf_folder() -> Path | None:
    """`$STOCKCAST_CONF`, else `conf/` here, else `conf/` beside the package's checkout; None where absent."""
    named = os.environ.get("STOCKCAST_CONF")
    candidates = [Path(named)] if named else [Path("conf"), Path(__file__).parents[3] / "conf"]
    return next((folder for folder in candidates if (folder / "base.yaml").is_file()), None)


def load_settings(
    configs: Sequence[str] = (),
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from all layers.

    Args:
        configs: YAML files, later ones win; none: `conf/local.yaml` where it exists.
        overrides: `section.key=value` items, the value in YAML.
        environment: defaults to the process's own.

    Raises:
        UsageError: an unknown key, a wrong type or an unreadable file; names the key, its source and
            what was expected.
    """
    environment = os.environ if environment is None else environment
    merged: dict[str, Any] = {}
    sources: dict[tuple[str, ...], str] = {}
    for source, layer in _layers(configs, overrides, environment):
        _merge(merged, layer, source, sources, ())
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        raise UsageError("\n".join(_explain(error, sources))) from None


def _layers(
    configs: Sequence[str], overrides: Sequence[str], environment: Mapping[str, str]
) -> Iterable[tuple[str, dict[str, Any]]]:
    folder = conf_folder()
    files: list[Path] = []
    if folder is not None:
        files.append(folder / "base.yaml")
        if not configs and (folder / "local.yaml").is_file():
            files.append(folder / "local.yaml")
    for path in [*files, *map(Path, configs)]:
        layer = _read_yaml(path)
        _refuse_open_secrets(path, layer)
        yield str(path), layer
    if home := environment.get("STOCKCAST_HOME"):
        yield "environment variable STOCKCAST_HOME", {"home": home}
    for name, value in sorted(environment.items()):
        if name.startswith(ENV_PREFIX):
            keys = name.removeprefix(ENV_PREFIX).lower().split("__")
            yield f"environment variable {name}", _nested(keys, value if _is_secret(keys) else _parse(value, name))
    for item in overrides:
        key, separator, value = item.partition("=")
        if not separator or not key:
            raise UsageError(f"--set {item}: expected section.key=value")
        if _is_secret(key.split(".")):
            variable = ENV_PREFIX + key.upper().replace(".", "__")
            raise UsageError(f"--set {key}: a command line is no place for a secret; use {variable} or {key}_file")
        yield f"--set {item}", _nested(key.split("."), _parse(value, f"--set {item}"))


def _refuse_open_secrets(path: Path, layer: Mapping[str, Any]) -> None:
    for section, keys in layer.items():
        for key, value in keys.items() if isinstance(keys, dict) else ():
            if value is not None and _is_secret((str(section), str(key))) and path.stat().st_mode & 0o077:
                raise UsageError(f"{path}: others can read it, and it holds {section}.{key}; chmod 600 {path}")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); name an existing YAML file") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected sections of keys, found {type(content).__name__}")
    return content


def _parse(value: str, source: str) -> Any:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UsageError(f"{source}: the value is not YAML: {error}") from None


def _nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return dict(value)


def _merge(
    target: dict[str, Any],
    layer: Mapping[str, Any],
    source: str,
    sources: dict[tuple[str, ...], str],
    prefix: tuple[str, ...],
) -> None:
    for raw_key, value in layer.items():
        key = str(raw_key)
        path = (*prefix, key)
        sources[path] = source
        if isinstance(value, dict) and isinstance(target.get(key, {}), dict):
            _merge(target.setdefault(key, {}), value, source, sources, path)
        else:
            target[key] = value


def _explain(error: ValidationError, sources: Mapping[tuple[str, ...], str]) -> Iterable[str]:
    for problem in error.errors():
        path = tuple(str(part) for part in problem["loc"])
        source = next((sources[path[:end]] for end in range(len(path), 0, -1) if path[:end] in sources), "defaults")
        key = ".".join(path)
        if problem["type"] == "extra_forbidden":
            known = ", ".join(_known_keys(path[:-1]))
            yield f"{source}: unknown key {key}; expected one of: {known}"
        else:
            found = "what is not shown" if _is_secret(path) else repr(problem["input"])
            yield f"{source}: {key}: {problem['msg']}, found {found}"


def _known_keys(path: Sequence[str]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in path:
        annotation = model.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return sorted(model.model_fields)


def _is_secret(path: Sequence[str]) -> bool:
    """Whether a key's value is a secret: it is then neither parsed nor shown."""
    if len(path) != 2 or path[0] not in Settings.model_fields:
        return False
    section = Settings.model_fields[path[0]].annotation
    field = getattr(section, "model_fields", {}).get(path[1])
    return field is not None and "SecretStr" in str(field.annotation)
