package doctor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"flanneld/api"
)

const (
	restartFix = "systemctl restart flanneld && journalctl -u flanneld -n 50"
	rootFix    = "run the doctor as root"
)

func checkDaemon(f *Facts) Finding {
	switch {
	case errors.Is(f.DaemonErr, fs.ErrPermission):
		return fail(rootFix, "%v", f.DaemonErr)
	case f.DaemonErr != nil:
		return fail(restartFix, "%v", f.DaemonErr)
	case f.Status.Daemon == nil:
		return pass("answers on %s", f.Socket)
	}
	return pass("pid %d answers on %s", f.Status.Daemon.PID, f.Socket)
}

func checkReady(f *Facts) Finding {
	if r, ok := f.noDaemon(); ok {
		return r
	}
	s := f.Status
	reasons := some(s.Reasons)
	if s.State == "" {
		reasons = s.Reason // a daemon of an earlier version
	}
	switch {
	case s.Drained:
		return fail("systemctl restart flanneld", "%s", reasons)
	case !s.Ready:
		return fail("", "not ready: %s", reasons)
	case s.Pending != "":
		return warn("systemctl restart flanneld", "a change of the network configuration waits for a restart: %s", s.Pending)
	case s.State == api.StateDegraded:
		return warn("see the other findings", "degraded: %s", reasons)
	}
	return pass("ready, started %s ago", f.Now.Sub(s.Started).Round(time.Second))
}

// checkState looks at the state file. What it advises never removes the file: an identity that is lost does not come
// back.
func checkState(f *Facts) Finding {
	switch {
	case errors.Is(f.StateErr, fs.ErrPermission):
		return skip("only root may read %s", f.StateFile)
	case f.StateErr != nil && f.State.Identity != "":
		return warn("systemctl restart flanneld",
			"%v: the identity can be read; the daemon writes the list of peers again", f.StateErr)
	case corrupt(f.StateErr):
		return fail(fmt.Sprintf("restore %s from a backup; without one: cp -p %s %s.bad && systemctl restart flanneld",
			f.StateFile, f.StateFile, f.StateFile),
			"%v: without it this host takes a new identity, and possibly another subnet", f.StateErr)
	case f.StateErr != nil:
		return fail("repair the disk or the file system; the file may be intact", "%v", f.StateErr)
	case f.State.Identity == "" && f.DaemonErr == nil && len(f.Status.Subnets) == 0:
		return skip("%s is written with the first lease", f.StateFile)
	case f.State.Identity == "":
		return warn("if the daemon has another -state-dir, give it as --state-dir", "%s holds no identity: "+
			"no daemon has run with this folder yet", f.StateFile)
	}
	return pass("%s: identity %s", f.StateFile, f.State.Identity)
}

// corrupt reports whether a file was read and is no valid JSON, as opposed to a file that could not be read.
func corrupt(err error) bool {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	return errors.As(err, &syntax) || errors.As(err, &kind) || errors.Is(err, io.ErrUnexpectedEOF)
}

func checkEnv(f *Facts) Finding {
	switch {
	case errors.Is(f.EnvErr, fs.ErrPermission):
		return fail(rootFix, "%v", f.EnvErr)
	case f.EnvErr != nil && len(f.Subnets) == 0:
		return skip("this host has no subnet: %v", f.EnvErr)
	case f.EnvErr != nil:
		return fail(restartFix, "%v", f.EnvErr)
	case !slices.Equal(f.Env.Subnets, f.Subnets):
		return fail(restartFix, "%s says %s, this host has %s", f.SubnetFile, orNone(list(f.Env.Subnets)),
			orNone(list(f.Subnets)))
	case f.MTU > 0 && f.Env.MTU != f.MTU:
		return fail(restartFix, "%s says MTU %d, the network has %d", f.SubnetFile, f.Env.MTU, f.MTU)
	}
	return pass("%s: %s, MTU %d", f.SubnetFile, list(f.Env.Subnets), f.Env.MTU)
}

// mostDrift is how many repairs in an hour are normal.
const mostDrift = 10

func checkDrift(f *Facts) Finding {
	if r, ok := f.noDaemon(); ok {
		return r
	}
	total := uint64(0)
	var parts []string
	for kind, n := range f.Status.Drift {
		total += n
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d of kind %s", n, kind))
		}
	}
	if total == 0 {
		return pass("no other program has changed devices, routes or rules of the network")
	}
	slices.Sort(parts)
	up := f.Now.Sub(f.Status.Started)
	text := fmt.Sprintf("%s in %s", strings.Join(parts, ", "), up.Round(time.Second))
	if float64(total) >= mostDrift*max(1, up.Hours()) {
		return warn("journalctl -u flanneld -u NetworkManager -u systemd-networkd; "+
			"then make the program leave the device unmanaged",
			"another program keeps changing devices, routes or rules of the network; repaired: %s", text)
	}
	return pass("repaired: %s", text)
}

func checkVersions(f *Facts) Finding {
	if r, ok := f.noDaemon(); ok {
		return r
	}
	var others []string
	for p, r := range f.Probes {
		if r.Version != "" && r.Version != f.Status.Version {
			others = append(others, fmt.Sprintf("%s runs %s", f.named(p), r.Version))
		}
	}
	slices.Sort(others)
	foreign := 0
	for _, l := range f.Peers {
		if f.Records[l.Subnet].Identity == "" {
			foreign++
		}
	}
	switch {
	case len(others) > 0:
		return warn("upgrade the hosts that run an older version", "this host runs %s, %s", f.Status.Version, some(others))
	case foreign > 0:
		return pass("%s on this host, %d peers run flannel", f.Status.Version, foreign)
	}
	return pass("%s on this host and on all peers that were asked", f.Status.Version)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
