#!/usr/bin/env bash
# Prints deploy/rbac.yaml with the operator's rules as the chart has them: they are written in one
# place, charts/bellhop/files/operator-rules.yaml. All else in the file stays.
set -euo pipefail
cd "$(dirname "$0")/.."

awk -v rules=charts/bellhop/files/operator-rules.yaml '
    /^# In the namespaces that it works in/ { ours = 1 }
    ours && /^---/ { ours = skip = 0 }
    !skip
    ours && /^rules:/ {
        while ((getline line < rules) > 0) print (line == "" ? "" : "  " line)
        skip = 1
    }
' deploy/rbac.yaml
