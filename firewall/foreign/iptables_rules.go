package foreign

import (
	"fmt"
	"net/netip"
	"strings"
)

// Names of iptables that others have given.
const (
	chainFORWARD = "FORWARD"
	dockerUser   = "DOCKER-USER"

	TableFilter = "filter"
	tableNAT    = "nat"
)

// forwardHook returns where the accept rules for the networks must stand so that nothing that the host has set up by
// itself drops the packets: in the chain that docker leaves to others and goes through before all of its own, else in
// FORWARD if that lets nothing pass at its end. What administrators drop with conditions of theirs stays dropped.
func forwardHook(chain string, t iptTable, networks []netip.Prefix) hook {
	h := hook{chain: chain}
	switch {
	case len(networks) == 0:
		return h
	case t.has(dockerUser) && t.jumps(chainFORWARD, dockerUser):
		h.from = dockerUser
	case t.policies[chainFORWARD] == "DROP" || t.end(chainFORWARD) < len(t.rules[chainFORWARD]):
		h.from = chainFORWARD
	default:
		return h
	}
	for _, n := range networks {
		h.rules = append(h.rules, fmt.Sprintf("-s %s -j ACCEPT", n), fmt.Sprintf("-d %s -j ACCEPT", n))
	}
	return h
}

// masqueradeHook returns what the chain postrouting of our table says, for kernels without it.
func masqueradeHook(chain string, r Rules, is4 bool) hook {
	h := hook{chain: chain, from: "POSTROUTING", first: true}
	networks := OfFamily(r.Networks, is4)
	if !r.Masquerade || len(networks) == 0 {
		return hook{chain: chain}
	}
	hide, multicast := "-j MASQUERADE", "ff00::/8"
	if r.FullyRandom {
		hide += " --random-fully"
	}
	if is4 {
		multicast = "224.0.0.0/4"
	}
	h.rules = append(h.rules, fmt.Sprintf("-m mark --mark %#[1]x/%#[1]x -j RETURN", MarkKubeProxy))
	for _, from := range networks {
		for _, to := range networks {
			h.rules = append(h.rules, fmt.Sprintf("-s %s -d %s -j RETURN", from, to))
		}
	}
	for _, s := range OfFamily(r.Subnets, is4) {
		h.rules = append(h.rules, fmt.Sprintf("-d %s -j RETURN", s))
	}
	for _, n := range networks {
		h.rules = append(h.rules, fmt.Sprintf("-d %s %s", n, hide))
	}
	h.rules = append(h.rules, fmt.Sprintf("-d %s -j RETURN", multicast))
	for _, n := range networks {
		h.rules = append(h.rules, fmt.Sprintf("-s %s %s", n, hide))
	}
	return h
}

// leftovers are the chains of flannel, by table, with the comment of its rules that stood in the host's chains in older
// versions.
var leftovers = map[string]struct{ chain, comment, home string }{
	TableFilter: {"FLANNEL-FWD", `"flanneld forward"`, chainFORWARD},
	tableNAT:    {"FLANNEL-POSTRTG", `"flanneld masq"`, "POSTROUTING"},
}

// planLeftovers returns the lines that remove what flannel has left in a table.
func planLeftovers(table string, t iptTable) []string {
	old := leftovers[table]
	lines := t.plan(hook{chain: old.chain})
	for _, r := range t.rules[old.home] {
		name, _ := target(r)
		if name != old.chain && strings.Contains(r, "--comment "+old.comment) {
			lines = append(lines, fmt.Sprintf("-D %s %s", old.home, r))
		}
	}
	return lines
}
