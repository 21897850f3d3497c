package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"flanneld/subnet"
)

const restartFix = "systemctl restart flanneld && journalctl -u flanneld -n 50"

func checkDaemon(_ context.Context, f *facts) finding {
	if f.daemonErr != nil {
		return fail(restartFix, "%v", f.daemonErr)
	}
	return pass("pid %d answers on %s", f.status.Daemon.PID, f.app.daemon().Path())
}

func checkReady(_ context.Context, f *facts) finding {
	switch {
	case f.daemonErr != nil:
		return skip("no daemon")
	case f.status.Drained:
		return fail("systemctl restart flanneld", "%s", f.status.Reason)
	case !f.status.Ready:
		return fail("", "%s", f.status.Reason)
	case f.status.Pending != "":
		return warn("systemctl restart flanneld", "a change of the network configuration waits for a restart: %s", f.status.Pending)
	case f.status.Reason != "":
		return warn("", "%s", f.status.Reason)
	}
	return pass("ready since its start %s", ago(f.status.Started))
}

func checkState(_ context.Context, f *facts) finding {
	file := subnet.StateFiles(f.app.stateDir, f.app.subnetFile)[0]
	switch {
	case f.stateErr != nil:
		return fail(fmt.Sprintf("mv %s %s.bad && systemctl restart flanneld", file, file), "%v: the host would take a new identity and perhaps another subnet", f.stateErr)
	case f.state.Identity == "":
		return warn("", "%s holds no identity: has a daemon ever run with this --state-dir?", file)
	}
	return pass("%s: identity %s", file, f.state.Identity)
}

func checkStore(_ context.Context, f *facts) finding {
	if f.storeErr != nil {
		return fail("ETCDCTL_API=3 etcdctl --endpoints="+strings.Join(f.access.Endpoints, ",")+" endpoint health", "%v", f.storeErr)
	}
	return pass("%s, revision %d", list(f.access.Endpoints), f.snap.Revision)
}

func checkRights(_ context.Context, f *facts) finding {
	switch {
	case f.storeErr != nil:
		return skip("the store cannot be reached")
	case f.rights != nil:
		return fail("etcdctl role grant-permission flannel --prefix=true readwrite "+f.access.Prefix+"/", "%v", f.rights)
	}
	return pass("records below %s may be read and written", f.access.Prefix)
}

// clockSlack is how far the clocks of this host and of the store may be apart: leases are remembered over a restart by the clock.
const clockSlack = 10 * time.Second

func checkClock(ctx context.Context, f *facts) finding {
	if f.storeErr != nil {
		return skip("the store cannot be reached")
	}
	for _, endpoint := range f.access.Endpoints {
		date, err := httpDate(ctx, endpoint)
		if err != nil {
			continue
		}
		if off := time.Since(date); off.Abs() > clockSlack {
			return fail("timedatectl set-ntp true", "this host's clock differs from that of %s by %s", endpoint, off.Round(time.Second))
		}
		return pass("within %s of %s", clockSlack, endpoint)
	}
	return skip("no endpoint tells its time over HTTP")
}

