#!/usr/bin/env bash
# A real OpenTelemetry Collector and telemetrygen for the tests, built with Go from the modules in collector.yaml.
#
#   collector.sh fetch     builds both, once (3 to 5 minutes on two cores), and prints the folder that holds them
#
# Kept in $ANOMALYD_TEST_CACHE, default ${XDG_CACHE_HOME:-~/.cache}/anomalyd-test-servers.
# Needs Go 1.25 or later, and the network the first time.
set -euo pipefail

say() { printf 'collector.sh: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

[ "${1:-}" = fetch ] || { sed -n '2,7p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=0.155.0
cache=${ANOMALYD_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/anomalyd-test-servers}
folder=$cache/collector-$version-$(sha256sum "$here/collector.yaml" | cut -c1-12)
mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9 # another run may be building it
if [ -e "$folder/.complete" ]; then echo "$folder"; exit; fi
command -v go >/dev/null || die "Go is not installed, so no Collector can be built"

# One job at a time: it runs beside the compilation of the project.
export GOFLAGS="-mod=mod -buildvcs=false -p=1" CGO_ENABLED=0 GOBIN=$folder
say "building a Collector and telemetrygen $version (once)"
nice go install "go.opentelemetry.io/collector/cmd/builder@v$version" >"$folder/builder.log" 2>&1 \
  || { tail -n 20 "$folder/builder.log" >&2; die "the Collector Builder could not be built"; }
# The builder writes the sources and then runs `go mod tidy`, which also wants what only the modules' own tests
# use and what cannot always be had. So its failure is passed over: `go build` decides.
(cd "$folder" && nice ./builder --config="$here/collector.yaml" --skip-compilation) >>"$folder/builder.log" 2>&1 || true
[ -s "$folder/source/go.mod" ] || { tail -n 20 "$folder/builder.log" >&2; die "the Collector's sources could not be made"; }
(cd "$folder/source" && nice go build -trimpath -ldflags='-s -w' -o "$folder/otelcol" .) >"$folder/build.log" 2>&1 \
  || { tail -n 20 "$folder/build.log" >&2; die "the Collector could not be built"; }
nice go install "github.com/open-telemetry/opentelemetry-collector-contrib/cmd/telemetrygen@v$version" >"$folder/telemetrygen.log" 2>&1 \
  || { tail -n 20 "$folder/telemetrygen.log" >&2; die "telemetrygen could not be built"; }
rm -rf "$folder/source" "$folder/builder"
: >"$folder/.complete"
echo "$folder"
