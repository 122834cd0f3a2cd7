#!/bin/sh
echo "this is what it said before"
sleep 987654
