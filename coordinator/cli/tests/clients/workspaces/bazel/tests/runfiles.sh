#!/bin/sh
set -eu
[ "$(cc/hello)" = "hello 3" ]
