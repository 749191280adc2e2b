"""HTTP towards daemons and gateways: client, retries, circuit breaker."""
