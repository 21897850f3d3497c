package publish

import (
	"cmp"
	"context"
	"slices"
	"time"

	"flanneld/subnet"
	"flanneld/trigger"
)

// The peers are written to the state folder within peersPause of a change after a quiet time, so that a host that loses
// power soon after its start knows them, and once in peersPeriod while they go on changing: the file is as large as the
// cluster.
const (
	peersPause  = time.Second
	peersPeriod = 30 * time.Second
)

// save writes what the next run must know, if it has changed.
func (p *Publisher) save(v subnet.View) error {
	st := p.o.State
	st.Network, st.Config, st.Own, st.Until = p.o.Network, v.Text, v.Own, v.Until.UTC()
	st.Store = cmp.Or(p.saved.Store, p.o.State.Store)
	if v.Status.Held {
		st.Store = v.Position.Cluster
	}
	st.MACs = map[string]string{}
	for name, mac := range p.o.Backend.MACs() {
		st.MACs[name] = mac.String()
	}
	scope := p.o.Backend.Scope()
	st.Links, st.Networks = scope.Links, scope.Networks
	if p.same(st) {
		return nil
	}
	if err := p.o.StateDir.Save(st); err != nil {
		return err
	}
	p.saved = st
	return nil
}

// saveFirstPeers writes the peers before the first state of a host that had none. A next run that had its lease and no
// peers, and did not reach the store, would take those in the kernel for leftovers and remove them.
func (p *Publisher) saveFirstPeers() error {
	if len(p.o.State.Own.Leases) > 0 || len(p.saved.Own.Leases) > 0 {
		return nil
	}
	return p.savePeers()
}

// saveOtherHistory writes the peers if the store was wiped or restored since, also where they are the same as before. A
// next run would take that store for another one than its last, and wait for a valid network configuration.
func (p *Publisher) saveOtherHistory(now subnet.Position) error {
	if saved := p.position.Load(); now.Cluster == saved.Cluster && now.Revision >= saved.Revision {
		return nil
	}
	p.changed.Set()
	return p.savePeers()
}

func (p *Publisher) same(st subnet.State) bool {
	return p.saved.Own.Equal(st.Own) && p.saved.Store == st.Store && p.saved.Until.Equal(st.Until) &&
		p.saved.Config == st.Config && slices.Equal(p.saved.Links, st.Links)
}

// KeepPeers writes the peers soon after a change, ever more rarely while they go on changing, and once more when ctx
// ends. It sleeps while nothing changes.
func (p *Publisher) KeepPeers(ctx context.Context) error {
	pause, saved := peersPause, time.Time{}
	for {
		select {
		case <-ctx.Done():
			return p.savePeers()
		case <-p.changed:
			p.changed.Set()
		}
		if time.Since(saved) > pause {
			pause = peersPause
		}
		if trigger.Pause(ctx, pause) != nil {
			return p.savePeers()
		}
		if err := p.savePeers(); err != nil {
			p.o.Log.Error("peers not saved", "error", err)
		}
		pause, saved = min(2*pause, peersPeriod), time.Now()
	}
}

// savePeers writes the peers if they have changed.
func (p *Publisher) savePeers() error {
	select {
	case <-p.changed:
		m := p.o.Leases.Memory()
		err := p.o.StateDir.SaveMemory(m)
		if err == nil {
			p.position.Store(&m.Position)
		}
		return err
	default:
		return nil
	}
}