// httpDate asks a server for its time. Nothing is believed but the time, so its certificate does not matter.
func httpDate(ctx context.Context, endpoint string) (time.Time, error) {
	if !strings.HasPrefix(endpoint, "http") {
		return time.Time{}, errors.New("no HTTP endpoint")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(endpoint, "/")+"/version", nil)
	if err != nil {
		return time.Time{}, err
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	res, err := c.Do(req)
	if err != nil {
		return time.Time{}, err
	}
	_ = res.Body.Close() // the header is all that is wanted
	return http.ParseTime(res.Header.Get("Date"))
}

func checkConfig(_ context.Context, f *facts) finding {
	switch {
	case f.storeErr != nil:
		return skip("the store cannot be reached")
	case f.status.Daemon != nil && f.status.Daemon.ConfigFile != "":
		return pass("from the file %s", f.status.Daemon.ConfigFile)
	case f.snap.Config == nil:
		return fail(`flannelctl network set '{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}'`, "the store has none under %s/config", f.access.Prefix)
	case f.confErr != nil:
		return fail("flannelctl network edit", "%s/config: %s", f.access.Prefix, strings.ReplaceAll(f.confErr.Error(), "\n", "; "))
	}
	return pass("%s", bytes.Join(bytes.Fields(f.snap.Config), []byte(" ")))
}

// ownEntry returns this host's record in the store.
func (f *facts) ownEntry() (subnet.Entry, bool) {
	i := slices.IndexFunc(f.snap.Entries, func(e *subnet.Entry) bool {
		return e.Identity != "" && e.Identity == f.state.Identity && slices.Equal(e.Prefixes(), f.subnets)
	})
	if i < 0 {
		return subnet.Entry{}, false
	}
	return *f.snap.Entries[i], true
}

func checkLease(_ context.Context, f *facts) finding {
	switch {
	case len(f.subnets) == 0:
		return fail("", "this host has no subnet")
	case f.storeErr != nil:
		return skip("the store cannot be reached")
	}
	e, ok := f.ownEntry()
	if holder, taken := holderOf(f.snap, f.subnets); !ok && taken {
		return fail("flannelctl leases history "+f.subnets[0].String(), "%s, which this host uses, is in the store as that of %s", list(f.subnets), holder.Record)
	}
	switch {
	case !ok:
		return fail(restartFix, "%s, which this host uses, is not in the store", list(f.subnets))
	case e.LeaseID == 0:
		return pass("%s is reserved for this host", list(f.subnets))
	case f.status.Lease.Until != nil:
		return pass("%s, %s left", list(f.subnets), time.Until(*f.status.Lease.Until).Round(time.Second))
	}
	return pass("%s", list(f.subnets))
}

func checkRecords(_ context.Context, f *facts) finding {
	if f.storeErr != nil {
		return skip("the store cannot be reached")
	}
	var bad []string
	for _, b := range f.snap.Bad {
		bad = append(bad, fmt.Sprintf("%s: %v", b.Key, b.Err))
	}
	if len(bad) == 0 && f.confErr == nil {
		bad = orphans(f.config, f.snap.Entries)
	}
	if len(bad) > 0 {
		return fail("flannelctl leases, then etcdctl del "+f.access.Prefix+"/KEY", "%d records make no sense and are skipped: %s", len(bad), some(bad))
	}
	return pass("%d records", len(f.snap.Entries))
}

func checkDuplicates(_ context.Context, f *facts) finding {
	if f.storeErr != nil {
		return skip("the store cannot be reached")
	}
	var doubled []string
	seen := map[string]subnet.Entry{}
	note := func(what string, e subnet.Entry) {
		if first, ok := seen[what]; ok && first.Key != e.Key {
			doubled = append(doubled, fmt.Sprintf("%s is that of %s and of %s", what, first.Key, e.Key))
		}
		seen[what] = e
	}
	for _, e := range f.snap.Entries {
		if e.LeaseID == 0 {
			continue // a reservation that its host has not taken yet names what that host has
		}
		if e.Identity != "" {
			note("identity "+e.Identity, *e)
		}
		addrs := map[netip.Addr]bool{}
		for _, l := range e.Leases {
			if !addrs[l.PublicIP] {
				note("address "+l.PublicIP.String(), *e)
			}
			addrs[l.PublicIP] = true
			if l.BackendData != "" {
				note(fmt.Sprintf("backend data %s (%s)", l.BackendData, familyOf(l.Subnet)), *e)
			}
		}
	}
	if len(doubled) > 0 {
		return fail("flannelctl leases, then flannelctl leases release SUBNET --force on the one that is wrong", "%s", some(doubled))
	}
	return pass("no two records have an identity, an address or a hardware address in common")
}

func familyOf(p netip.Prefix) string {
	if p.Addr().Is4() {
		return "IPv4"
	}
	return "IPv6"
}

func checkEnv(_ context.Context, f *facts) finding {
	switch {
	case f.envErr != nil && len(f.subnets) == 0:
		return skip("this host has no subnet: %v", f.envErr)
	case f.envErr != nil:
		return fail(restartFix, "%v", f.envErr)
	case !slices.Equal(f.env.Subnets, f.subnets):
		return fail(restartFix, "%s says %s, this host has %s", f.app.subnetFile, list(f.env.Subnets), list(f.subnets))
	case f.mtu > 0 && f.env.MTU != f.mtu:
		return fail(restartFix, "%s says MTU %d, it is %d", f.app.subnetFile, f.env.MTU, f.mtu)
	}
	return pass("%s: %s, MTU %d", f.app.subnetFile, list(f.env.Subnets), f.env.MTU)
}
