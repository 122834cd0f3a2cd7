#!/bin/sh
# Says that it knows of shards, and runs its share of six cases.
set -eu
: > "$TEST_SHARD_STATUS_FILE"
for case in 0 1 2 3 4 5; do
  if [ $((case % TEST_TOTAL_SHARDS)) -eq "$TEST_SHARD_INDEX" ]; then echo "case $case ran"; fi
done
