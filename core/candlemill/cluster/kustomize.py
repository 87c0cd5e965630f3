"""Build Kubernetes objects from a kustomization folder, as `kubectl kustomize` does, without that program.

Supports the features that `knative/` uses and rejects others: `resources` (files and folders), `namespace`, `images`
(newName, newTag, digest) and `patches` (a target by group, kind and name, and JSON 6902 operations as text).
"""

import re
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from candlemill.errors import BadFile

FILE = "kustomization.yaml"
KNOWN = frozenset({"apiVersion", "kind", "namespace", "resources", "images", "patches"})
CLUSTER_KINDS = frozenset({"Namespace", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"})
OPERATIONS = frozenset({"add", "replace", "remove"})

Object = dict[str, Any]


def build(folder: Path) -> list[Object]:
    """Build the objects of `folder`, those of its bases first. Raises BadFile."""
    path = folder / FILE
    (found,) = _documents(path) or [{}]
    if unknown := sorted(found.keys() - KNOWN):
        raise BadFile(str(path), None, f"{unknown[0]} is not supported: build it with kubectl kustomize")
    objects: list[Object] = []
    for name in found.get("resources", []):
        where = folder / name
        objects += build(where.resolve()) if where.is_dir() else _documents(where)
    if namespace := found.get("namespace"):
        for one in objects:
            _place(one, namespace)
    for patch in found.get("patches", []):
        _patch(objects, patch, path)
    for one in objects:
        _rename_images(one, found.get("images", []))
    return objects


def _documents(path: Path) -> list[Object]:
    try:
        return [one for one in yaml.safe_load_all(path.read_text()) if one]
    except OSError as error:
        raise BadFile(str(path), None, error.strerror or str(error)) from None
    except yaml.YAMLError as error:
        raise BadFile(str(path), None, " ".join(str(error).split())) from None


def _place(one: Object, namespace: str) -> None:
    if one["kind"] == "Namespace":
        one["metadata"]["name"] = namespace
    elif one["kind"] not in CLUSTER_KINDS:
        one["metadata"]["namespace"] = namespace


def _patch(objects: Iterable[Object], patch: Object, path: Path) -> None:
    target = patch.get("target", {})
    if unknown := sorted((patch.keys() - {"target", "patch"}) | (target.keys() - {"group", "kind", "name"})):
        raise BadFile(str(path), None, f"{unknown[0]} of a patch is not supported: build it with kubectl kustomize")
    matching = [one for one in objects if _matches(one, target)]
    if not matching:
        raise BadFile(str(path), None, f"a patch has a target that does not exist: {target}")
    for operation in yaml.safe_load(patch["patch"]):
        if operation.get("op") not in OPERATIONS:
            raise BadFile(
                str(path), None, f"an operation of a patch is not one of {', '.join(sorted(OPERATIONS))}: {operation}"
            )
        for one in matching:
            try:
                _operate(one, operation)
            except (KeyError, IndexError, ValueError, TypeError):
                name = f"{one['kind']} {one['metadata']['name']}"
                raise BadFile(str(path), None, f"{name} has no {operation['path']} to {operation['op']}") from None


def _matches(one: Object, target: Object) -> bool:
    """Compare group, kind and name with the regular expressions of a patch's target."""
    group = one["apiVersion"].rpartition("/")[0]
    have = {"group": group, "kind": one["kind"], "name": one["metadata"]["name"]}
    return all(re.fullmatch(pattern, have[key]) for key, pattern in target.items())


def _operate(one: Object, operation: Object) -> None:
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
    where: Any = one
    for part in parents:
        where = where[int(part)] if isinstance(where, list) else where[part]
    value = deepcopy(operation.get("value"))
    if isinstance(where, list):
        place = len(where) if last == "-" else int(last)
        if operation["op"] == "add":
            where.insert(place, value)
        elif operation["op"] == "replace":
            where[place] = value
        else:
            del where[place]
        return
    if operation["op"] != "add" and last not in where:
        raise KeyError(last)
    if operation["op"] == "remove":
        del where[last]
    else:
        where[last] = value


def _rename_images(value: Any, images: list[Object]) -> None:
    """Change the images of all containers, at any depth."""
    if isinstance(value, list):
        for item in value:
            _rename_images(item, images)
    elif isinstance(value, dict):
        for container in value.get("containers", []) if isinstance(value.get("containers"), list) else []:
            container["image"] = _image(container["image"], images)
        for item in value.values():
            _rename_images(item, images)


def _image(image: str, images: list[Object]) -> str:
    name = re.sub(r"(:[\w.-]+)?(@sha256:[0-9a-f]+)?$", "", image)
    for change in images:
        if change["name"] == name:
            end = f"@{change['digest']}" if "digest" in change else f":{change['newTag']}" if "newTag" in change else ""
            return f"{change.get('newName', name)}{end or image[len(name) :]}"
    return image
