"""Rules, alerts and a dashboard for Prometheus and Grafana."""
