"""A team's PostgreSQL: samples and interactions of many workspaces in one database, pushed beside the live path."""
