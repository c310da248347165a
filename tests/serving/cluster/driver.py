"""The process that holds a Ray cluster of several nodes for the tests; it does what lines of JSON say.

A process of its own since Ray reads its environment when it is imported, and since everything that it
started ends with it, whatever a test has done. A line `{"do": NAME, "with": {...}}` is answered by one
with `done` or `failed`.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

from serving.environment import HAPROXY_PORTS, free_ports, set_environment
from serving.orphans import no_orphans

_STORE_BYTES = 80 * 2**20
_HTTP_PORT = "RAY_SERVE_WORKER_PROXY_HTTP_PORT"


class Driver:
    """A head without replicas, Serve on it, and workers; each node is a raylet with ports of its own."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        (self._port,) = free_ports(1)
        self._common: dict[str, Any] = {
            "object_store_memory": _STORE_BYTES,
            "include_dashboard": False,
        }
        head = {**self._common, "num_cpus": 0, "env_vars": _own_ports()}
        self._cluster: Any = Cluster(initialize_head=True, head_node_args=head)
        self._workers: dict[str, Any] = {}

    def start(self) -> dict[str, Any]:
        """Serve's controller, and a proxy on every node that there is or will be."""
        import ray as untyped_ray
        from ray import serve

        ray: Any = untyped_ray
        ray.init(
            address=self._cluster.address,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"worker_process_setup_hook": "serving.environment.without_data_frames"},
        )
        serve.start(proxy_location="EveryNode", http_options=self._http)
        return {"node": self._cluster.head_node.node_id, "port": self._port}

    def add_worker(self, **resources: Any) -> dict[str, Any]:
        """Its id, port and raylet."""
        ports = _own_ports()
        node = self._cluster.add_node(**self._common, **resources, env_vars=ports)
        self._workers[node.node_id] = node
        raylet = node.all_processes["raylet"][0].process.pid
        return {"node": node.node_id, "port": int(ports[_HTTP_PORT]), "raylet": raylet}

    def remove_worker(self, node: str) -> None:
        """Forget one whose processes are gone."""
        self._cluster.remove_node(self._workers.pop(node), allow_graceful=False)

    def deploy(self, application: dict[str, Any]) -> None:
        """As `serve deploy` does with a file that names it; does not wait."""
        from ray.serve.schema import ServeDeploySchema

        document = {"http_options": self._http, "applications": [application]}
        self._client.deploy_apps(ServeDeploySchema.model_validate(document))

    def details(self) -> dict[str, Any]:
        """What Serve says of itself."""
        return dict(self._client.get_serve_details())

    def kill_actor(self, name: str) -> None:
        """As `ray.kill` does; Ray starts it again if it may."""
        import ray as untyped_ray

        ray: Any = untyped_ray
        ray.kill(ray.get_actor(name, namespace="serve"), no_restart=False)

    def stop(self) -> None:
        """Serve first, and then the nodes."""
        import ray as untyped_ray
        from ray import serve as untyped_serve

        ray: Any = untyped_ray
        serve: Any = untyped_serve
        serve.shutdown()
        ray.shutdown()
        self._cluster.shutdown()

    @property
    def _http(self) -> dict[str, Any]:
        # Replicas listen there, too, and nodes find each other by the machine's address.
        return {"host": "0.0.0.0", "port": self._port}

    @property
    def _client(self) -> Any:
        from ray.serve.context import _get_global_client

        return _get_global_client()


def _own_ports() -> dict[str, str]:
    names = (_HTTP_PORT, *HAPROXY_PORTS)
    return {name: str(port) for name, port in zip(names, free_ports(len(names)), strict=True)}


def _obey(orders: TextIO, answers: TextIO) -> None:
    """Order after order, until there are no more."""
    driver = Driver()
    for line in orders:
        order = json.loads(line)
        try:
            done = getattr(driver, order["do"])(**order["with"])
            answers.write(json.dumps({"done": done}, default=str) + "\n")
        except Exception as error:  # noqa: BLE001 - the test is told
            answers.write(json.dumps({"failed": f"{type(error).__name__}: {error}"}) + "\n")
        answers.flush()


if __name__ == "__main__":
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is none of the answers
    set_environment(haproxy=True)
    with no_orphans():
        _obey(sys.stdin, told)
