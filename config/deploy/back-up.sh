#!/bin/sh
# back-up.sh FOLDER NUMBER: today's backup into FOLDER unless it is there; the newest NUMBER stay. Its
# output has the heads of the ledgers: keep it elsewhere. ROLLOUT_DATABASE_URL is of the role for backups.
set -eu
file=$1/rollout-$(date -u +%Y%m%d).backup
[ -e "$file" ] || rollout db backup "$file"
ls "$1"/rollout-*.backup | sort -r | tail -n "+$(($2 + 1))" | while read -r old; do
  rm -- "$old"
done
