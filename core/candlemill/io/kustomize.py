"""Kubernetes objects from a kustomization folder, as `kubectl kustomize` builds them, without that program.

What `knative/` uses is understood, anything else is refused: `resources` (files and folders), `namespace`, `images`
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
    """The objects of `folder`, its bases' first, patched. Raises BadFile."""
    path = folder / FILE
    (found,) = _documents(path) or [{}]
    if unknown := sorted(found.keys() - KNOWN):
        raise BadFile(str(path), None, f"{unknown[0]} is not understood here: build it with kubectl kustomize")
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
        raise BadFile(
            str(path), None, f"a patch's {unknown[0]} is not understood here: build it with kubectl kustomize"
        )
    matching = [one for one in objects if _matches(one, target)]
    if not matching:
        raise BadFile(str(path), None, f"a patch is for what is not there: {target}")
    for operation in yaml.safe_load(patch["patch"]):
        if operation.get("op") not in OPERATIONS:
            raise BadFile(str(path), None, f"a patch is none of {', '.join(sorted(OPERATIONS))}: {operation}")
        for one in matching:
            try:
                _operate(one, operation)
            except (KeyError, IndexError, ValueError, TypeError):
                name = f"{one['kind']} {one['metadata']['name']}"
                raise BadFile(str(path), None, f"{name} has no {operation['path']} to {operation['op']}") from None


def _matches(one: Object, target: Object) -> bool:
    """Each of the target's values is a regular expression for the whole of what it selects by."""
    group = one["apiVersion"].rpartition("/")[0]
    have = {"group": group, "kind": one["kind"], "name": one["metadata"]["name"]}
    return all(re.fullmatch(wanted, have[key]) for key, wanted in target.items())


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
    """Wherever a container's image is, however deep."""
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
