#!/bin/sh
# Turns flanneld's subnet file into options for the docker daemon. The file is read line by line and every value is checked:
# nothing in it is ever run by the shell.
set -eu
LC_ALL=C

name=${0##*/}
env_file=/run/flannel/subnet.env
docker_file=/run/docker_opts.env
key=DOCKER_OPTS
individual=
combined=
ip_masq=yes
ipv6=

usage() {
	cat <<END
Usage: $name [-f FLANNEL-ENV-FILE] [-d DOCKER-ENV-FILE] [-i] [-c] [-m] [-6] [-k COMBINED-KEY]

Writes options for the docker daemon, made from flanneld's subnet file.

  -f FILE   the subnet file (default $env_file)
  -d FILE   the file to write, for EnvironmentFile= (default $docker_file)
  -i        one variable an option: DOCKER_OPT_BIP, DOCKER_OPT_IPMASQ, DOCKER_OPT_MTU
  -c        all options in one variable; neither -i nor -c: both
  -m        leave out --ip-masq
  -6        add --ipv6 and --fixed-cidr-v6 where the network has IPv6
  -k KEY    the name of that one variable (default $key)
END
}

fail() {
	echo "$name: $*" >&2
	exit 1
}

while getopts f:d:icm6k:h option; do
	case $option in
	f) env_file=$OPTARG ;;
	d) docker_file=$OPTARG ;;
	i) individual=yes ;;
	c) combined=yes ;;
	m) ip_masq= ;;
	6) ipv6=yes ;;
	k) key=$OPTARG ;;
	h) usage; exit 0 ;;
	*) usage >&2; exit 1 ;;
	esac
done
shift $((OPTIND - 1))
if [ $# -gt 0 ]; then
	usage >&2
	exit 1
fi
if [ -z "$individual$combined" ]; then
	individual=yes
	combined=yes
fi
case $key in
'' | [0-9]* | *[!A-Za-z0-9_]*) fail "-k $key: not the name of a variable" ;;
esac

# unquote VALUE prints it without a carriage return at its end and a pair of quotes around it.
unquote() {
	value=${1%"$(printf '\r')"}
	case $value in
	\"*\") value=${value#\"} value=${value%\"} ;;
	\'*\') value=${value#\'} value=${value%\'} ;;
	esac
	printf '%s' "$value"
}

[ -r "$env_file" ] || fail "$env_file: cannot be read; is flanneld running, and has it got a subnet?"
subnet= subnet6= mtu= masq=
while IFS= read -r line || [ -n "$line" ]; do
	case $line in
	FLANNEL_SUBNET=*) subnet=$(unquote "${line#*=}") ;;
	FLANNEL_IPV6_SUBNET=*) subnet6=$(unquote "${line#*=}") ;;
	FLANNEL_MTU=*) mtu=$(unquote "${line#*=}") ;;
	FLANNEL_IPMASQ=*) masq=$(unquote "${line#*=}") ;;
	esac
done <"$env_file"
case $subnet in
'' | [0-9]*.[0-9]*.[0-9]*.[0-9]*/[0-9]*) ;;
*) fail "$env_file: FLANNEL_SUBNET=$subnet is no IPv4 subnet" ;;
esac
case $subnet in
*[!0-9./]*) fail "$env_file: FLANNEL_SUBNET=$subnet is no IPv4 subnet" ;;
esac
case $subnet6 in
'' | [0-9a-f]*:*[159d]/[0-9]*) ;;
*) fail "$env_file: FLANNEL_IPV6_SUBNET=$subnet6 is no first address of an IPv6 subnet" ;;
esac
case $subnet6 in
*[!0-9a-f:/]*) fail "$env_file: FLANNEL_IPV6_SUBNET=$subnet6 is no IPv6 subnet" ;;
esac
case $mtu in
*[!0-9]*) fail "$env_file: FLANNEL_MTU=$mtu is no number" ;;
esac
case $masq in
'' | true | false) ;;
*) fail "$env_file: FLANNEL_IPMASQ=$masq is neither true nor false" ;;
esac

all=
text=
# option NAME OPTION adds one to what is written.
option() {
	all="$all $2"
	[ -z "$individual" ] || text="${text}DOCKER_OPT_$1=\"$2\"
"
}
[ -z "$subnet" ] || option BIP "--bip=$subnet"
if [ -n "$ip_masq" ]; then
	# docker masquerades exactly when flanneld does not.
	if [ "$masq" = true ]; then option IPMASQ --ip-masq=false; else option IPMASQ --ip-masq=true; fi
fi
[ -z "$mtu" ] || option MTU "--mtu=$mtu"
if [ -n "$ipv6" ] && [ -n "$subnet6" ]; then
	# The file has the first usable address, docker wants the subnet: one less.
	address=${subnet6%/*}
	case $address in
	*1) last=0 ;;
	*5) last=4 ;;
	*9) last=8 ;;
	*) last=c ;;
	esac
	option IPV6 --ipv6
	option FIXED_CIDR_V6 "--fixed-cidr-v6=${address%?}$last/${subnet6#*/}"
fi
[ -z "$combined" ] || text="${text}$key=\"$all\"
"

# A file is replaced whole, so that no reader sees half of it; what is no file (/dev/stdout) is written to.
if [ -e "$docker_file" ] && [ ! -f "$docker_file" ]; then
	printf '%s' "$text" >"$docker_file"
	exit 0
fi
folder=$(dirname -- "$docker_file")
mkdir -p -- "$folder"
temporary=$docker_file.$$
trap 'rm -f -- "$temporary"' EXIT
printf '%s' "$text" >"$temporary"
chmod 644 "$temporary"
mv -f -- "$temporary" "$docker_file"
trap - EXIT
