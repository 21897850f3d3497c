#!/bin/sh
# After removal. dpkg says "remove" or "purge", rpm 0.
#
# What the plugin has noted of running containers stays, so that they can be deleted once it is back. A purge removes it.
set -e

case "$1" in
purge)
	rm -rf /var/lib/cni/flannel
	rmdir /var/lib/cni 2>/dev/null || true
	;;
esac
exit 0
