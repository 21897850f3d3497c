#!/bin/sh
# Before removal, not before an upgrade. dpkg says "remove", rpm 0.
set -e

case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
	systemctl --no-reload stop flanneld.service 'flanneld@*.service' || true
fi
if ! command -v deb-systemd-helper >/dev/null; then
	systemctl --no-reload disable flanneld.service >/dev/null 2>&1 || true
fi
if [ "${FLANNEL_CLEAN:-}" = yes ]; then
	# Those of flanneld@.service first.
	for file in /run/flannel/networks/*.env; do
		[ ! -e "$file" ] || flannelctl --subnet-file "$file" cleanup || true
	done
	flannelctl cleanup || true
fi
exit 0
