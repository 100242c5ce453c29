"""Rules and log over HTTP, for a double in another process.

`/__double__/rules`: GET; PUT a list; POST one more; DELETE all, and whoever waits goes on.
`/__double__/release`: POST, and whoever waits goes on. `/__double__/log`: GET, DELETE.
`/__double__/settings`: GET; PUT `{"write_interval": 1.0}`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cachestore.testing.r2.answer import Answer, Body
from cachestore.testing.r2.rules import Rule

if TYPE_CHECKING:
    from cachestore.testing.r2.service import Service

PREFIX = "/__double__/"


def answer(service: Service, method: str, path: str, body: bytes) -> Answer:
    """Obey, and answer in JSON; 400 for what makes no sense, 404 for what there is not."""
    try:
        result = _obey(service, method, path.removeprefix(PREFIX), body)
    except (ValueError, TypeError) as error:
        return _json({"error": str(error)}, 400)
    except LookupError:
        return _json({"error": f"no {method} {path}"}, 404)
    return _json(result)


def _obey(service: Service, method: str, name: str, body: bytes) -> Any:
    match (method, name):
        case ("GET", "rules"):
            pass
        case ("PUT", "rules"):
            service.rules.replace([Rule.from_json(values) for values in json.loads(body)])
        case ("POST", "rules"):
            rule = Rule.from_json(json.loads(body))
            service.rules.append(rule)
        case ("DELETE", "rules"):
            service.rules.clear()
        case ("POST", "release"):
            service.rules.release()
        case ("GET", "log"):
            return [asdict(entry) for entry in service.log.entries()]
        case ("DELETE", "log"):
            service.log.clear()
            return []
        case ("GET", "settings"):
            return {"write_interval": service.write_interval}
        case ("PUT", "settings"):
            interval = json.loads(body)["write_interval"]
            service.write_interval = None if interval is None else float(interval)
            return {"write_interval": service.write_interval}
        case _:
            raise LookupError(name)
    return service.rules.to_json()


def _json(value: Any, status: int = 200) -> Answer:
    return Answer(status, {"Content-Type": "application/json"}, Body(json.dumps(value).encode()))
