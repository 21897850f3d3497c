#!/bin/sh
# After removal. dpkg says "remove" or "purge", rpm 0.
#
# Removing the package leaves the network in place: containers keep their connections until the host is rebooted, or the next daemon takes
# over. A purge takes it away; so does FLANNEL_CLEAN=yes in the environment of the removal, see preremove.sh.
set -e

clean() {
	# Not from within an image that is being built: its kernel is that of the host that builds it.
	[ -d /run/systemd/system ] || return 0
	command -v ip >/dev/null && ip -o link show 2>/dev/null | while IFS=': ' read -r _ name _; do
		name=${name%%@*}
		case $name in
		flannel.[0-9]* | flannel-v6.[0-9]* | flannel-wg | flannel-wg-v6 | flannel.ipip | flannel[0-9]) ip link delete "$name" || true ;;
		esac
	done
	if command -v ip >/dev/null; then
		# The routing protocol number of flanneld's routes.
		ip -4 route flush proto 70 2>/dev/null || true
		ip -6 route flush proto 70 2>/dev/null || true
	fi
	if command -v nft >/dev/null; then
		nft delete table inet flannel 2>/dev/null || true
	fi
}

case "$1" in
remove | 0)
	[ ! -d /run/systemd/system ] || systemctl daemon-reload || true
	if command -v deb-systemd-helper >/dev/null; then
		deb-systemd-helper mask flanneld.service >/dev/null || true
	fi
	;;
purge)
	clean
	rm -rf /var/lib/flannel /run/flannel
	rmdir /etc/flannel 2>/dev/null || true
	if command -v deb-systemd-helper >/dev/null; then
		deb-systemd-helper purge flanneld.service >/dev/null || true
		deb-systemd-helper unmask flanneld.service >/dev/null || true
	fi
	;;
esac
exit 0
