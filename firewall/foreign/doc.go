// Package foreign looks after what docker, firewalld, kube-proxy, iptables and a former flannel have put into the
// host's packet filter: it lets packets of the network pass there, removes what flannel has left, and names what is in
// the way and cannot be helped. It changes nothing but chains of its own, the jumps to them, and leftovers of flannel.
package foreign
