"""Writes dcurves.json, the golden of decision curves: dcurves 1.1.7 (pip install dcurves) on the last cohort of proc.json.

python dcurves_golden.py > dcurves.json
"""

import json
from pathlib import Path

import pandas as pd
from dcurves import dca

cohort = json.loads((Path(__file__).parent / "proc.json").read_text())["cohorts"][-1]
data = pd.DataFrame({"label": cohort["label"], "first": cohort["first"]})
thresholds, result = [0.05, 0.2, 0.5, 0.8], {}
for prevalence in (None, 0.1):
    table = dca(data=data, outcome="label", modelnames=["first"], thresholds=thresholds, prevalence=prevalence)
    result[str(prevalence)] = {
        model: table[table["model"] == model].sort_values("threshold")["net_benefit"].tolist()
        for model in ("first", "all")
    }
print(json.dumps({"made_by": "dcurves 1.1.7", "thresholds": thresholds, "net_benefit": result}, indent=1))
