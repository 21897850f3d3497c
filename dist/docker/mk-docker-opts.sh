#!/bin/sh
# Turns flanneld's subnet file into options for the docker daemon. The file is read line by line and every value is checked:
# nothing in it is ever run by the shell.
set -eu
LC_ALL=C

name=${0##*/}
env_file=/run/flannel/subnet.env
docker_file=/run/docker_opts.env
docker_json=/etc/docker/daemon.json
key=DOCKER_OPTS
individual=
combined=
ip_masq=yes
ipv6=

usage() {
	cat <<END
Usage: $name [-f FLANNEL-ENV-FILE] [-d DOCKER-ENV-FILE] [-i] [-c] [-m] [-6] [-k COMBINED-KEY] [-j DOCKER-CONFIG]

Writes options for the docker daemon, made from flanneld's subnet file.

  -f FILE   the subnet file (default $env_file)
  -d FILE   the file to write, for EnvironmentFile= (default $docker_file)
  -i        one variable an option: DOCKER_OPT_BIP, DOCKER_OPT_IPMASQ, DOCKER_OPT_MTU
  -c        all options in one variable; neither -i nor -c: both
  -m        leave out --ip-masq
  -6        add --ipv6 and --fixed-cidr-v6 where the network has IPv6
  -k KEY    the name of that one variable (default $key)
  -j FILE   docker's configuration file (default $docker_json)

A dockerd in the PATH that knows it gets --allow-direct-routing, unless its configuration file says so itself. Without it, docker 28
and later drop packets from other hosts to containers.

Variables DOCKER_OPT_* of the environment are options, too; the value of KEY in the environment comes before all of them.
END
}

warn() { echo "$name: $*" >&2; }

fail() {
	warn "$*"
	exit 1
}

while getopts f:d:icm6k:j:h option; do
	case $option in
	f) env_file=$OPTARG ;;
	d) docker_file=$OPTARG ;;
	i) individual=yes ;;
	c) combined=yes ;;
	m) ip_masq= ;;
	6) ipv6=yes ;;
	k)
		key=$OPTARG
		# "-k $KEY -d FILE" with an empty variable, in a unit of systemd: -d is the next option, not the key.
		eval "before=\${$((OPTIND - 1))}"
		case $key in
		-[fdicm6kj]*) if [ "$before" = "$key" ]; then key= OPTIND=$((OPTIND - 1)); fi ;;
		esac
		;;
	j) docker_json=$OPTARG ;;
	h) usage; exit 0 ;;
	*) usage >&2; exit 1 ;;
	esac
done
shift $((OPTIND - 1))
[ $# -eq 0 ] || warn "$* at the end is ignored"
if [ -z "$individual$combined" ]; then
	individual=yes
	combined=yes
fi
case $key in
'')
	key=DOCKER_OPTS
	warn "-k has no name of a variable: $key it is"
	;;
[0-9]* | *[!A-Za-z0-9_]*) fail "-k $key: not the name of a variable" ;;
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

# quote VALUE prints it as it stands between double quotes in a file for systemd or a shell.
quote() { printf '%s\n' "$1" | sed 's/["\\$`]/\\&/g'; }

# What the environment says counts unless the subnet file says more.
subnet=${FLANNEL_SUBNET-} subnet6=${FLANNEL_IPV6_SUBNET-} mtu=${FLANNEL_MTU-} masq=${FLANNEL_IPMASQ-}
others= # the lines of the subnet file that no option is made from
if [ -f "$env_file" ] && [ ! -r "$env_file" ]; then
	fail "$env_file: cannot be read"
elif [ ! -f "$env_file" ]; then
	warn "$env_file does not exist: is flanneld running, and has it got a subnet? Without it there are no options"
	env_file=/dev/null
fi
while IFS= read -r line || [ -n "$line" ]; do
	case $line in
	export[\ \	]*)
		bare=${line#export}
		bare=${bare#"${bare%%[! 	]*}"}
		;;
	*) bare=$line ;;
	esac
	case $bare in
	FLANNEL_SUBNET=*) subnet=$(unquote "${bare#*=}") ;;
	FLANNEL_IPV6_SUBNET=*) subnet6=$(unquote "${bare#*=}") ;;
	FLANNEL_MTU=*) mtu=$(unquote "${bare#*=}") ;;
	FLANNEL_IPMASQ=*) masq=$(unquote "${bare#*=}") ;;
	DOCKER_OPT_* | "$key"=*) continue ;;
	esac
	others="$others$line
"
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

[ -z "$subnet" ] || DOCKER_OPT_BIP=--bip=$subnet
[ -z "$mtu" ] || DOCKER_OPT_MTU=--mtu=$mtu
# docker masquerades exactly when flanneld does not.
case $masq in
'') ;;
true) [ -z "$ip_masq" ] || DOCKER_OPT_IPMASQ=--ip-masq=false ;;
false) [ -z "$ip_masq" ] || DOCKER_OPT_IPMASQ=--ip-masq=true ;;
*) [ -z "$ip_masq" ] || fail "$env_file: FLANNEL_IPMASQ=$masq is neither true nor false" ;;
esac
# An older docker does not start with an option that it does not know, and none starts with one that its file has too.
if [ -n "$subnet" ] && ! grep -qs '"allow-direct-routing"' "$docker_json"; then
	case $(dockerd --help 2>/dev/null) in
	*--allow-direct-routing*) DOCKER_OPT_ALLOW_DIRECT_ROUTING=--allow-direct-routing ;;
	esac
fi
if [ -n "$ipv6" ] && [ -n "$subnet6" ]; then
	# The file has the first usable address, docker wants the subnet: one less.
	address=${subnet6%/*}
	case $address in
	*1) last=0 ;;
	*5) last=4 ;;
	*9) last=8 ;;
	*) last=c ;;
	esac
	DOCKER_OPT_IPV6=--ipv6
	DOCKER_OPT_FIXED_CIDR_V6=--fixed-cidr-v6=${address%?}$last/${subnet6#*/}
fi

all= text=
eval "caller=\${$key-}"
[ -z "$caller" ] || all="$(quote "$caller") "
# The names that the caller has put into the environment, and ours. A name that only a line of a value begins with is not set.
names=$(env | sed -n 's/^\(DOCKER_OPT_[A-Za-z0-9_]*\)=.*/\1/p')
ours="DOCKER_OPT_ALLOW_DIRECT_ROUTING DOCKER_OPT_BIP DOCKER_OPT_FIXED_CIDR_V6 DOCKER_OPT_IPMASQ DOCKER_OPT_IPV6 DOCKER_OPT_MTU"
for option in $(printf '%s\n' $names $ours | sort -u); do
	eval "value=\${$option-}"
	[ -n "$value" ] || continue
	value=$(quote "$value")
	all="$all $value"
	[ -z "$individual" ] || text="$text$option=\"$value\"
"
done
[ -z "$combined" ] || text="$text$key=\"$all\"
"
# The options may stand in the subnet file itself: its own lines stay.
[ ! "$docker_file" -ef "$env_file" ] || text=$others$text

# A file is replaced whole, so that no reader sees half of it; what is no file, or a link such as /dev/stdout, is written to.
if [ -h "$docker_file" ] || { [ -e "$docker_file" ] && [ ! -f "$docker_file" ]; }; then
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
