#!/bin/sh
# After installation and upgrade: systemd reads docker's drop-in. docker itself is not restarted, for that would stop its containers.
set -e

# What a removal has left for the next start of docker.
rm -f /run/systemd/system/docker.service.d/flannel-removed.conf
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
fi
exit 0
