package status

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"flanneld/api"
	"flanneld/probe"
	"flanneld/subnet"
)

// mostNamed bounds how many peers the reasons name.
const mostNamed = 10

// condition is what the state of the daemon is judged by. A text that is empty is not wrong.
type condition struct {
	ready    bool
	waiting  string // what the daemon waits for before its first pass
	lease    subnet.Status
	kept     int                  // peers that the store has lost
	pass     string               // error of the last pass
	files    map[string]string    // errors of files that this host keeps, by what is in them
	embedded string               // why the embedded etcd does not serve
	firewall []string             // what stands in the way of packets
	changed  map[string]time.Time // kinds of objects that others keep changing
	rival    string               // another flannel that changes the same objects
	routes   []string             // what is left out, or dropped by this host, and concerns no single peer
	peers    []string             // sentences about peers with a problem
}

// judge tells the three states apart, and says what is wrong in sentences. Not ready: no packets flow, or nothing may
// be started yet. Degraded: packets flow, and something is wrong.
func (c condition) judge() (state string, reasons []string) {
	add := func(format string, args ...any) { reasons = append(reasons, fmt.Sprintf(format, args...)) }
	if c.lease.Waiting != "" {
		add("%s", withoutStoreError(c.lease))
	}
	if c.pass != "" {
		add("%s", c.pass)
	}
	if c.embedded != "" {
		add("%s", c.embedded)
	}
	if !c.lease.StoreSince.IsZero() {
		add("store unreachable since %s: %s", c.lease.StoreSince.UTC().Format(time.RFC3339), c.lease.StoreError)
	}
	if c.kept > 0 {
		add("the store has lost the records of %s: packets are still sent to them for -peer-grace",
			api.Count(uint64(c.kept), "peer"))
	}
	for _, what := range sortedKeys(c.files) {
		add("%s not written: %s", what, c.files[what])
	}
	reasons = slices.Concat(reasons, c.firewall, c.routes)
	if c.rival != "" {
		add("another flannel on this host, %s, uses the devices and routes of this network: stop it, or give one of the "+
			"two networks another device (vxlan: another VNI)", c.rival)
	}
	for _, kind := range sortedKeys(c.changed) {
		add("another program on this host keeps changing %s of the network, last at %s", api.Objects(kind),
			c.changed[kind].UTC().Format(time.RFC3339))
	}
	reasons = append(reasons, c.peers[:min(len(c.peers), mostNamed)]...)
	if n := len(c.peers) - mostNamed; n > 0 {
		add("%d more peers with a problem", n)
	}
	switch {
	case !c.ready && len(reasons) == 0:
		return api.StateNotReady, []string{c.waiting}
	case !c.ready:
		return api.StateNotReady, reasons
	case len(reasons) > 0:
		return api.StateDegraded, reasons
	}
	return api.StateReady, []string{}
}

// withoutStoreError says what a lease waits for. While the store is unreachable, the sentence about that has the error.
func withoutStoreError(l subnet.Status) string {
	if l.StoreSince.IsZero() {
		return l.Waiting
	}
	return strings.TrimSuffix(l.Waiting, ": "+l.StoreError)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// peerProblems says what is wrong with peers: those that the backend leaves out, those that are not in the kernel, and
// those that do not answer probes. Peers without a problem cost a look into three maps each.
func peerProblems(peers subnet.Peers, skipped map[netip.Prefix]string, failing failing,
	findings map[netip.Prefix]probe.Finding, mtu int) []string {
	if len(skipped) == 0 && len(failing.single) == 0 &&
		!slices.ContainsFunc(values(findings), func(f probe.Finding) bool { return probeProblem(f, mtu) != "" }) {
		return nil
	}
	var out []string
	for l, r := range peers.Records() {
		why := ""
		switch f, probed := findings[l.Subnet]; {
		case skipped[l.Subnet] != "":
			why = "skipped: " + skipped[l.Subnet]
		case failing.single[l.Subnet] != "":
			why = "not installed in the kernel: " + failing.single[l.Subnet]
		case probed:
			why = probeProblem(f, mtu)
		}
		if why != "" {
			out = append(out, fmt.Sprintf("peer %s %s", peerName(l, r), why))
		}
	}
	return out
}

func values[K comparable, V any](m map[K]V) []V {
	out := make([]V, 0, len(m))
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

// peerName is how messages name a peer.
func peerName(l subnet.Lease, r subnet.Record) string {
	parts := []string{l.Subnet.String(), l.PublicIP.String()}
	if r.Host != "" {
		return fmt.Sprintf("%.64s (%s)", r.Host, strings.Join(parts, ", "))
	}
	return fmt.Sprintf("%s (%s)", parts[0], parts[1])
}

// probeProblem says what the probes of a peer have found; empty: nothing is wrong, or a second round must confirm it.
func probeProblem(f probe.Finding, mtu int) string {
	switch {
	case !f.Sure():
		return ""
	case f.OneWay:
		return "is reached in one direction only: its packets arrive here, ours do not arrive there"
	case f.Down():
		return fmt.Sprintf("does not answer: %d of %d probes lost", f.Lost, f.Sent)
	case f.Silent():
		return ""
	case f.Small(mtu):
		return fmt.Sprintf("loses packets of more than %d bytes", f.PathMTU)
	}
	return ""
}

// Drift that is repaired in recurringMinutes different minutes within recurringWindow comes back.
const (
	recurringMinutes = 3
	recurringWindow  = 10 * time.Minute
)

// recurring notices drift that comes back after each repair. The zero value has seen nothing.
type recurring struct {
	totals map[string]uint64
	grown  map[string][]time.Time // in different minutes, oldest first
}

// note takes in how many objects were repaired so far, by kind.
func (r *recurring) note(totals map[string]uint64, now time.Time) {
	if r.grown == nil {
		r.totals, r.grown = map[string]uint64{}, map[string][]time.Time{}
	}
	for kind, n := range totals {
		times := r.grown[kind]
		if n > r.totals[kind] && (len(times) == 0 || now.Sub(times[len(times)-1]) >= time.Minute) {
			r.grown[kind] = append(times[max(0, len(times)-recurringMinutes+1):], now)
		}
		r.totals[kind] = n
	}
}

// kinds returns what keeps changing, and when it was last repaired.
func (r *recurring) kinds(now time.Time) map[string]time.Time {
	out := map[string]time.Time{}
	for kind, times := range r.grown {
		if len(times) == recurringMinutes && now.Sub(times[0]) < recurringWindow {
			out[kind] = times[len(times)-1]
		}
	}
	return out
}
