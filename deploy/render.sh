#!/usr/bin/env bash
# Prints one plain YAML for people without Helm: the resource, and the operator for the whole cluster
# with the chart's defaults. Usage: render.sh [HELM]
set -euo pipefail
cd "$(dirname "$0")/.."
helm="${1:-helm}"

cat <<'EOF'
# Made by `make manifests`; do not edit. The resource WebhookSubscription, and the operator for the
# whole cluster:
#
#   kubectl apply --server-side -f deploy/bellhop.yaml
#
# It runs the image localhost/bellhop, which must be on the nodes; docs/install.md says how to get it
# there, or to name another.
apiVersion: v1
kind: Namespace
metadata:
  name: bellhop-system
  labels:
    pod-security.kubernetes.io/enforce: restricted
---
EOF
grep -v '^#' crds/bellhop.dev_webhooksubscriptions.yaml
"$helm" template bellhop charts/bellhop --namespace bellhop-system --kube-version 1.30 --no-hooks |
    sed -e '/^# Source: /d' -e '/helm.sh\/chart: /d' -e '/managed-by: Helm/d' -e 's/ *$//' -e '/^$/d'
