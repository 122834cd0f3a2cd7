#!/bin/sh
echo "this is why it fails"
exit 1
