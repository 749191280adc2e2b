"""Files that put the program to work: systemd, cron, logrotate, Prometheus, Grafana, container.

`install-service` fills the units in; docs/SCHEDULING.md says what each is for.
"""
