"""Alert rules: a file each, under `@register`; the setting `anomalies.rules` names those that are in force."""
