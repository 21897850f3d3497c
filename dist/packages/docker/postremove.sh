#!/bin/sh
# After removal. dpkg says "remove" or "purge", rpm 0.
set -e

case "$1" in
remove | purge | 0)
	rm -f /run/docker_opts.env /run/flannel/docker.env
	[ ! -d /run/systemd/system ] || systemctl daemon-reload || true
	;;
esac
exit 0
