package doctor

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"flanneld/redact"
	"flanneld/subnet"
)

func checkStore(f *Facts) Finding {
	if f.inKubernetes() {
		if s := f.Status; s.StoreSince != nil {
			return fail("kubectl get --raw=/readyz", "the API server is unreachable since %s: %s",
				s.StoreSince.Format(time.RFC3339), s.StoreReason)
		}
		return pass("the Kubernetes API, as the daemon sees it")
	}
	if f.StoreErr != nil {
		return fail("ETCDCTL_API=3 etcdctl --endpoints="+strings.Join(f.Store.Endpoints, ",")+" endpoint health",
			"%v (endpoints from %s)", f.StoreErr, orNone(f.Store.From))
	}
	return pass("%s, revision %d", list(f.Store.Endpoints), f.Snapshot.Revision)
}

func checkRights(f *Facts) Finding {
	if f.inKubernetes() {
		return checkNodeRights(f)
	}
	if r, ok := f.noStore(); ok {
		return r
	}
	if f.WriteErr != nil {
		return fail("etcdctl role grant-permission ROLE --prefix=true readwrite "+f.Store.Prefix+"/", "%v", f.WriteErr)
	}
	return pass("records below %s may be read and written", f.Store.Prefix)
}

// clockSlack is how far the clocks of this host and of the store may be apart: leases are remembered over a restart
// by the clock.
const clockSlack = 10 * time.Second

func checkClock(f *Facts) Finding {
	if r, ok := f.noStore(); ok {
		return r
	}
	if len(f.Store.Clocks) == 0 {
		return skip("no etcd endpoint reports its time over HTTP")
	}
	c := f.Store.Clocks[0]
	if c.Behind.Abs() > clockSlack {
		return fail("timedatectl set-ntp true", "this host's clock differs from that of %s by %s", c.Endpoint,
			c.Behind.Round(time.Second))
	}
	return pass("within %s of %s", clockSlack, c.Endpoint)
}

func checkConfig(f *Facts) Finding {
	if d := f.Status.Daemon; d != nil && d.ConfigFile != "" {
		return pass("from the file %s", d.ConfigFile)
	}
	if r, ok := f.noStore(); ok {
		return r
	}
	switch {
	case f.Snapshot.Config == nil:
		return fail(`flannelctl network set '{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}'`,
			"%s/config does not exist", f.Store.Prefix)
	case f.ConfigErr != nil:
		return fail("flannelctl network edit", "%s/config: %s", f.Store.Prefix, oneLine(f.ConfigErr))
	}
	return pass("%s", bytes.Join(bytes.Fields(redact.Text(f.Snapshot.Config)), []byte(" ")))
}

// ownEntry returns this host's record in the store.
func (f *Facts) ownEntry() (subnet.Entry, bool) {
	i := slices.IndexFunc(f.Snapshot.Entries, func(e *subnet.Entry) bool {
		return e.Identity != "" && e.Identity == f.State.Identity && slices.Equal(e.Prefixes(), f.Subnets)
	})
	if i < 0 {
		return subnet.Entry{}, false
	}
	return *f.Snapshot.Entries[i], true
}

// Holder returns the record that has one of the subnets, or overlaps it.
func Holder(s subnet.Snapshot, prefixes []netip.Prefix) (subnet.Entry, bool) {
	for _, e := range s.Entries {
		for _, l := range e.Leases {
			if slices.ContainsFunc(prefixes, l.Subnet.Overlaps) {
				return *e, true
			}
		}
	}
	return subnet.Entry{}, false
}

func checkLease(f *Facts) Finding {
	if f.inKubernetes() {
		return checkPodCIDR(f)
	}
	if len(f.Subnets) == 0 {
		fix := "the check ready says what the daemon waits for"
		if f.DaemonErr != nil {
			fix = "start the daemon: it takes a subnet as soon as it reaches the store"
		}
		return fail(fix, "this host has no subnet")
	}
	if r, ok := f.noStore(); ok {
		return r
	}
	own, ok := f.ownEntry()
	if holder, taken := Holder(f.Snapshot, f.Subnets); !ok && taken {
		return fail("flannelctl leases history "+f.Subnets[0].String(),
			"this host uses %s, but in the store it belongs to %s", list(f.Subnets), holder.Record)
	}
	switch {
	case !ok:
		return fail(restartFix, "this host uses %s, but the store has no record of it", list(f.Subnets))
	case own.LeaseID == 0:
		return pass("%s is reserved for this host", list(f.Subnets))
	case f.Status.Lease.Until != nil:
		return pass("%s, expires in %s", list(f.Subnets), f.Status.Lease.Until.Sub(f.Now).Round(time.Second))
	}
	return pass("%s", list(f.Subnets))
}

func checkRecords(f *Facts) Finding {
	if f.inKubernetes() {
		return checkNodes(f)
	}
	if r, ok := f.noStore(); ok {
		return r
	}
	var bad []string
	for _, b := range f.Snapshot.Bad {
		bad = append(bad, fmt.Sprintf("%s: %v", b.Key, b.Err))
	}
	if len(bad) == 0 && f.ConfigErr == nil {
		bad = Unfit(f.Config, f.Snapshot.Entries)
	}
	if len(bad) > 0 {
		return fail("flannelctl leases; then, for a record that is not needed: etcdctl del "+f.Store.Prefix+"/KEY",
			"%d invalid records are skipped: %s", len(bad), some(bad))
	}
	return pass("%s, all valid", count(len(f.Snapshot.Entries), "record"))
}

func checkDuplicates(f *Facts) Finding {
	if f.inKubernetes() {
		return checkNodeAddresses(f)
	}
	if r, ok := f.noStore(); ok {
		return r
	}
	var doubled []string
	seen := map[string]string{} // keys of records, by what they carry
	for _, e := range f.Snapshot.Entries {
		if e.LeaseID == 0 {
			continue // a reservation that its host has not taken yet names what that host has
		}
		for _, what := range unique(*e) {
			if first, ok := seen[what]; ok && first != e.Key {
				doubled = append(doubled, fmt.Sprintf("%s is in %s and in %s", what, first, e.Key))
			}
			seen[what] = e.Key
		}
	}
	if len(doubled) > 0 {
		return fail("flannelctl leases; then, for the record that is wrong: flannelctl leases release SUBNET --force", "%s",
			some(doubled))
	}
	return pass("no two records share an identity, an address or a hardware address")
}

// unique returns what only one record may carry.
func unique(e subnet.Entry) (out []string) {
	if e.Identity != "" {
		out = append(out, "identity "+e.Identity)
	}
	for _, l := range e.Leases {
		out = append(out, "address "+l.PublicIP.String())
		if l.BackendType == "vxlan" || l.BackendType == "wireguard" { // a hardware address, a key
			out = append(out, fmt.Sprintf("backend data %s (%s)", l.BackendData, familyOf(l.Subnet)))
		}
	}
	return out
}

func familyOf(p netip.Prefix) string {
	if p.Addr().Is4() {
		return "IPv4"
	}
	return "IPv6"
}
