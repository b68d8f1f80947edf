"""The dashboards: their source, their JSON and Grafana's provisioning files; a package so that they travel along."""
