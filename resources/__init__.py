"""Data files: icons, OBIS names, the demo site, translations."""
