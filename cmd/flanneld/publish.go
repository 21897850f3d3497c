package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"flanneld/backend"
	"flanneld/ip"
	"flanneld/subnet"
)

// The peers are written to the state folder within peersPause of a change after a quiet time, so that a host that loses power soon after
// its start knows them, and once in peersPeriod while they go on changing: the file is as large as the cluster.
const (
	peersPause  = time.Second
	peersPeriod = 30 * time.Second
)

// stateFile is how messages name the state file.
const stateFile = "the state file"

// publisher tells the rest of the host about the network: subnet.env, the state folder, readiness and status.
type publisher struct {
	*process
	manager   leaseSource
	ready     func() // is called when packets flow
	backend   *backend.Loop
	saved     subnet.State
	dirty     atomic.Bool       // peers have changed since they were saved
	seen      subnet.Peers      // of the last pass
	failing   string            // last error of a pass that was logged
	told      subnet.Peers      // peers that were logged, at debug level
	written   []netip.Prefix    // subnets that the subnet file names
	unwritten map[string]string // errors of files that were logged, by what is in them
}

// after is called by the loop at the end of each pass. A file that cannot be written fails the pass.
func (p *publisher) after(v subnet.View, err error) error {
	if !v.Peers.Same(p.seen) {
		p.seen = v.Peers
		p.dirty.Store(true)
	}
	p.say(err)
	p.logPeers(v.Peers)
	if len(v.Self) == 0 || err != nil && !ip.PeersOnly(err) {
		p.status.Pass(v, p.underlay.Now(), err, false)
		return nil
	}
	envErr := p.writeEnv(v)
	if envErr == nil {
		p.written = v.Own.Prefixes()
	}
	p.file("the subnet file", envErr)
	stateErr := p.save(v)
	p.file(stateFile, stateErr)
	// Containers may start as long as the file names the subnets of this host.
	ready := slices.Equal(p.written, v.Own.Prefixes()) && !v.Status.Lost
	p.status.Pass(v, p.underlay.Now(), err, ready)
	if ready {
		p.ready()
	}
	return errors.Join(envErr, stateErr)
}

// file shows whether a file could be written, and logs it when that changes.
func (p *publisher) file(what string, err error) {
	p.status.File(what, err)
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == p.unwritten[what] {
		return
	}
	p.unwritten[what] = text
	if err != nil {
		p.log.Error("write file failed, retrying", "file", what, "error", err)
	} else {
		p.log.Info("file written again", "file", what)
	}
}

// say logs the outcome of a pass when it differs from the last one.
func (p *publisher) say(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == p.failing {
		return
	}
	p.failing = text
	if err != nil {
		p.log.Warn("reconciliation failed, retrying", "error", err)
	} else {
		p.log.Info("reconciliation succeeds again")
	}
}

// logPeers logs which peers have come, changed and gone, at debug level.
func (p *publisher) logPeers(peers subnet.Peers) {
	if !p.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	for old, now := range subnet.PeerChanges(p.told, peers) {
		if now != nil {
			p.log.Debug("peer", "subnet", now.Subnet, "public", now.PublicIP, "data", now.BackendData, "new", old == nil)
		} else {
			p.log.Debug("peer removed", "subnet", old.Subnet, "public", old.PublicIP)
		}
	}
	p.told = peers
}

// writeEnv names the families that links of the MTU can have: a container runtime that gives a container an IPv6 address in spite of it
// fails, and the container does not start.
func (p *publisher) writeEnv(v subnet.View) error {
	e := subnet.Env{MTU: p.backend.MTU(), IPMasq: p.o.IPMasq}
	tooSmall := func(n netip.Prefix) bool { return n.Addr().Is6() && e.MTU < ip.MinMTU6 }
	e.Networks = slices.DeleteFunc(slices.Clone(v.Config.Networks()), tooSmall)
	e.Subnets = slices.DeleteFunc(subnet.Record{Leases: v.Self}.Prefixes(), tooSmall)
	return subnet.WriteEnv(p.o.SubnetFile, e)
}

// save writes what the next run must know, if it has changed.
func (p *publisher) save(v subnet.View) error {
	st := p.state
	st.Network, st.Config, st.Own, st.Until = p.network(), v.Text, v.Own, v.Until.UTC()
	st.MACs = map[string]string{}
	for name, mac := range p.backend.MACs() {
		st.MACs[name] = mac.String()
	}
	scope := p.backend.Scope()
	st.Links, st.Networks = scope.Links, scope.Networks
	if p.same(st) {
		return nil
	}
	if err := p.stateDir.Save(st); err != nil {
		return err
	}
	p.saved = st
	return nil
}

func (p *publisher) same(st subnet.State) bool {
	return p.saved.Own.Equal(st.Own) && p.saved.Until.Equal(st.Until) && p.saved.Config == st.Config && slices.Equal(p.saved.Links, st.Links)
}

// keepPeers writes the peers soon after a change, ever more rarely while they go on changing, and once more at the end.
func (p *publisher) keepPeers(ctx context.Context) error {
	pause := peersPause
	t := time.NewTimer(pause)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return p.savePeers()
		case <-t.C:
		}
		if p.dirty.Load() {
			pause = min(2*pause, peersPeriod)
		} else {
			pause = peersPause
		}
		if err := p.savePeers(); err != nil {
			p.log.Error("peers not saved", "error", err)
		}
		t.Reset(pause)
	}
}

func (p *publisher) savePeers() error {
	if !p.dirty.Swap(false) {
		return nil
	}
	return p.stateDir.SavePeers(p.manager.Peers())
}
