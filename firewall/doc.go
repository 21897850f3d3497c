// Package firewall keeps the host's packet filter in the state that the network needs: masquerading, forwarding, and a
// tunnel port that only members reach. It writes one nftables table of its own, whole or not at all, and touches
// nothing of anybody else's except for one chain of accept rules in iptables where that would drop the traffic.
package firewall
