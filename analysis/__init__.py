"""From rows to statements: the run table, the ablation table, figures and reports."""
