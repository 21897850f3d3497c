#!/bin/sh
# After installation and upgrade: systemd reads docker's drop-in. docker itself is not restarted, for that would stop its containers.
set -e

if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
fi
exit 0
