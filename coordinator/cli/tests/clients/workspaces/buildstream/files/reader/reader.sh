#!/bin/sh
cat "${0%/*}/read.txt"
