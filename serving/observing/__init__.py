"""What operators see of a server: metrics, drift, the request log, traces, `miniml top`."""
