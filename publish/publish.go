package publish

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"

	"flanneld/ip"
	"flanneld/subnet"
)

// StateFile is how messages name the state file.
const StateFile = "the state file"

// Leases is what is asked of the source of leases.
type Leases interface {
	// Memory returns the records of all others, to be remembered over a restart, and the position that they stand at.
	Memory() subnet.Memory
}

// Backend is what is asked of the backend.
type Backend interface {
	MTU() int
	MACs() map[string]ip.MAC
	Scope() ip.Scope
}

// Report is told the outcome of passes.
type Report interface {
	// File is told whether a file could be written.
	File(what string, err error)
	Pass(v subnet.View, u ip.Underlay, err error, ready bool)
}

// Options are what New needs.
type Options struct {
	SubnetFile string
	IPMasq     bool
	Network    string       // that the state belongs to
	State      subnet.State // what of it does not change here
	StateDir   *subnet.StateDir
	Underlay   func() ip.Underlay
	Leases     Leases
	Backend    Backend
	Report     Report
	// Ready is called after each pass that packets flow after.
	Ready func()
	Log   *slog.Logger
}

// Publisher is made for one network. Before and After are called by one goroutine, KeepPeers is another's.
type Publisher struct {
	o         Options
	saved     subnet.State
	peers     *peersFile
	seen      subnet.Peers      // of the last pass
	failing   string            // last error of a pass that was logged
	logged    subnet.Peers      // peers, at debug level
	written   []netip.Prefix    // subnets that the subnet file names
	unwritten map[string]string // errors of files that were logged, by what is in them
}

// New returns a publisher that has written nothing.
func New(o Options) *Publisher {
	return &Publisher{o: o, peers: newPeersFile(o), unwritten: map[string]string{}}
}

// Before is called before a pass. It writes down the peers that have come since the last one: the next run removes
// routes to peers that it does not know.
func (p *Publisher) Before(v subnet.View) { p.peers.add(v) }

// After takes in the outcome of a pass. A file that cannot be written fails the pass.
func (p *Publisher) After(v subnet.View, err error) error {
	if !v.Peers.Same(p.seen) {
		p.seen = v.Peers
		p.peers.changed.Set()
	}
	p.logOutcome(err)
	p.logPeers(v.Peers)
	if len(v.Self) == 0 || err != nil && !ip.PeersOnly(err) {
		p.o.Report.Pass(v, p.o.Underlay(), err, false)
		return nil
	}
	envErr := p.writeEnv(v)
	if envErr == nil {
		p.written = v.Own.Prefixes()
	}
	p.file("the subnet file", envErr)
	stateErr := errors.Join(p.saveFirstPeers(), p.saveOtherHistory(v.Position), p.save(v))
	p.file(StateFile, stateErr)
	// Containers may start as long as the file names the subnets of this host.
	ready := slices.Equal(p.written, v.Own.Prefixes()) && !v.Status.Lost
	p.o.Report.Pass(v, p.o.Underlay(), err, ready)
	if ready {
		p.o.Ready()
	}
	return errors.Join(envErr, stateErr)
}

// file shows whether a file could be written, and logs it when that changes.
func (p *Publisher) file(what string, err error) {
	p.o.Report.File(what, err)
	text := textOf(err)
	if text == p.unwritten[what] {
		return
	}
	p.unwritten[what] = text
	if err != nil {
		p.o.Log.Error("write file failed, retrying", "file", what, "error", err)
	} else {
		p.o.Log.Info("file written again", "file", what)
	}
}

// logOutcome logs the outcome of a pass when it differs from the last one.
func (p *Publisher) logOutcome(err error) {
	text := textOf(err)
	if text == p.failing {
		return
	}
	p.failing = text
	if err != nil {
		p.o.Log.Warn("reconciliation failed, retrying", "error", err)
	} else {
		p.o.Log.Info("reconciliation succeeds again")
	}
}

// textOf returns the text of an error; empty: there is none.
func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// logPeers logs which peers have come, changed and gone, at debug level.
func (p *Publisher) logPeers(peers subnet.Peers) {
	if !p.o.Log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	for old, now := range subnet.PeerChanges(p.logged, peers) {
		if now != nil {
			p.o.Log.Debug("peer", "subnet", now.Subnet, "public", now.PublicIP, "data", now.BackendData, "new", old == nil)
		} else {
			p.o.Log.Debug("peer removed", "subnet", old.Subnet, "public", old.PublicIP)
		}
	}
	p.logged = peers
}

// writeEnv names the families that links of the MTU can have: a container runtime that gives a container an IPv6
// address in spite of it fails, and the container does not start.
func (p *Publisher) writeEnv(v subnet.View) error {
	e := subnet.Env{MTU: p.o.Backend.MTU(), IPMasq: p.o.IPMasq}
	tooSmall := func(n netip.Prefix) bool { return n.Addr().Is6() && e.MTU < ip.MinMTU6 }
	e.Networks = slices.DeleteFunc(slices.Clone(v.Config.Networks()), tooSmall)
	e.Subnets = slices.DeleteFunc(subnet.Record{Leases: v.Self}.Prefixes(), tooSmall)
	return subnet.WriteEnv(p.o.SubnetFile, e)
}
