#!/bin/sh
# Install the programs that the tests run against, from Debian's packages, where that is allowed; else say which.
# Their services are not started: the tests start their own on loopback and end them.
set -eu

missing=
command -v storescu >/dev/null && command -v dsrdump >/dev/null || missing="$missing dcmtk"
command -v Orthanc >/dev/null || [ -x /usr/sbin/Orthanc ] || missing="$missing orthanc"
command -v dciodvfy >/dev/null || missing="$missing dicom3tools"
command -v gdcmscu >/dev/null || missing="$missing libgdcm-tools"
command -v cc >/dev/null || missing="$missing gcc libc6-dev"
command -v chromium >/dev/null || missing="$missing chromium"
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
[ -z "$missing" ] && exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -q
    # shellcheck disable=SC2086 # one word a package
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
else
    echo "Tests that need them are skipped; to run them: sudo apt-get install$missing" >&2
fi
