#!/usr/bin/env bash
# Makes dashboard.json, panels.json and registries.json from the packages that Grafana publishes:
#   dashboards/schema/generate.sh 13.2.3
# Needs Node.js and npm; only for a new version of Grafana.
set -euo pipefail
version=${1:?which version of @grafana/schema and @grafana/data?}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here/generate.cjs" "$work"
cd "$work"
npm init --yes >/dev/null
npm install --no-audit --no-fund --ignore-scripts \
  "@grafana/schema@$version" "@grafana/data@$version" ts-json-schema-generator jsdom react react-dom rxjs
node generate.cjs "$here"
